"""A disc leaves for the vault and comes back, on a real mount with hsmctl."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from hsmfs.library.ports import ElementKind
from hsmfs.library.simulated.hands import place_of, put_in, take_out
from hsmfs.library.simulated.layout import Geometry
from tools.lib.tempfs import TempFs

pytestmark = [pytest.mark.mount, pytest.mark.slow]


def archived(fs: TempFs, size: int) -> tuple[Path, bytes, str]:
    """A released file, its bytes, and the disc that they are on."""
    data = random.Random(size).randbytes(size)
    file = fs.mountpoint / "scan"
    file.write_bytes(data)
    fs.control("archive", "--now", "--wait", "--release", file)
    (disc,) = fs.ask("volume", "list", "--state", "full")
    return file, data, disc["barcode"]


def carried(fs: TempFs) -> None:
    """Wait until the disc lies in a mail slot."""
    deadline = time.monotonic() + 30
    while not all(disc["ready"] for disc in fs.ask("volume", "leaving")):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_disc_goes_to_the_vault_and_comes_back(tmp_path: Path) -> None:
    with TempFs(folder=tmp_path / "fs") as fs:
        file, data, barcode = archived(fs, 3_000_000)
        sheet = tmp_path / "labels.pdf"
        told = fs.control("volume", "export", barcode, "--to", "vault A", "--labels", sheet)
        assert "1 disc ordered out" in told
        assert sheet.read_bytes().startswith(b"%PDF-")
        fs.kill()
        fs.start()
        carried(fs)
        library = tmp_path / "fs/library"
        take_out(library, barcode)
        fs.control("library", "inventory")
        assert fs.ask("volume", "leaving") == []
        fs.control("recall", file)
        (request,) = fs.ask("request", "ls")
        assert (request["name"], request["place"]) == (barcode, "vault A")
        assert "operator" in fs.control("why", file)
        mail = [
            e.address
            for e in Geometry.read(library).elements()
            if e.kind is ElementKind.IMPORT_EXPORT
        ]
        put_in(library, barcode, mail[0])
        fs.control("request", "done", barcode)
        assert file.read_bytes() == data
        assert fs.ask("request", "ls") == []


def test_without_mail_slots_discs_are_taken_from_their_slots(tmp_path: Path) -> None:
    library = tmp_path / "fs/library"
    with TempFs({"library": {"import_export": 0}}, folder=tmp_path / "fs") as fs:
        file, data, barcode = archived(fs, 300_000)
        told = fs.control("volume", "export", barcode, "--to", "safe")
        assert "take them from the slots that" in told
        carried(fs)
        (leaving,) = fs.ask("volume", "leaving")
        assert leaving["place"].startswith("magazine")
        slot = place_of(library, barcode)
        take_out(library, barcode)
        fs.control("library", "inventory")
        assert fs.ask("volume", "leaving") == []
        fs.control("recall", file)
        assert [request["name"] for request in fs.ask("request", "ls")] == [barcode]
        put_in(library, barcode, slot)
        brought = fs.control("volume", "import")
        assert f"1 disc found in slots\n  {barcode}" in brought
        assert file.read_bytes() == data
        assert fs.ask("request", "ls") == []
