"""What tests inside the lab's kernel share: one SCSI library, put in order before each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from hsmfs.library.ports import ElementKind
from hsmfs.library.scsi.config import ScsiConfig
from hsmfs.library.scsi.library import ScsiLibrary
from tests.lab.tgt import DISC_BYTES, SLOT, Tgt

BARCODES = [f"S0001D{number:02}" for number in range(1, 7)]


@pytest.fixture(scope="session")
def tgt() -> Tgt:
    """The changer with its drives; it runs until the kernel is switched off."""
    return Tgt.build(Path("/run/lab"), BARCODES, spare=2)


@pytest.fixture
def tidy(tgt: Tgt) -> Tgt:
    """Six blank discs in the first slots, empty drives, and nobody who uses them."""
    library = ScsiLibrary(ScsiConfig(disc_bytes=DISC_BYTES))
    trio.run(_tidy, library, tgt)
    trio.run(library.close)
    return tgt


@pytest.fixture
def scsi(tidy: Tgt) -> Iterator[ScsiLibrary]:
    """The library, put in order."""
    library = ScsiLibrary(ScsiConfig(disc_bytes=DISC_BYTES))
    yield library
    trio.run(library.close)


async def _tidy(library: ScsiLibrary, tgt: Tgt) -> None:
    for drive in library.drives:
        await drive.eject()
    slots = [e for e in await library.changer.inventory() if e.kind is not ElementKind.TRANSPORT]
    drives = {e.address for e in slots if e.kind is ElementKind.DRIVE}
    free = (e.address for e in slots if e.kind is ElementKind.STORAGE and not e.full)
    for element in slots:
        if element.full and element.address in drives:
            await library.changer.move(element.address, next(free))
    wanted = {SLOT + number: barcode for number, barcode in enumerate(BARCODES)}
    wrong = [
        e.address
        for e in await library.changer.inventory()
        if e.address not in drives and e.barcode != wanted.get(e.address)
    ]
    for address in wrong:
        tgt.take(address)
    for address, barcode in wanted.items():
        tgt.blank(barcode)
        if address in wrong:
            tgt.put(barcode, address)
    await library.changer.inventory()
