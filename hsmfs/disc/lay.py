"""Puts the bytes of larger files into an image that xorriso made without them.

libisofs passes every 2 KiB block through a queue between two threads, at half the processor time
of a whole migration. So it gets one sector of each larger file, to make the name, its record and
its Rock Ridge fields by; then the bytes are copied behind the filesystem in large pieces, and the
records point there. Bytes and places only: what is in the image is checked by who built it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from hsmfs.disc.iso9660 import Entry, Iso
from hsmfs.disc.layout import Key, Kind, Placed, StagedFile
from hsmfs.types import SECTOR

LEAST = 256 * 1024
"""Smaller files go through xorriso, as the sector that it got stays unused."""
STUB = SECTOR
"""Bytes that xorriso gets of a file: a whole sector, as it fills one from less byte by byte."""
MOST = 0xFFFFF800
"""Bytes of one extent; a longer file has several records, which xorriso makes (ECMA-119 9.1)."""
PIECE = 8 * 1024 * 1024
"""Bytes of a copy, between two reports of progress."""
_PVD = 16 * SECTOR
_SPACE = 80
"""Volume space size in the primary volume descriptor (ECMA-119 section 8.4.8)."""
_EXTENT = 2
"""Location and length of the extent in a directory record (ECMA-119 sections 9.1.3 and 9.1.4)."""
_ZEROS = bytes(SECTOR)


def laid(file: StagedFile, names: Collection[bytes]) -> bool:
    """Whether its bytes are put behind the filesystem; names are those that it has there."""
    return file.kind is Kind.FILE and len(names) == 1 and LEAST <= file.stored <= MOST


CHANGED = ""
"""Why the bytes of a source that vanished or has another size are not in the image."""


class _Unreadable(Exception):
    """A source does not read; it says why."""


def lay(dest: Path, items: Collection[Placed], progress: Callable[[int], None]) -> dict[Key, str]:
    """Add the bytes of the items to the image; blocking, does not sync.

    progress is called with the bytes copied so far. Returns which could not be had, and why:
    CHANGED, or what the system says. Raises OSError of the image, ForeignDisc if it is damaged.
    """
    image = os.open(dest, os.O_RDWR | os.O_CLOEXEC)
    try:
        size = os.fstat(image).st_size
        iso = Iso(lambda at, n: os.pread(image, n * SECTOR, at * SECTOR), size // SECTOR)
        entries = {entry.path: entry for entry in iso.walk()}
        without: dict[Key, str] = {}
        sector, done, told = iso.sectors, 0, 0
        for item in sorted(items, key=_in_tree):
            assert item.data is not None
            entry = entries.get(item.data)
            copied, why = 0, CHANGED
            if entry is not None:
                try:
                    for copied in _copy(image, sector * SECTOR, item.file):
                        if done + copied - told >= PIECE:
                            told = done + copied
                            progress(told)
                except _Unreadable as fault:
                    copied, why = 0, str(fault)
            if entry is None or copied != item.file.stored:
                without[item.file.key] = why
                continue
            _point(image, entry, sector, copied)
            sector += -(-copied // SECTOR)
            done += copied
        os.pwrite(image, _both(sector), _PVD + _SPACE)
        os.truncate(image, sector * SECTOR)
        return without
    finally:
        os.close(image)


def _in_tree(item: Placed) -> list[bytes]:
    assert item.data is not None
    return item.data.split(b"/")


def _copy(image: int, at: int, file: StagedFile) -> Iterator[int]:
    """Copy a file's stored bytes to that place of the image, zeros up to the next sector.

    Yields how many are copied; the last number, if any, is not `stored` if the source changed.
    Raises _Unreadable, and OSError of the image.
    """
    assert file.source is not None
    done = 0
    try:
        source = os.open(file.source, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as fault:
        raise _Unreadable(str(fault)) from fault
    try:
        cut = file.parts > 1 and not file.compressed
        if not cut and os.fstat(source).st_size != file.stored:
            return
        os.lseek(image, at, os.SEEK_SET)
        while done < file.stored:
            got = _send(image, source, file.source_offset + done, min(PIECE, file.stored - done))
            if not got:
                break
            done += got
            yield done
    finally:
        os.close(source)
    _write(image, memoryview(_ZEROS)[: -done % SECTOR], at + done)


def _send(image: int, source: int, offset: int, size: int) -> int:
    """Copy to the image's position, inside the kernel where the source's filesystem lets it."""
    try:
        return os.sendfile(image, source, offset, size)
    except OSError:  # not between these filesystems, or one of the two failed: this tells which
        data = _pread(source, size, offset)
    return os.write(image, data)


def _pread(source: int, size: int, offset: int) -> bytes:
    try:
        return os.pread(source, size, offset)
    except OSError as fault:
        raise _Unreadable(str(fault)) from fault


def _write(image: int, view: memoryview, at: int) -> None:
    while view:
        done = os.pwrite(image, view, at)
        view, at = view[done:], at + done


def _point(image: int, entry: Entry, sector: int, size: int) -> None:
    os.pwrite(image, _both(sector) + _both(size), entry.record + _EXTENT)


def _both(number: int) -> bytes:
    """A number of 32 bits in both orders of bytes (ECMA-119 section 7.3.3)."""
    return struct.pack("<I", number) + struct.pack(">I", number)
