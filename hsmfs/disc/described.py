"""What a disc says of itself, taken off it in one visit: label, manifest, snapshot, sectors.

For a rebuild of the catalog: the disc is read once, front to back as far as its folders and its own
files go, and everything that is needed of it later lies in files. Works like the reader on any
function that reads whole sectors; nothing is believed without its checksum.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hsmfs.disc.iso9660 import Entry, Iso, ReadAt
from hsmfs.disc.manifest import AUDIT, CATALOG, MANIFEST
from hsmfs.disc.reader import DiscReader
from hsmfs.errors import ChecksumMismatch, ForeignDisc
from hsmfs.types import SECTOR

_PIECE = 2048
"""Sectors read at a time."""
_DIRECTORY, _MULTI_EXTENT = 0x02, 0x80

Told = Callable[[int], None]
"""Called with the bytes read of a file so far; what it raises ends the work."""


@contextmanager
def image(path: Path) -> Iterator[DiscReader]:
    """The disc in an image file, open as long as the block runs. Raises ForeignDisc, OSError."""
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size

        def read_at(sector: int, count: int) -> bytes:
            return os.pread(file.fileno(), count * SECTOR, sector * SECTOR)

        yield DiscReader(read_at, size // SECTOR)


def copy_manifest(reader: DiscReader, dest: Path, told: Told = lambda done: None) -> None:
    """MANIFEST.jsonl, checked. Raises ChecksumMismatch, ForeignDisc, what reading raises."""
    _copy(reader, MANIFEST, reader.volume["manifest_sha256"], dest, told)


def has_snapshot(reader: DiscReader) -> bool:
    """True if a snapshot of the catalog is on the disc."""
    return reader.volume.get("catalog_sha256") is not None


def copy_snapshot(reader: DiscReader, dest: Path, told: Told = lambda done: None) -> None:
    """CATALOG.sqlite.zst, checked. Raises ChecksumMismatch, ForeignDisc, what reading raises."""
    _copy(reader, CATALOG, reader.volume["catalog_sha256"], dest, told)


def copy_audit(reader: DiscReader, dest: Path) -> bool:
    """AUDIT.jsonl.zst, checked; False if the disc has none. Raises as `copy_manifest`."""
    sha256 = reader.volume.get("audit_sha256")
    if sha256 is None:
        return False
    _copy(reader, AUDIT, sha256, dest, lambda done: None)
    return True


def _copy(reader: DiscReader, name: str, sha256: str, dest: Path, told: Told) -> None:
    entry = reader.iso.find(name.encode())
    if entry is None:
        raise ForeignDisc(f"disc {reader.label.barcode} has no {name}")
    part = dest.with_name(dest.name + ".part")
    with part.open("wb") as out:
        found = _pour(entry, reader.read_at, out, told)
        out.flush()
        os.fsync(out.fileno())
    if found != sha256:
        raise ChecksumMismatch(
            f"{name} on disc {reader.label.barcode}, from sector {entry.sector}, is not what was"
            " written", entry.sector,
        )  # fmt: skip
    part.rename(dest)


def _pour(entry: Entry, read_at: ReadAt, out: BinaryIO, told: Told) -> str:
    sha = hashlib.sha256()
    done, sector = 0, entry.sector
    while done < entry.size:
        count = min(_PIECE, -(-(entry.size - done) // SECTOR))
        data = memoryview(read_at(sector, count))[: entry.size - done]
        if not data:
            raise ForeignDisc(f"the disc ends before sector {sector + count}")
        sha.update(data)
        out.write(data)
        done += len(data)
        sector += count
        told(done)
    return sha.hexdigest()


def places(iso: Iso) -> Iterator[tuple[bytes, int, int]]:
    """Path, first sector and bytes of every file of the disc, folder by folder.

    As `Iso.walk` gives them, several times as quick: of each record only the name is looked at.
    Raises ForeignDisc.
    """
    pending = [(b"", *iso.root)]
    seen = set()
    while pending:
        prefix, sector, size = pending.pop()
        if sector in seen:
            raise ForeignDisc(f"the folder in sector {sector} contains itself")
        seen.add(sector)
        for name, flags, start, length in _records(iso, prefix, sector, size):
            path = prefix + name
            if flags & _DIRECTORY:
                pending.append((path + b"/", start, length))
            else:
                yield path, start, length


def _records(
    iso: Iso, prefix: bytes, sector: int, size: int
) -> Iterator[tuple[bytes, int, int, int]]:
    """(name, flags, first sector, bytes) of a folder's entries; extents are put together."""
    extent = struct.Struct("<I4xI").unpack_from
    whole: tuple[int, int] | None = None
    left = -(-size // SECTOR)
    while left > 0:
        count = min(_PIECE, left)
        block = iso.read_sectors(sector, count)
        sector, left = sector + count, left - count
        at, end = 0, len(block)
        while at < end:
            length = block[at]
            if length == 0:
                at += SECTOR - at % SECTOR
                continue
            record = block[at : at + length]
            if length < 34 or at % SECTOR + length > SECTOR or 33 + record[32] > length:
                raise ForeignDisc("a directory record is damaged")
            at += length
            start, stored = extent(record, 2)
            flags = record[25]
            if whole is not None:
                if start != whole[0] + -(-whole[1] // SECTOR):
                    raise ForeignDisc(f"extents of a file in {prefix!r} are not in one piece")
                start, stored = whole[0], whole[1] + stored
            whole = (start, stored) if flags & _MULTI_EXTENT else None
            if whole is None and record[32:34] not in (b"\x01\x00", b"\x01\x01"):
                name = _name(record)
                if name is None:
                    name = iso.entry(prefix, record).path[len(prefix) :]
                yield name, flags, start, stored


def _name(record: bytes) -> bytes | None:
    """The Rock Ridge name if it is in one piece in the record itself; None: look closer."""
    plain = record[32]
    at, end = 33 + plain + 1 - plain % 2, len(record)
    while at + 4 <= end:
        size = record[at + 2]
        if size < 4:
            return None
        sign = record[at : at + 2]
        if sign == b"NM":
            return None if record[at + 4] else record[at + 5 : at + size]
        if sign == b"CE":
            return None
        at += size
    return None
