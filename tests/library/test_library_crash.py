"""kill -9 at every system call that changes a library: one disc stays one disc, in one place."""

import pickle
import signal
import subprocess
import sys

import pytest

from hsmfs.errors import WriteOnceViolation
from hsmfs.library.journal import DifferenceKind, reconcile, reconcile_carries
from hsmfs.library.ports import DiscStatus, ElementKind
from hsmfs.library.robot import Robot
from hsmfs.library.simulated import hands
from hsmfs.library.simulated.library import SimulatedLibrary
from hsmfs.types import SECTOR, Barcode, ElementAddress
from tests.library.conftest import Carry

ONE = Barcode("S0001D01")

CHILD = """
import os, pickle, signal, sys
from pathlib import Path
import trio
from hsmfs.library.simulated.library import SimulatedLibrary

config, image, job, die_at = pickle.loads(bytes.fromhex(sys.argv[1]))
calls = 0

def mortal(call):
    def stand_in(*args, **kwargs):
        global calls
        calls += 1
        if calls == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return stand_in

async def main():
    library = SimulatedLibrary(config)
    changer, drive = library.changer, library.drives[0]
    slot = next(e for e in await changer.inventory() if e.barcode == "S0001D01")
    if job == "burn":
        await changer.move(slot.address, drive.address)
        await drive.load()
    for name in ("rename", "fsync", "symlink", "open", "copy_file_range", "fchmod", "write"):
        setattr(os, name, mortal(getattr(os, name)))
    if job == "burn":
        await drive.burn(image, lambda done: None)
    elif job == "carry":
        await changer.carry(1, 1)
    elif job == "back":
        await changer.carry(2, None)
    else:
        await changer.move(slot.address, drive.address)
    print(calls)

trio.run(main)
"""


def run(config, image, job, die_at):
    """Run the job in a process that dies at its n-th call; the number of calls if it lived."""
    asked = pickle.dumps((config, image, job, die_at)).hex()
    done = subprocess.run(
        [sys.executable, "-c", CHILD, asked], capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return int(done.stdout)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return None


@pytest.mark.parametrize("die_at", range(1, 11))
async def test_killed_in_a_move(config, library, journal, tmp_path, die_at):
    before = {e.barcode: e.address for e in await library.changer.inventory() if e.full}
    drive = library.drives[0]
    await journal.begin(ONE, before[ONE], drive.address)
    lived = run(config, None, "move", die_at)
    assert lived is None or lived < die_at

    later = SimulatedLibrary(config)
    found = [e for e in await later.changer.inventory() if e.full]
    assert sorted(e.barcode for e in found) == sorted(before)
    (difference,) = reconcile(await later.changer.inventory(), before, journal.open_moves())
    assert (difference.kind, difference.barcode) == (DifferenceKind.HALF_DONE, ONE)
    robot = Robot(later, journal)
    await robot.clear_transport()
    await robot.put_away(later.drives[0])
    assert robot.where(ONE).address == before[ONE]


@pytest.mark.parametrize(("job", "magazine"), [("carry", 1), ("back", 2), ("move", 0)])
async def test_killed_where_magazines_move_whole(whole, whole_config, journal, job, magazine):
    """At each call: a magazine is in one place, its discs are in it, and the robot goes on."""
    await whole.changer.carry(2, 2)
    if job == "move":
        await whole.changer.carry(1, 1)
    discs = {e.barcode for e in await whole.changer.inventory() if e.full}
    lived, die_at = None, 0
    while lived is None:
        die_at += 1
        lived = run(whole_config, None, job, die_at)
        later = SimulatedLibrary(whole_config)
        robot = Robot(later, journal)
        found = await robot.inventory()
        assert sorted(e.barcode for e in found if e.full) == sorted(discs)
        if magazine:
            carry = Carry(7, magazine, 1 if job == "carry" else None)
            ((_, arrived),) = reconcile_carries(found, [carry])
            assert not lived or arrived
        await robot.clear_magazine()
        await robot.empty(later.drives[:2])
        await robot.empty(later.drives[2:])
        assert robot.magazine_in(1) is robot.magazine_in(2) is None
        await later.changer.carry(2, 2)
        if job == "move":
            await later.changer.carry(1, 1)
    assert die_at > 5


@pytest.mark.parametrize("die_at", range(1, 21))
async def test_killed_in_a_burn(rig, config, library, die_at):
    image = rig.image(sectors=100)
    lived = run(config, image, "burn", die_at)
    assert lived is None or lived < die_at
    drive = SimulatedLibrary(config).drives[0]
    info = await drive.load()
    if info.status is DiscStatus.CLOSED:
        assert await drive.read(0, 100) == image.read_bytes()
    if info.status is DiscStatus.BLANK:
        assert info.written_bytes == 0
        await drive.burn(image, lambda done: None)
    else:
        assert info.written_bytes <= 100 * SECTOR
        with pytest.raises(WriteOnceViolation):
            await drive.burn(image, lambda done: None)
    if lived is not None:
        assert info.status is DiscStatus.CLOSED


def test_the_sweeps_reach_the_end(rig, config, library):
    assert run(config, None, "move", 0) <= 10
    hands.take_out(config.path, ONE)
    hands.put_in(config.path, ONE, ElementAddress(1024))
    assert run(config, rig.image(), "burn", 0) <= 20


async def test_killed_between_lift_and_put(config, library):
    put = 4
    run(config, None, "move", put)
    found = next(e for e in await SimulatedLibrary(config).changer.inventory() if e.barcode == ONE)
    assert found.kind is ElementKind.TRANSPORT
