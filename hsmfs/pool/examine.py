"""Looks at pool files for fsck, and sets aside what nobody knows. Blocking: called in threads."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import crash
from ..types import InodeNo, Range
from .fallocate import punch_hole
from .store import BLOCK, Pool

LOST_FOUND = "lost+found"


@dataclass(frozen=True, slots=True)
class Seen:
    """A pool file: bytes by its size, and whether blocks are in use where none should be."""

    size: int
    leaked: bool


def look(pool: Pool, ino: InodeNo, absent: Sequence[Range]) -> Seen | None:
    """The file of an inode whose ranges in absent should be holes, or None if there is none."""
    try:
        fd = os.open(pool.path_of(ino), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        size = os.fstat(fd).st_size
        return Seen(size, any(_data_in(fd, r, size) for r in absent))
    finally:
        os.close(fd)


def _data_in(fd: int, r: Range, size: int) -> bool:
    """True if a whole block of the range is allocated."""
    start, end = -(-r.start // BLOCK) * BLOCK, min(r.end, size) // BLOCK * BLOCK
    if start >= end:
        return False
    try:
        return os.lseek(fd, start, os.SEEK_DATA) < end
    except OSError as fault:
        if fault.errno == errno.ENXIO:  # only a hole up to the end
            return False
        raise


def punch(pool: Pool, ino: InodeNo, absent: Sequence[Range]) -> int:
    """Give the blocks of absent ranges back; return the 512-byte units left on disk."""
    fd = pool.open(ino, create=False)
    try:
        for r in absent:
            punch_hole(fd, r.start, r.end)
        return os.fstat(fd).st_blocks
    finally:
        os.close(fd)


def resize(pool: Pool, ino: InodeNo, size: int) -> None:
    """Make the pool file size bytes long: cut off what nobody was told of, or add zeros."""
    fd = pool.open(ino, create=False)
    try:
        os.ftruncate(fd, size)
        os.fsync(fd)
    finally:
        os.close(fd)


def set_aside(pool: Pool, path: Path) -> Path:
    """Move a file into the pool's lost+found under a name that tells where it was; the new path.

    Nothing there is ever replaced or deleted.
    """
    folder = pool.path / LOST_FOUND
    folder.mkdir(mode=0o700, exist_ok=True)
    base = os.fsencode(os.path.relpath(path, pool.path)).replace(b"/", b".")[:200]
    for number in range(1_000_000):
        target = folder / os.fsdecode(base + (b".%d" % number if number else b""))
        try:
            os.link(path, target, follow_symlinks=False)
        except FileExistsError:
            continue
        crash.point("fsck.set_aside.linked")
        os.unlink(path)
        return target
    raise FileExistsError(errno.EEXIST, "lost+found is full", str(folder))
