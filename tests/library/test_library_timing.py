"""Delays: exactly the model's under a mock clock, and none at all when set to zero."""

import dataclasses

import pytest
import trio

from hsmfs.library.simulated import timing as timing_module
from hsmfs.library.simulated.create import create
from hsmfs.library.simulated.library import SimulatedLibrary
from hsmfs.library.simulated.timing import Timing
from hsmfs.types import SECTOR


def progress(done):
    pass


@pytest.fixture
def config(config):
    return dataclasses.replace(
        config,
        exchange_s=90,
        load_s=30,
        seek_s=0.5,
        read_bytes_per_s=SECTOR * 100,
        write_bytes_per_s=SECTOR * 10,
    )


def test_reading_costs_a_seek_unless_it_goes_on():
    timing = Timing(seek_s=1, read_bytes_per_s=SECTOR)
    assert timing.reading(0, 0, 3) == 3
    assert timing.reading(3, 0, 3) == 4
    assert Timing().reading(3, 0, 3) == 0


async def test_a_disc_takes_its_time(rig, autojump_clock):
    times = [trio.current_time()]

    def lap():
        times.append(trio.current_time())
        return round(times[-1] - times[-2], 6)

    disc = (await rig.discs())[0]
    await rig.library.changer.move(disc.address, rig.drive.address)
    assert lap() == 90
    await rig.drive.load()
    assert lap() == 30
    await rig.drive.load()
    assert lap() == 0
    await rig.drive.burn(rig.image(sectors=500), progress)
    assert lap() == 50
    await rig.drive.read(0, 100)
    assert lap() == 1
    await rig.drive.read(100, 100)
    assert lap() == 1
    await rig.drive.read(0, 100)
    assert lap() == 1.5
    await rig.library.changer.rescan()
    assert lap() == 90


async def test_a_drive_reads_on_into_its_buffer(rig, autojump_clock):
    rate = 100 * SECTOR
    disc = (await rig.discs())[0]
    await rig.library.changer.move(disc.address, rig.drive.address)
    await rig.drive.load()
    await rig.drive.burn(rig.image(sectors=5000), progress)
    times = []
    for pause, sector in ((10, 0), (0.5, 100), (0, 200), (50, 300), (50, 4000), (0.5, 0)):
        await trio.sleep(pause)
        begun = trio.current_time()
        await rig.drive.read(sector, 100)
        times.append(round(trio.current_time() - begun, 6))
    assert timing_module.READ_AHEAD / rate > 1
    assert times == [1, 0.5, 1, 0, 1.5, 1.5]


async def test_disc_is_in_the_gripper_during_a_move(rig, autojump_clock):
    disc = (await rig.discs())[0]
    seen = []
    autojump_clock.autojump_threshold = 0.1  # time stands still while the inventory's thread works

    async def watch():
        await trio.sleep(60)
        seen.extend(e.place for e in await rig.library.changer.inventory() if e.full)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await rig.library.changer.move(disc.address, rig.drive.address)
    assert "the robot's gripper" in seen


async def test_cancel_does_not_stop_a_move(rig, autojump_clock):
    disc = (await rig.discs())[0]
    with trio.move_on_after(10):
        await rig.library.changer.move(disc.address, rig.drive.address)
    assert trio.current_time() >= 90
    assert (await rig.drive.load()).blank


async def test_cancelled_load_leaves_the_drive_ejected(rig, autojump_clock):
    disc = (await rig.discs())[0]
    await rig.library.changer.move(disc.address, rig.drive.address)
    with trio.move_on_after(10) as scope:
        await rig.drive.load()
    assert scope.cancelled_caught
    assert rig.drive.loaded is None


async def test_zero_delay_never_sleeps(config, rig, monkeypatch):
    async def no_sleep(deadline):
        raise AssertionError("slept")

    monkeypatch.setattr(timing_module.trio, "sleep_until", no_sleep)
    fast = dataclasses.replace(config, path=config.path.with_name("fast"))
    for name in ("exchange_s", "load_s", "seek_s", "read_bytes_per_s", "write_bytes_per_s"):
        fast = dataclasses.replace(fast, **{name: 0})
    create(fast)
    rig.library = SimulatedLibrary(fast)
    await rig.loaded_blank()
    await rig.drive.burn(rig.image(), progress)
    assert await rig.drive.read(0, 64) == rig.image().read_bytes()
