"""fallocate(2) with flags that Python does not offer; sync_file_range(2) and syncfs(2)."""

from __future__ import annotations

import ctypes
import os

_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02  # linux/falloc.h
_RANGE_WRITE = 0x02  # linux/fs.h
_libc = ctypes.CDLL(None, use_errno=True)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def punch_hole(fd: int, start: int, end: int) -> None:
    """Give the blocks of [start, end) bytes back; they read as zeros. Raises OSError."""
    if end <= start:
        return
    if _libc.fallocate(fd, _KEEP_SIZE | _PUNCH_HOLE, start, end - start):
        number = ctypes.get_errno()
        raise OSError(number, f"fallocate: {os.strerror(number)}")


def begin_writing(fd: int, offset: int, length: int) -> None:
    """Have the disk begin with what was written there: a sync that comes later waits less.

    It makes nothing durable. Raises OSError.
    """
    if _libc.sync_file_range(fd, offset, length, _RANGE_WRITE):
        number = ctypes.get_errno()
        raise OSError(number, f"sync_file_range: {os.strerror(number)}")


def syncfs(fd: int) -> None:
    """Make everything on the filesystem of fd durable. Raises OSError."""
    if _libc.syncfs(fd):
        number = ctypes.get_errno()
        raise OSError(number, f"syncfs: {os.strerror(number)}")
