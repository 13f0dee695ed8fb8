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


async def empty_drives(library: ScsiLibrary) -> None:
    """Put the discs that are in drives into free slots."""
    for drive in library.drives:
        await drive.eject()
    places = await library.changer.inventory()
    free = (e.address for e in places if e.kind is ElementKind.STORAGE and not e.full)
    for place in places:
        if place.full and place.kind is ElementKind.DRIVE:
            await library.changer.move(place.address, next(free))


async def _tidy(library: ScsiLibrary, tgt: Tgt) -> None:
    await empty_drives(library)
    others = (ElementKind.TRANSPORT, ElementKind.DRIVE)
    wanted = {SLOT + number: barcode for number, barcode in enumerate(BARCODES)}
    wrong = [
        e.address
        for e in await library.changer.inventory()
        if e.kind not in others and e.barcode != wanted.get(e.address)
    ]
    for address in wrong:
        tgt.take(address)
    for address, barcode in wanted.items():
        tgt.blank(barcode)
        if address in wrong:
            tgt.put(barcode, address)
    await library.changer.inventory()
