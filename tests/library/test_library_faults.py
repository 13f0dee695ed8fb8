"""Injected faults of the simulated library: each does what it says, and no more often."""

import json
import os

import pytest

from hsmfs.errors import (
    ChangerError,
    ConfigError,
    DoorOpen,
    DriveError,
    UnreadableSector,
    VolumeMissing,
    WriteOnceViolation,
)
from hsmfs.library.ports import DiscStatus, ElementKind
from hsmfs.library.simulated.faults import Fault, FaultKind
from hsmfs.library.simulated.library import SimulatedLibrary
from hsmfs.types import SECTOR, Barcode

ONE = Barcode("S0001D01")
TWO = Barcode("S0001D02")


def progress(done):
    pass


def write_faults(config, *faults):
    beside = config.path / "faults.new"
    beside.write_text(json.dumps(faults))
    os.rename(beside, config.path / "faults.json")


async def test_drive_fails_while_burning(rig, library):
    library.faults.add(Fault(FaultKind.BURN_FAILS, drive="d1", at_byte=40 * SECTOR))
    disc = await rig.loaded_blank()
    with pytest.raises(DriveError, match=f"d1.*{disc.barcode}.*byte {40 * SECTOR}"):
        await rig.drive.burn(rig.image(), progress)
    assert rig.drive.loaded.status is DiscStatus.INCOMPLETE
    assert rig.drive.loaded.written_bytes == 40 * SECTOR
    with pytest.raises(WriteOnceViolation):
        await rig.drive.burn(rig.image(), progress)


async def test_a_fault_of_once_does_not_strike_two_drives(rig, library, monkeypatch):
    library.faults.add(Fault(FaultKind.BURN_FAILS))
    told = library.faults.armed(FaultKind.BURN_FAILS)
    assert library.faults.spend(told[0])  # the other drive asked at the same time, and was first
    await rig.loaded_blank()
    monkeypatch.setattr(library.faults, "armed", lambda kind, **_: told)
    await rig.drive.burn(rig.image(), progress)
    assert rig.drive.loaded.status is DiscStatus.CLOSED


async def test_burn_fault_is_over_after_one(rig, library):
    library.faults.add(Fault(FaultKind.BURN_FAILS))
    disc = await rig.loaded_blank()
    with pytest.raises(DriveError):
        await rig.drive.burn(rig.image(), progress)
    await rig.drive.eject()
    await library.changer.move(rig.drive.address, disc.address)
    spare = (await rig.discs())[1]
    await library.changer.move(spare.address, rig.drive.address)
    await rig.drive.load()
    await rig.drive.burn(rig.image(), progress)
    assert rig.drive.loaded.status is DiscStatus.CLOSED


async def test_drive_fails_while_reading(rig, library):
    await rig.loaded_blank()
    await rig.drive.burn(rig.image(), progress)
    library.faults.add(Fault(FaultKind.READ_FAILS, drive="d1", times=2))
    for _ in range(2):
        with pytest.raises(DriveError, match="d1"):
            await rig.drive.read(0, 1)
    assert len(await rig.drive.read(0, 1)) == SECTOR


async def test_drive_does_not_get_ready(rig, library):
    disc = (await rig.discs())[0]
    library.faults.add(Fault(FaultKind.LOAD_FAILS, drive="d1"))
    await library.changer.move(disc.address, rig.drive.address)
    with pytest.raises(DriveError):
        await rig.drive.load()
    assert (await rig.drive.load()).blank


async def test_unreadable_sectors_stay_so(rig, library):
    disc = await rig.loaded_blank()
    await rig.drive.burn(rig.image(), progress)
    library.faults.add(
        Fault(FaultKind.UNREADABLE, barcode=disc.barcode, sector=30, count=4),
        Fault(FaultKind.UNREADABLE, barcode=disc.barcode, sector=20, count=1),
    )
    for start, count, first in ((0, 64, 20), (21, 20, 30), (32, 1, 32)):
        with pytest.raises(UnreadableSector) as caught:
            await rig.drive.read(start, count)
        assert caught.value.sector == first
    assert await rig.drive.read(34, 30) == rig.image().read_bytes()[34 * SECTOR :]


async def test_corrupt_sectors_read_wrong_without_an_error(rig, library):
    disc = await rig.loaded_blank()
    await rig.drive.burn(rig.image(), progress)
    library.faults.add(Fault(FaultKind.CORRUPT, barcode=disc.barcode, sector=9, count=2))
    data, good = await rig.drive.read(8, 4), rig.image().read_bytes()
    assert data[:SECTOR] == good[8 * SECTOR : 9 * SECTOR]
    assert data[3 * SECTOR :] == good[11 * SECTOR : 12 * SECTOR]
    assert data[SECTOR : 3 * SECTOR] == bytes(b ^ 255 for b in good[9 * SECTOR : 11 * SECTOR])


@pytest.mark.parametrize("leaves", ["source", "transport"])
async def test_jam(rig, library, leaves):
    library.faults.add(Fault(FaultKind.ROBOT_JAM, leaves=leaves))
    disc = (await rig.discs())[0]
    with pytest.raises(ChangerError, match="jammed"):
        await library.changer.move(disc.address, rig.drive.address)
    holder = next(e for e in await library.changer.inventory() if e.barcode == disc.barcode)
    in_gripper = leaves == "transport"
    assert holder.kind is (ElementKind.TRANSPORT if in_gripper else ElementKind.STORAGE)
    if in_gripper:
        other = (await rig.discs())[0]
        with pytest.raises(ChangerError, match="gripper"):
            await library.changer.move(other.address, rig.drive.address)
    await library.changer.move(holder.address, rig.drive.address)


async def test_disc_missing_from_its_slot(rig, library):
    disc = (await rig.discs())[0]
    library.faults.add(Fault(FaultKind.MISSING, barcode=disc.barcode))
    assert disc.barcode not in [d.barcode for d in await rig.discs()]
    with pytest.raises(VolumeMissing):
        await library.changer.move(disc.address, rig.drive.address)
    library.faults.clear(FaultKind.MISSING)
    assert disc in await rig.discs()


async def test_open_door_stops_the_robot_and_no_drive(rig, library):
    disc = await rig.loaded_blank()
    library.faults.add(Fault(FaultKind.DOOR_OPEN))
    for call in (
        library.changer.inventory,
        library.changer.rescan,
        lambda: library.changer.move(disc.address, rig.drive.address),
    ):
        with pytest.raises(DoorOpen):
            await call()
    await rig.drive.burn(rig.image(), progress)
    library.faults.clear()
    await library.changer.inventory()


async def test_label_reads_wrong_or_not_at_all(rig, library):
    library.faults.add(
        Fault(FaultKind.LABEL, barcode=ONE, reads_as=TWO),
        Fault(FaultKind.LABEL, barcode=TWO, reads_as=ONE),
        Fault(FaultKind.LABEL, barcode=Barcode("S0001D03")),
    )
    assert [d.barcode for d in await rig.discs()][:4] == [TWO, ONE, None, "S0001D04"]


async def test_faults_from_outside(rig, library, config):
    await rig.loaded_blank()
    await rig.drive.burn(rig.image(), progress)
    write_faults(config, {"kind": "read_fails", "drive": "d1"})
    with pytest.raises(DriveError):
        await rig.drive.read(0, 1)
    await rig.drive.read(0, 1)
    write_faults(config, {"kind": "read_fails", "times": None})
    for _ in range(3):
        with pytest.raises(DriveError):
            await rig.drive.read(0, 1)
    (config.path / "faults.json").unlink()
    await rig.drive.read(0, 1)


async def test_spent_fault_does_not_come_back_with_a_restart(library, config):
    write_faults(config, {"kind": "door_open", "times": 1})
    with pytest.raises(DoorOpen):
        await library.changer.inventory()
    again = SimulatedLibrary(config)
    await again.changer.inventory()
    write_faults(config, {"kind": "door_open", "times": 1})
    with pytest.raises(DoorOpen):
        await again.changer.inventory()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "Expecting value"),
        ("{}", "not a list"),
        ("[1]", "not an object"),
        ('[{"kind": "fire"}]', "fire"),
        ('[{"kind": "robot_jam", "leaves": "floor"}]', "floor"),
        ('[{"kind": "unreadable", "sectr": 1}]', "sectr"),
        ('[{"kind": "unreadable", "sector": -1}]', "whole numbers"),
    ],
)
async def test_bad_fault_file_is_refused(library, config, text, says):
    (config.path / "faults.json").write_text(text)
    with pytest.raises(ConfigError, match=says):
        await library.changer.inventory()
