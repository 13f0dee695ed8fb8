"""The daemon on a SCSI library: archive, release, recall, a drive that fails, sectors that do not
read, discs that go to a vault and come back, and swapped labels; and its discs without it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from hsmfs.cli.client import Client
from hsmfs.cli.links import SocketLink
from hsmfs.library.scsi.config import ScsiConfig
from hsmfs.library.scsi.library import ScsiLibrary
from hsmfs.types import SECTOR
from tests.lab.fixtures import empty_drives
from tests.lab.tgt import DISC_BYTES, MAIL, Tgt

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools"))

from lib.lab import scsi_fs
from lib.nas.nfs import until
from lib.tempfs import REPOSITORY, TempFs

SIZE = 3_000_000


@pytest.fixture
def fs(tidy, tmp_path: Path) -> Iterator[TempFs]:
    tables = {
        "library": {"drives": 2, "disc": "32 MiB"},
        "engine": {"burn_wait": "0 s", "min_residence": "0 s", "spool_limit": "1 GiB"},
        "fs": {"head": 0},
        "recall": {"shelf_wait": "1 s"},
    }
    with scsi_fs(tables, tmp_path / "hsmfs") as fs:
        yield fs
        print(fs.log_tail(100))


def written(fs: TempFs) -> dict[Path, bytes]:
    """Some files, archived on two discs and released."""
    folder = fs.mountpoint / "scans"
    folder.mkdir()
    meant = {folder / f"{n}.dcm": random.Random(n).randbytes(SIZE + n) for n in range(3)}
    for path, content in meant.items():
        path.write_bytes(content)
    fs.control("archive", "--now", "--wait", "--copies", "2", folder, timeout_s=60)
    fs.control("release", folder)
    return meant


def device(serial: str) -> Path:
    """The folder of a drive in sysfs."""
    for folder in Path("/sys/class/scsi_generic").iterdir():
        page = folder / "device/vpd_pg80"
        if page.exists() and page.read_bytes().strip().endswith(serial.encode()):
            return folder / "device"
    raise AssertionError(f"no device has the serial number {serial}")


def node(serial: str) -> Path:
    """The drive's /dev/srN."""
    [name] = (device(serial) / "block").iterdir()
    return Path("/dev", name.name)


def vanish(serial: str) -> Path:
    """The drive is cut off from this host; what scans for it again."""
    folder = device(serial)
    host = next(part for part in folder.resolve().parts if part.startswith("host"))
    (folder / "delete").write_text("1")
    return Path("/sys/class/scsi_host", host, "scan")


def burned(fs: TempFs) -> list[str]:
    return [v["barcode"] for v in fs.ask("volume", "list") if v["state"] == "full"]


def events(fs: TempFs, kind: str) -> list[dict[str, Any]]:
    every = map(json.loads, fs.control("--json", "events").splitlines())
    return [event["fields"] for event in every if event["kind"] == kind]


def test_archive_release_recall_with_a_drive_that_fails(fs: TempFs) -> None:
    meant = written(fs)
    for path in meant:
        assert os.getxattr(path, "user.hsm.state") == b"migrated"
    assert {path: path.read_bytes() for path in meant} == meant
    fs.control("release", fs.mountpoint / "scans")
    scan = vanish("DRIVE001")
    assert {path: path.read_bytes() for path in meant} == meant
    scan.write_text("- - -")
    fs.control("drive", "up", "d1")


def test_written_discs_among_the_blank_ones_are_set_aside(fs: TempFs, tgt: Tgt) -> None:
    noise = random.Random(9).randbytes(1 << 20)
    strangers = ("S0001D01", "S0001D06")  # where the two copies begin
    for barcode in strangers:
        (tgt.discs / barcode).write_bytes(noise)
    meant = written(fs)
    assert {path: path.read_bytes() for path in meant} == meant
    found = {v["barcode"]: v for v in fs.ask("volume", "list")}
    for barcode in strangers:
        assert found[barcode]["state"] == "damaged"
        assert "should be blank and was written by others" in found[barcode]["reason"]
        assert (tgt.discs / barcode).read_bytes() == noise, "nothing was written on it"
    assert {event["volume"] for event in events(fs, "foreign_disc")} == set(strangers)


def check_by_stock_tools(disc: Path, meant: dict[Path, bytes]) -> None:
    mountpoint = Path("/run/disc")
    mountpoint.mkdir()
    subprocess.run(["mount", "-t", "iso9660", "-o", "ro,loop", disc, mountpoint], check=True)
    try:
        checked = subprocess.run(
            ["sha256sum", "--check", "--strict", "SHA256SUMS"],
            cwd=mountpoint, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert checked.returncode == 0, checked.stdout + checked.stderr
        for path, content in meant.items():
            assert (mountpoint / "files/scans" / path.name).read_bytes() == content
    finally:
        subprocess.run(["umount", mountpoint], check=True)
        mountpoint.rmdir()


def test_discs_are_read_by_stock_tools_and_recalls_go_round_bad_sectors(
    fs: TempFs, tgt: Tgt
) -> None:
    meant = written(fs)
    first, *others = meant
    assert first.read_bytes() == meant[first]
    disc = events(fs, "recalled")[-1]["volume"]
    check_by_stock_tools(tgt.discs / disc, meant)
    [copy] = [c for c in fs.ask("info", others[0])["copies"] if c["volume"] == disc]
    bad = copy["sector"] + 100
    os.truncate(tgt.discs / disc, bad * SECTOR)  # the drive says 3/11, unrecovered read error
    assert {path: path.read_bytes() for path in others} == {path: meant[path] for path in others}
    [told, *_] = events(fs, "unreadable")
    assert told["volume"] == disc
    assert f"sector {bad} does not read" in told["error"] and "sense 3/11" in told["error"]
    assert f"sector {bad} " in fs.ask("volume", "info", disc)["reason"]


def test_discs_go_to_a_vault_and_come_back(fs: TempFs, tgt: Tgt) -> None:
    meant = written(fs)
    discs = burned(fs)
    api = Client(SocketLink(fs.socket))
    fs.control("volume", "export", *discs, "--to", "vault A")
    taken: list[str] = []

    def all_taken() -> bool:
        fs.control("library", "inventory")
        taken.extend(tgt.empty_mail(api.get("/library")))
        return not api.get("/export")

    until(all_taken, "all discs are taken")
    assert sorted(taken) == sorted(discs)
    with pytest.raises(OSError):
        next(iter(meant)).read_bytes()
    for number, barcode in enumerate(taken):
        tgt.put(barcode, MAIL + number)
    fs.control("volume", "import")
    assert {path: path.read_bytes() for path in meant} == meant


def check_by_hsm_disc(drive: Path, meant: dict[Path, bytes], into: Path) -> None:
    def tool(*words: str | Path) -> str:
        command = [sys.executable, "-I", REPOSITORY / "tools/hsm-disc", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    listed = tool("list", drive)
    assert all(f"scans/{path.name}" in listed for path in meant)
    tool("verify", drive)
    tool("extract", drive, "-C", into)
    assert {path: (into / "scans" / path.name).read_bytes() for path in meant} == meant


async def load(library: ScsiLibrary, disc: str) -> None:
    """Into the first drive, which is empty."""
    drive = library.drives[0]
    [slot] = [e for e in await library.changer.inventory() if e.barcode == disc]
    await library.changer.move(slot.address, drive.address)
    await drive.load()


def test_without_the_daemon_hsm_disc_reads_and_swapped_labels_are_found_after_that(
    fs: TempFs, tgt: Tgt, tmp_path: Path
) -> None:
    meant = written(fs)
    disc = burned(fs)[0]
    blank = next(v["barcode"] for v in fs.ask("volume", "list") if v["state"] == "blank")
    fs.stop()
    library = ScsiLibrary(ScsiConfig(disc_bytes=DISC_BYTES))
    trio.run(empty_drives, library)
    drive = node(library.drives[0].serial)
    os.close(os.open(drive, os.O_RDONLY | os.O_NONBLOCK))  # Linux sees that it is empty
    trio.run(load, library, disc)
    check_by_hsm_disc(drive, meant, tmp_path / "out")
    trio.run(empty_drives, library)
    trio.run(library.close)
    one, other, aside = (tgt.discs / name for name in (disc, blank, ".aside"))
    for old, new in (one, aside), (other, one), (aside, other):
        old.rename(new)
    fs.start()
    assert {path: path.read_bytes() for path in meant} == meant
    assert "should be full and is blank" in fs.ask("volume", "info", disc)["reason"]
