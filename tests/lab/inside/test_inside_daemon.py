"""The daemon on a SCSI library: archive, release, recall, a drive that fails, a disc mounted, discs
that go to a vault and come back, and labels that were swapped."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from hsmfs.cli.client import Client
from hsmfs.cli.links import SocketLink
from hsmfs.library.scsi.config import ScsiConfig
from hsmfs.library.scsi.library import ScsiLibrary
from tests.lab.fixtures import empty_drives
from tests.lab.tgt import DISC_BYTES, MAIL, Tgt

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools"))

from lib.lab import scsi_fs
from lib.nas.nfs import until
from lib.tempfs import TempFs

SIZE = 3_000_000


@pytest.fixture
def fs(tidy, tmp_path: Path) -> Iterator[TempFs]:
    tables = {
        "library": {"drives": 2, "disc": "32 MiB"},
        "engine": {"burn_wait": "0 s", "min_residence": "0 s", "spool_limit": "1 GiB"},
        "fs": {"head": 0},
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


def vanish(serial: str) -> Path:
    """The drive is cut off from this host; what scans for it again."""
    for folder in Path("/sys/class/scsi_generic").iterdir():
        page = folder / "device/vpd_pg80"
        if page.exists() and page.read_bytes().strip().endswith(serial.encode()):
            host = folder.resolve().parts
            name = next(part for part in host if part.startswith("host"))
            (folder / "device/delete").write_text("1")
            return Path("/sys/class/scsi_host", name, "scan")
    raise AssertionError(f"no device has the serial number {serial}")


def burned(fs: TempFs) -> list[str]:
    return [v["barcode"] for v in fs.ask("volume", "list") if v["state"] == "full"]


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
    events = map(json.loads, fs.control("--json", "events").splitlines())
    assert {e["fields"]["volume"] for e in events if e["kind"] == "foreign_disc"} == set(strangers)


def test_burned_disc_is_mounted_and_checked_by_stock_tools(fs: TempFs, tgt: Tgt) -> None:
    meant = written(fs)
    [disc, *_] = [v for v in fs.ask("volume", "list") if v["state"] == "full"]
    mountpoint = Path("/run/disc")
    mountpoint.mkdir()
    subprocess.run(
        ["mount", "-t", "iso9660", "-o", "ro,loop", tgt.discs / disc["barcode"], mountpoint],
        check=True,
    )
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


def test_swapped_labels_are_found_and_the_other_copy_is_read(fs: TempFs, tgt: Tgt) -> None:
    meant = written(fs)
    disc = burned(fs)[0]
    blank = next(v["barcode"] for v in fs.ask("volume", "list") if v["state"] == "blank")
    fs.stop()
    library = ScsiLibrary(ScsiConfig(disc_bytes=DISC_BYTES))
    trio.run(empty_drives, library)
    trio.run(library.close)
    one, other, aside = (tgt.discs / name for name in (disc, blank, ".aside"))
    for old, new in (one, aside), (other, one), (aside, other):
        old.rename(new)
    fs.start()
    assert {path: path.read_bytes() for path in meant} == meant
    assert "should be full and is blank" in fs.ask("volume", "info", disc)["reason"]
