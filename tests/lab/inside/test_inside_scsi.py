"""What people and cables do to a real library, and discs that a real kernel mounts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hsmfs.cli.main import main
from hsmfs.errors import ChangerError, DriveError, SameLabel, VolumeMissing
from hsmfs.library.ports import ElementKind
from hsmfs.library.robot import Robot
from hsmfs.library.scsi.config import ScsiConfig
from hsmfs.library.scsi.library import ScsiLibrary
from hsmfs.types import SECTOR, Barcode
from tests.lab.tgt import DRIVE, MAIL, SLOT

ONE, TWO = Barcode("S0001D01"), Barcode("S0001D02")


class NoJournal:
    """Moves are not what is tested."""

    async def begin(self, barcode, src, dst) -> int:
        return 0

    async def finish(self, token, ok) -> None:
        pass

    def open_moves(self) -> list:
        return []


@pytest.fixture
async def robot(scsi) -> Robot:
    robot = Robot(scsi, NoJournal())
    await robot.inventory()
    return robot


def image(folder: Path) -> Path:
    path = folder / "image"
    path.write_bytes(bytes(range(256)) * (64 * SECTOR // 256))
    return path


async def test_drives_are_known_by_what_the_robot_says(scsi) -> None:
    assert [d.serial for d in scsi.drives] == ["DRIVE001", "DRIVE002"]
    assert [d.address for d in scsi.drives] == [DRIVE, DRIVE + 1]


async def test_fetch_exchange_and_put_away(robot, scsi) -> None:
    drive = scsi.drives[0]
    await robot.fetch(ONE, drive)
    await drive.load()
    await robot.fetch(TWO, drive)
    assert robot.in_drive(drive) == TWO
    assert robot.where(ONE).address == SLOT
    await robot.put_away(drive)
    found = {e.barcode: e.address for e in await scsi.changer.inventory() if e.full}
    assert (found[ONE], found[TWO]) == (SLOT, SLOT + 1)


async def test_export_and_import(robot, scsi, tgt) -> None:
    mail = await robot.export(ONE)
    assert (mail.kind, mail.address) == (ElementKind.IMPORT_EXPORT, MAIL)
    tgt.take(MAIL)
    await robot.inventory()
    assert robot.where(ONE) is None
    tgt.put(ONE, MAIL)
    assert (await robot.import_(ONE)).kind is ElementKind.STORAGE


async def test_disc_moved_by_hand(robot, tgt) -> None:
    tgt.take(SLOT)
    tgt.put(ONE, SLOT + 7)
    await robot.inventory(rescan=True)
    assert robot.where(ONE).address == SLOT + 7


async def test_disc_taken_by_hand_behind_the_robot_s_back(robot, scsi, tgt) -> None:
    tgt.take(SLOT)
    with pytest.raises(VolumeMissing, match=ONE):
        await robot.fetch(ONE, scsi.drives[0])


async def test_one_label_on_two_discs(robot, scsi, tgt) -> None:
    tgt.put(ONE, SLOT + 6)
    await robot.inventory()
    with pytest.raises(SameLabel, match="is on the discs in"):
        await robot.fetch(ONE, scsi.drives[0])


async def test_drive_comes_back_after_it_was_unplugged(robot, scsi, tgt, tmp_path) -> None:
    drive = scsi.drives[0]
    await robot.fetch(ONE, drive)
    await drive.load()
    await drive.burn(image(tmp_path), lambda done: None)
    before = await drive.read(0, 64)
    paths = {d.identity.serial: d.path for d in (p.device for p in scsi.found.places)}
    tgt.unplug()
    with pytest.raises(DriveError, match="d1"):
        await drive.read(0, 64)
    with pytest.raises(ChangerError, match="does not answer"):
        await scsi.changer.inventory()
    tgt.plug()
    assert await drive.read(0, 64) == before
    assert {e.barcode for e in await scsi.changer.inventory() if e.full} >= {ONE, TWO}
    again = ScsiLibrary(ScsiConfig())
    now = {d.identity.serial: d.path for d in (p.device for p in again.found.places)}
    await again.close()
    assert now.keys() == paths.keys()


async def test_drives_by_configuration(scsi) -> None:
    library = ScsiLibrary(ScsiConfig(drive_devices=("DRIVE002", "/dev/sr0")))
    assert [d.serial for d in library.drives] == ["DRIVE002", "DRIVE001"]
    await library.close()


async def test_discover(scsi, capsys) -> None:
    assert main(["library", "discover", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [d["device"]["serial"] for d in found["drives"]] == ["DRIVE001", "DRIVE002"]
    assert found["changer"]["product"] == "VIRTUAL-CHANGER"
    assert main(["library", "discover"]) == 0
    assert "DRIVE002" in capsys.readouterr().out
