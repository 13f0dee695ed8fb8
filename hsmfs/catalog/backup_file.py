"""A backup of the catalog as a single file, which `zstd -d` turns into an SQLite database.

    a zstd frame with its checksum     the database
    a skippable frame of 256 bytes     JSON: format, name, created_ns, size, sha256 of the database

The second frame ends the file: one that was cut off is known at a glance. Blocking.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import zstandard

from .. import crash, durable
from ..errors import CatalogDamaged, ConfigError

FORMAT = 1
_LEVEL = 3
_BLOCK = 1 << 20
_TAIL = 256
_HEAD = b"\x5e\x2a\x4d\x18" + (_TAIL - 8).to_bytes(4, "little")
"""Of a skippable frame: a magic number, and how many bytes follow (RFC 8878, 3.1.2)."""

Told = Callable[[int, int], None]
"""(bytes done, bytes in all); what it raises ends the work."""


@dataclass(frozen=True, slots=True)
class Whole:
    """What such a file says of itself; sizes bytes, times UTC ns."""

    name: str
    created_ns: int
    size: int
    sha256: str
    format: int = FORMAT


def write(plain: Path, dest: Path, *, name: str, now_ns: int, told: Told) -> tuple[Whole, int]:
    """Write a plain copy of the catalog to dest; what it says of itself, and its bytes.

    A backup that is there is replaced once the new one is durable. Raises ConfigError if something
    else is there, OSError.
    """
    dest = dest.resolve()
    _check(dest)
    part = dest.with_name(f"{dest.name}.part")
    try:
        with part.open("wb") as out:
            size, sha256 = _pack(plain, out, told)
            whole = Whole(name, now_ns, size, sha256)
            out.write(_HEAD + json.dumps(asdict(whole)).encode().ljust(_TAIL - len(_HEAD)))
            out.flush()
            os.fsync(out.fileno())
            stored = out.tell()
        crash.point("backup.file.written")
        part.rename(dest)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    durable.sync(dest.parent)
    return whole, stored


def _check(dest: Path) -> None:
    if not dest.exists():
        return
    step = "name a file that is not there yet, or an older backup of this kind"
    if not dest.is_file():
        raise ConfigError(f"{dest} is not a file", next_step=step)
    try:
        about(dest)
    except CatalogDamaged as fault:
        raise ConfigError(f"{fault.message}; it is left as it is", next_step=step) from fault


def _pack(plain: Path, out: BinaryIO, told: Told) -> tuple[int, str]:
    """Bytes of the database, and its SHA-256."""
    total, whole = plain.stat().st_size, hashlib.sha256()
    packer = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
    with (
        plain.open("rb") as source,
        packer.stream_writer(out, size=total, closefd=False) as packed,
    ):
        while data := source.read(_BLOCK):
            whole.update(data)
            packed.write(data)
            told(source.tell(), total)
    return total, whole.hexdigest()


def about(path: Path) -> Whole:
    """What a file says of itself. Raises CatalogDamaged if it is none, or not whole; OSError."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        tail = file.read(_TAIL)
    try:
        if not tail.startswith(_HEAD):
            raise ValueError("its end is missing")
        found = json.loads(tail[len(_HEAD) :])
        if found["format"] > FORMAT:
            raise ValueError("it was written by a newer hsmfs")
        return Whole(**found)
    except (ValueError, TypeError, KeyError) as fault:
        raise CatalogDamaged(
            f"{path} is no backup of a catalog, or not all of one: {fault}",
            next_step="restore another backup",
        ) from fault


def read(path: Path) -> Iterator[bytes]:
    """The database, in blocks; the last one passed only if all was as it was backed up.

    Raises CatalogDamaged, OSError.
    """
    expected, whole, size = about(path), hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            source = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=False)
            while data := source.read(_BLOCK):
                whole.update(data)
                size += len(data)
                yield data
    except zstandard.ZstdError as fault:
        raise CatalogDamaged(
            f"{path} does not unpack: {fault}", next_step="restore another backup"
        ) from fault
    if (size, whole.hexdigest()) != (expected.size, expected.sha256):
        raise CatalogDamaged(
            f"{path} is not what was backed up", next_step="restore another backup"
        )
