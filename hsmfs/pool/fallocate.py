"""fallocate(2) with the flags that Python does not offer, and syncfs(2), which it lacks."""

from __future__ import annotations

import ctypes
import os

_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02  # linux/falloc.h
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def punch_hole(fd: int, start: int, end: int) -> None:
    """Give the blocks of [start, end) bytes back; they read as zeros. Raises OSError."""
    if end <= start:
        return
    if _libc.fallocate(fd, _KEEP_SIZE | _PUNCH_HOLE, start, end - start):
        number = ctypes.get_errno()
        raise OSError(number, f"fallocate: {os.strerror(number)}")


def syncfs(fd: int) -> None:
    """Make everything on the filesystem of fd durable. Raises OSError."""
    if _libc.syncfs(fd):
        number = ctypes.get_errno()
        raise OSError(number, f"syncfs: {os.strerror(number)}")
