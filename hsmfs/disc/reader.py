"""Reading a volume back: who it is, what is on it, and bytes checked before they are given.

Works on any function that reads whole sectors, so a drive and an image are the same to it. A recall
needs `read_chunk` alone: no filesystem is looked at, only the catalog's sectors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hsmfs.disc.compress import decompress_chunk, seek_table
from hsmfs.disc.iso9660 import Entry, Iso, ReadAt
from hsmfs.disc.layout import Key, Kind, Placed, StagedFile, VolumeLabel
from hsmfs.disc.manifest import (
    CATALOG,
    MANIFEST,
    PARITY,
    SUMS,
    VOLUME,
    parse_line,
    read_manifest,
    read_volume,
)
from hsmfs.errors import ChecksumMismatch, ForeignDisc, MediaError, UnreadableSector
from hsmfs.types import CHUNK, SECTOR, Digest, StoredPart, VolumeId

_WINDOW = 2048
"""Sectors that verify reads at a time."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What verify found of one stored file: problem is None if every byte is right."""

    name: bytes
    key: Key | None
    """None for the disc's own files."""
    stored: int
    problem: str | None = None
    sector: int | None = None


Bytes = bytes | memoryview


def read_chunk(
    part: StoredPart, index: int, digest: Digest, read_at: Callable[[int, int], Bytes]
) -> Bytes:
    """Plain bytes of chunk `index` of the version (index into digest.chunks), verified.

    The chunk must lie in the part. Raises ChecksumMismatch naming the sector if other bytes came
    than were written, and what read_at raises (UnreadableSector).
    """
    local = index - part.offset // CHUNK
    plain = min(CHUNK, part.length - local * CHUNK)
    if local < 0 or plain <= 0:
        raise ValueError(f"chunk {index} is not in part {part.part} at {part.offset}+{part.length}")
    if part.compressed:
        start, end = part.frame_ends[local - 1] if local else 0, part.frame_ends[local]
    else:
        start, end = local * CHUNK, local * CHUNK + plain
    first = part.sector + start // SECTOR
    skip = start % SECTOR
    count = -(-(skip + end - start) // SECTOR)
    raw = read_at(first, count)
    data = memoryview(raw)
    if len(data) < skip + end - start:
        raise UnreadableSector(f"the disc ends before sector {first + count}", first)
    stored = data[skip : skip + end - start]
    try:
        content = decompress_chunk(stored) if part.compressed else stored
    except MediaError as error:
        raise ChecksumMismatch(
            f"chunk {index} in sector {first}: {error.message}", first
        ) from error
    if hashlib.sha256(content).digest() != digest.chunks[index]:
        raise ChecksumMismatch(
            f"chunk {index}, {count} sectors from {first}, is not what was written", first
        )
    return content


class DiscReader:
    """One volume, opened by its VOLUME.json.

    sectors is the medium's real size if known. Raises ForeignDisc if it is not one of ours.
    """

    def __init__(self, read_at: ReadAt, sectors: int | None = None) -> None:
        self.read_at = read_at
        self.iso = Iso(read_at, sectors)
        data = self._file(VOLUME)
        self.label: VolumeLabel
        self.volume: dict[str, Any]
        self.label, self.volume = read_volume(data)
        self.root_hash = hashlib.sha256(data).digest()

    def manifest(self) -> Iterator[Placed]:
        """Every staged file, as it was. Raises ForeignDisc or ChecksumMismatch."""
        return read_manifest(self._manifest_bytes())

    def parts(self, volume: VolumeId) -> Iterator[tuple[Placed, StoredPart]]:
        """Every file of the manifest with its place: what a catalog is rebuilt from."""
        for item in self.manifest():
            if item.file.kind is Kind.FILE:
                yield item, self._stored_part(item, volume)

    def snapshot(self) -> Entry | None:
        """The catalog snapshot's place, if the disc carries one."""
        return self._entries.get(CATALOG.encode())

    def verify(self, progress: Callable[[int, int], None] | None = None) -> Iterator[Finding]:
        """Check every stored byte, in the order of sectors; one finding a file.

        progress gets (bytes done, bytes in all). An unreadable or wrong place is a finding, not an
        error; only a disc whose description is unreadable raises.
        """
        window = _Window(self.read_at, self.iso.sectors)
        total = self.volume["stored_bytes"] or 1
        done = 0
        yield from self._verify_own()
        for sector, item in self._in_sector_order():
            if sector is None:
                name = item.data or item.file.paths[0]
                yield Finding(name, item.file.key, item.file.stored, "it is not on the disc")
            else:
                yield self._verify_file(item, window)
            done += item.file.stored
            if progress is not None:
                progress(done, total)

    def _in_sector_order(self) -> Iterator[tuple[int | None, Placed]]:
        # Lines are kept, not files: a disc may hold a million.
        places: list[tuple[int, bytes]] = []
        for line in self._manifest_bytes().split(b"\n"):
            item = parse_line(line) if line else None
            if item is None or item.file.kind is not Kind.FILE:
                continue
            entry = self._entries.get(item.data or b"")
            if entry is None or entry.size != item.file.stored:
                yield None, item
            else:
                places.append((entry.sector, line))
        places.sort()
        for sector, line in places:
            yield sector, parse_line(line)

    def _verify_file(self, item: Placed, read_at: ReadAt) -> Finding:
        file = item.file
        name = item.data or b""
        part = self._stored_part(item, VolumeId(0))
        assert file.digest is not None
        try:
            for index in file.chunks:
                read_chunk(part, index, file.digest, read_at)
            if file.compressed:
                self._verify_tail(item, read_at)
        except UnreadableSector as error:
            return Finding(name, file.key, file.stored, error.message, error.sector)
        return Finding(name, file.key, file.stored)

    def _verify_tail(self, item: Placed, read_at: ReadAt) -> None:
        """The seek table of a compressed file, which is under no chunk's checksum."""
        sizes = _frame_sizes(item.file)
        table = seek_table(sizes)
        start = sum(packed for packed, _ in sizes)
        entry = self._entries[item.data or b""]
        first, skip = entry.sector + start // SECTOR, start % SECTOR
        data = read_at(first, -(-(skip + len(table)) // SECTOR))
        if data[skip : skip + len(table)] != table:
            raise ChecksumMismatch(
                f"the seek table in sector {first} is not what was written", first
            )

    def _sha256(self, entry: Entry) -> str:
        sha = hashlib.sha256()
        left, sector = entry.size, entry.sector
        while left > 0:
            data = self.read_at(sector, min(_WINDOW, -(-left // SECTOR)))
            sha.update(memoryview(data)[:left])
            left -= len(data)
            sector += len(data) // SECTOR
        return sha.hexdigest()

    def _verify_own(self) -> Iterator[Finding]:
        own = {
            MANIFEST: self.volume["manifest_sha256"],
            SUMS: self.volume["sums_sha256"],
            CATALOG: self.volume["catalog_sha256"],
            PARITY: self.volume.get("parity", {}).get("sha256"),
        }
        for name, sha in own.items():
            if sha is None:
                continue
            entry = self._entries.get(name.encode())
            if entry is None:
                yield Finding(name.encode(), None, 0, "it is not on the disc")
                continue
            try:
                right = self._sha256(entry) == sha
                problem = None if right else "it is not what was written"
            except UnreadableSector as error:
                problem = error.message
            yield Finding(
                name.encode(), None, entry.size, problem, entry.sector if problem else None
            )

    def _stored_part(self, item: Placed, volume: VolumeId) -> StoredPart:
        file = item.file
        entry = self._entries.get(item.data or b"")
        if entry is None:
            raise ForeignDisc(f"{item.data!r} is in {MANIFEST} but not on the disc")
        return StoredPart(
            volume,
            file.part,
            file.parts,
            file.offset,
            file.length,
            entry.sector,
            entry.size,
            file.compressed,
            file.frame_ends,
        )

    @cached_property
    def _entries(self) -> dict[bytes, Entry]:
        return {entry.path: entry for entry in self.iso.walk()}

    def _manifest_bytes(self) -> bytes:
        data = self._file(MANIFEST)
        if hashlib.sha256(data).hexdigest() != self.volume["manifest_sha256"]:
            entry = self._entries[MANIFEST.encode()]
            raise ChecksumMismatch(
                f"{MANIFEST}, from sector {entry.sector}, is not what was written", entry.sector
            )
        return data

    def _file(self, name: str) -> bytes:
        entry = self.iso.find(name.encode())
        if entry is None:
            raise ForeignDisc(f"the disc has no {name}: hsmfs did not write it")
        return self.iso.read(entry)


def _frame_sizes(file: StagedFile) -> list[tuple[int, int]]:
    starts = (0, *file.frame_ends)
    return [
        (end - start, min(CHUNK, file.length - at * CHUNK))
        for at, (start, end) in enumerate(zip(starts, file.frame_ends, strict=False))
    ]


class _Window:
    """Reads far ahead, so that small files in sector order cost no read each."""

    def __init__(self, read_at: ReadAt, sectors: int) -> None:
        self._read_at = read_at
        self._sectors = sectors
        self._start = 0
        self._data = memoryview(b"")

    def __call__(self, sector: int, count: int) -> bytes:
        have = len(self._data) // SECTOR
        if not self._start <= sector <= sector + count <= self._start + have:
            if count >= _WINDOW // 2:
                return self._read_at(sector, count)
            ahead = max(count, min(_WINDOW, self._sectors - sector))
            try:
                self._data = memoryview(self._read_at(sector, ahead))
            except UnreadableSector:
                # Something ahead does not read; it must not be blamed on this file.
                return self._read_at(sector, count)
            self._start = sector
        at = (sector - self._start) * SECTOR
        return bytes(self._data[at : at + count * SECTOR])
