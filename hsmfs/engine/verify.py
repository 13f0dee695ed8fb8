"""Checks a burned disc against what was meant: every byte, in one pass in the order of sectors.

Bytes of files are compared with their SHA-256 by chunk, so the check reaches from the file as it
was hashed to the medium; all the rest (directories, manifest, padding) with the image. Blocking,
so `feed` runs in a thread; the reader goes on meanwhile.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from ..catalog.copies import Copy
from ..disc.compress import decompress_chunk
from ..errors import ChecksumMismatch, MediaError
from ..types import CHUNK, SECTOR, Digest, InodeNo


class SourceMismatch(ChecksumMismatch):
    """The image itself is wrong: the bytes changed between their checksum and the image."""

    default_next = "the file stays queued; look at its pool's disk if this comes again"

    def __init__(self, message: str, sector: int, ino: InodeNo) -> None:
        super().__init__(message, sector)
        self.ino = ino


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Stored bytes [start, end) of the disc that have a checksum of their own."""

    start: int
    end: int
    sha256: bytes
    compressed: bool
    ino: InodeNo


class Checker:
    """Takes a disc's bytes from its start in pieces of any size; raises at the first wrong one."""

    def __init__(self, image: int) -> None:
        self._image = image
        self._chunks: deque[_Chunk] = deque()
        self._at = 0
        self._sha = hashlib.sha256()
        self._frame = bytearray()
        self.covered = 0
        """Bytes up to which all files are known."""

    def add(self, parts: Iterable[tuple[Copy, Digest]]) -> None:
        """Files that come next, in the order of sectors."""
        for copy, digest in parts:
            part = copy.where
            start = part.sector * SECTOR
            ends: Iterable[int] = part.frame_ends
            if not part.compressed:
                ends = (*range(CHUNK, part.length, CHUNK), part.length) if part.length else ()
            before = 0
            for index, end in enumerate(ends, part.offset // CHUNK):
                sha, packed = digest.chunks[index], part.compressed
                self._chunks.append(_Chunk(start + before, start + end, sha, packed, copy.ino))
                before = end
            self.covered = start

    def feed(self, data: bytes) -> None:
        """The next bytes of the disc. Raises ChecksumMismatch with the sector."""
        view = memoryview(data)
        while view:
            chunk = self._chunks[0] if self._chunks else None
            if chunk is not None and self._at >= chunk.start:
                piece = view[: chunk.end - self._at]
                self._take(chunk, piece)
            else:
                piece = view if chunk is None else view[: chunk.start - self._at]
                self._compare(piece)
            self._at += len(piece)
            view = view[len(piece) :]
            if chunk is not None and self._at == chunk.end:
                self._finish(self._chunks.popleft())

    def _take(self, chunk: _Chunk, piece: memoryview) -> None:
        if chunk.compressed:
            self._frame += piece
        else:
            self._sha.update(piece)

    def _compare(self, piece: memoryview) -> None:
        """Bytes that are no file's: as in the image."""
        # Of bytes objects, which are compared as memory; views are compared item by item.
        if os.pread(self._image, len(piece), self._at) != bytes(piece):
            sector = self._at // SECTOR
            raise ChecksumMismatch(f"sectors from {sector} are not what was burned", sector)

    def _finish(self, chunk: _Chunk) -> None:
        sector = chunk.start // SECTOR
        if chunk.compressed:
            frame, self._frame = self._frame, bytearray()
            try:
                self._sha.update(decompress_chunk(bytes(frame)))
            except MediaError as error:
                raise ChecksumMismatch(f"sector {sector}: {error.message}", sector) from error
        found = self._sha.digest()
        self._sha = hashlib.sha256()
        if found != chunk.sha256:
            if self._image_is_wrong(chunk):
                raise SourceMismatch(
                    f"inode {chunk.ino} changed under its checksum", sector, chunk.ino
                )
            raise ChecksumMismatch(f"sectors from {sector} are not what was burned", sector)

    def _image_is_wrong(self, chunk: _Chunk) -> bool:
        if chunk.compressed:
            return False
        data = os.pread(self._image, chunk.end - chunk.start, chunk.start)
        return hashlib.sha256(data).digest() != chunk.sha256
