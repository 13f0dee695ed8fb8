"""The SHA-256 of a disc while it is tested: it covers bytes of which no file has a checksum.

Of a disc that was burned here the catalog has the checksum of the whole image, as it was read back,
of data discs also what their parity tells. Of another parity disc its own VOLUME.json tells the
checksum of the parity on it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import trio

from .. import clock
from ..catalog.catalog import Catalog
from ..catalog.volumes import Volume
from ..disc.iso9660 import ReadAt
from ..disc.parity_image import parity_place, read_facts
from ..disc.reader import Bytes, DiscReader
from ..errors import ForeignDisc, UnreadableSector
from ..types import SECTOR
from .scrub_plan import Piece
from .session import Session


@dataclass(frozen=True, slots=True)
class Known:
    """What bytes [start, end) of a disc have as their SHA-256, in hexadecimal."""

    start: int
    end: int
    sha256: str


class Sum:
    """Runs over a disc once, from its start on, perhaps in several drives.

    Attributes:
        drives: the serial numbers of the drives that gave the bytes.
    """

    def __init__(self, known: Known) -> None:
        self._known = known
        self._sha = hashlib.sha256()
        self._at = 0
        self._gap = False
        self.drives: set[str] = set()

    def feed(self, piece: Piece, data: Bytes) -> None:
        """What was read of the piece's sectors; blocking. A piece may come again."""
        base = piece.sectors[0] * SECTOR
        self._gap |= piece.start > self._at
        first, last = max(self._at, self._known.start), min(piece.end, self._known.end)
        if first < last:
            self._sha.update(memoryview(data)[first - base : last - base])
        self._at = max(self._at, piece.end)

    @property
    def wrong(self) -> bool:
        """All was read, and it is not what was written."""
        whole = not self._gap and self._at >= self._known.end
        return whole and self._sha.hexdigest() != self._known.sha256

    @property
    def sector(self) -> int:
        """The first one of what is summed up."""
        return self._known.start // SECTOR


def is_parity(catalog: Catalog, volume: Volume) -> bool:
    """Whether it is a parity disc: no file's checksum tells of what is on it."""
    group = catalog.sets.of(volume.id)
    return group is not None and volume.set_index is not None and volume.set_index >= group.k


async def begin(catalog: Catalog, session: Session, volume: Volume) -> Sum | None:
    """A sum for the disc in the drive; None if nothing is known of it. Raises DriveError."""
    if volume.image_sha256 is not None:
        return Sum(Known(0, volume.used, volume.image_sha256))
    if not is_parity(catalog, volume):
        return None

    def read_at(sector: int, count: int) -> bytes:
        return trio.from_thread.run(session.test, sector, count)

    try:
        known = await clock.blocking(lambda: _described(read_at, volume.root_hash), clock.MEDIA)
    except (UnreadableSector, ForeignDisc):
        # Its description does not read, or reads wrong: nothing that is on it can be right.
        known = Known(0, volume.used, "")
    return Sum(known)


def _described(read_at: ReadAt, root_hash: str | None) -> Known:
    """What a parity disc tells of its parity; blocking. Raises ForeignDisc, UnreadableSector."""
    reader = DiscReader(read_at)
    facts = read_facts(reader.volume) if reader.root_hash.hex() == root_hash else None
    if facts is None:
        raise ForeignDisc("its VOLUME.json is not that of the parity disc")
    row = next(row for row in facts.rows if row.row == facts.row)
    start = parity_place(reader.iso) * SECTOR
    return Known(start, start + row.size, row.sha256)
