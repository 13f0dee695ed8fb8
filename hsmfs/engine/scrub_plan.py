"""What a scrub reads of a disc, piece by piece, and what each piece must be.

Pure over the catalog's rows: chunks of files have a SHA-256. All the rest (directories, manifest,
parity) only the sum of the whole disc tells of (scrub_sum.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from ..catalog.copies import Copy
from ..catalog.reports import Reports
from ..disc.compress import decompress_chunk
from ..disc.reader import Bytes
from ..errors import ChecksumMismatch, MediaError
from ..states import CopyState
from ..types import CHUNK, SECTOR, VolumeId

PAGE = 500
"""Parts of files planned at once."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes [start, end) of a disc; sha256 is None where it has no checksum of its own."""

    start: int
    end: int
    sha256: bytes | None = None
    compressed: bool = False

    @property
    def sectors(self) -> tuple[int, int]:
        """First sector and how many."""
        first = self.start // SECTOR
        return first, -(-self.end // SECTOR) - first

    def check(self, data: Bytes) -> Bytes:
        """Compare what was read of `sectors`; the bytes themselves. Raises ChecksumMismatch."""
        first = self.start // SECTOR
        stored = data[self.start - first * SECTOR : self.end - first * SECTOR]
        try:
            plain = decompress_chunk(stored) if self.compressed else stored
        except MediaError as error:
            raise ChecksumMismatch(f"sector {first}: {error.message}", first) from error
        if self.sha256 is not None and hashlib.sha256(plain).digest() != self.sha256:
            raise ChecksumMismatch(f"sectors from {first} are not what was written", first)
        return plain


def pieces(reports: Reports, volume: VolumeId, used: int, position: int) -> list[Piece]:
    """The next pieces from a byte on, in order; none if that is the end. `used`: bytes in all."""
    found: list[Piece] = []
    at = position
    parts = reports.copies.laid(volume, position // SECTOR, PAGE)
    for copy in parts:
        digest = reports.copies.digest(copy.ino, copy.version)
        if copy.state is not CopyState.VALID or digest is None:
            continue
        for piece in chunks_of(copy, digest.chunks):
            if piece.start < at:
                continue
            found += _plain(at, piece.start)
            found.append(piece)
            at = piece.end
    last = len(parts) < PAGE
    if last and at < used:
        found += _plain(at, used)
    elif not last and not found:
        found += _plain(at, parts[-1].where.sector * SECTOR)
    return found


def chosen(piece: Piece, seed: int, share: int) -> bool:
    """Whether a scrub of so many percent reads the piece; another seed reads others."""
    if share >= 100:
        return True
    word = hashlib.sha256(f"{seed}:{piece.start}".encode()).digest()
    return int.from_bytes(word[:4], "little") % 100 < share


def chunks_of(copy: Copy, sums: tuple[bytes, ...]) -> Iterator[Piece]:
    """The pieces of a part with the checksum of each; sums are those of the whole version."""
    part = copy.where
    start = part.sector * SECTOR
    ends: tuple[int, ...] = part.frame_ends
    if not part.compressed:
        ends = (*range(CHUNK, part.length, CHUNK), part.length) if part.length else ()
    before = 0
    for index, end in enumerate(ends, part.offset // CHUNK):
        yield Piece(start + before, start + end, sums[index], part.compressed)
        before = end


def _plain(start: int, end: int) -> Iterator[Piece]:
    for at in range(start, end, CHUNK):
        yield Piece(at, min(at + CHUNK, end))
