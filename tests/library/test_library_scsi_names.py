"""Drives that come back under other names of the kernel, in a tree as sysfs has it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hsmfs.errors import DriveError
from hsmfs.library.scsi import burner, discovery
from hsmfs.library.scsi.config import ScsiConfig
from hsmfs.library.scsi.inquiry import DeviceType
from hsmfs.library.scsi.library import ScsiLibrary
from hsmfs.library.scsi.sg import DeviceGone
from hsmfs.types import SECTOR
from tests.library.played import BLANK, CLOSED, READ, Played


class Host:
    """Devices by the names that they have today."""

    def __init__(self, sysfs: Path) -> None:
        self.sysfs = sysfs
        self.devices: dict[Path, Played] = {}

    def plug(self, device: Played, number: int, block: str = "") -> None:
        folder = self.sysfs / f"sg{number}/device"
        folder.mkdir(parents=True)
        (folder / "type").write_text(f"{device.kind}\n")
        if block:
            (folder / "block" / block).mkdir(parents=True)
        self.devices[Path(f"/dev/sg{number}")] = device

    def unplug(self, number: int) -> None:
        shutil.rmtree(self.sysfs / f"sg{number}")
        self.devices.pop(Path(f"/dev/sg{number}")).gone = True

    def open(self, path: Path) -> Played:
        if path not in self.devices:
            raise DeviceGone(f"{path}: no such device")
        return self.devices[path]


@pytest.fixture
def host(tmp_path: Path, monkeypatch) -> Host:
    monkeypatch.setattr(discovery, "SYSFS", tmp_path / "sysfs")
    monkeypatch.setattr(burner, "check", lambda program: None)
    host = Host(tmp_path / "sysfs")
    changer = Played(DeviceType.CHANGER, "ROBOT")
    changer.bays = [500, 501]
    host.plug(changer, 0)
    host.plug(Played(serial="ONE"), 1, "sr0")
    host.plug(Played(serial="TWO"), 2, "sr1")
    return host


@pytest.fixture
def library(host: Host) -> ScsiLibrary:
    return ScsiLibrary(ScsiConfig(drive_devices=("ONE", "TWO")), host.open)


def change_names(host: Host) -> tuple[Played, Played]:
    """Both drives vanish; the second one has the first one's old name when they come back."""
    host.unplug(1)
    host.unplug(2)
    one, two = Played(serial="ONE"), Played(serial="TWO")
    host.plug(two, 1, "sr0")
    host.plug(one, 7, "sr2")
    return one, two


async def test_read_goes_on_in_the_same_drive(host, library) -> None:
    drive, _ = library.drives
    await drive.load()
    one, two = change_names(host)
    one.bad = {5}
    assert len(await drive.read(0, 5)) == 5 * SECTOR
    assert READ in {command[0] for command in one.sent}
    assert READ not in {command[0] for command in two.sent}


async def test_burner_gets_the_new_name(host, library, tmp_path: Path, monkeypatch) -> None:
    drive, _ = library.drives
    host.devices[Path("/dev/sg1")].disc = BLANK
    await drive.load()
    one, _ = change_names(host)
    burned: list[str] = []

    def burn(words, image, size, progress) -> None:
        burned.extend(words)
        one.disc = CLOSED

    monkeypatch.setattr(burner, "burn", burn)
    image = tmp_path / "image"
    image.write_bytes(bytes(SECTOR))
    await drive.burn(image, lambda done: None)
    assert "/dev/sr2=/dev/fd/0" in burned


async def test_drive_that_stays_away_fails_till_it_is_back(host, library) -> None:
    drive, _ = library.drives
    await drive.load()
    away = host.devices[Path("/dev/sg1")]
    host.unplug(1)
    with pytest.raises(DriveError, match="d1"):
        await drive.read(0, 1)
    away.gone = False
    host.plug(away, 9, "sr5")
    assert len(await drive.read(0, 1)) == SECTOR
