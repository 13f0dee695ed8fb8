"""Bytes between a medium's image and one buffer, past the page cache where the filesystem can.

So what is read is what the disk holds and not what a burn left in memory, without which reading
back would prove nothing; and discs do not push files that people use out of the page cache.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os

ALIGN = 4096
"""Places, lengths and memory of direct I/O are multiples of this many bytes."""


def prefer_direct(fd: int) -> int:
    """Have the descriptor read and write past the page cache if it can; returns it."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return fd


class Buffer:
    """Memory that is used again and again, as fresh pages cost more than the copy.

    For one thread at a time. Descriptors are as `prefer_direct` left them.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, ALIGN)

    def _view(self, size: int) -> memoryview:
        if len(self._memory) < size:
            self._memory = mmap.mmap(-1, -(-size // ALIGN) * ALIGN)
        return memoryview(self._memory)[:size]

    def read(self, fd: int, offset: int, length: int) -> bytes:
        """Bytes at offset, fewer only if the file ends. Raises OSError."""
        start = offset // ALIGN * ALIGN
        end = -(-(offset + length) // ALIGN) * ALIGN
        with self._view(end - start) as view:
            got = _fill(fd, view, start)
            return bytes(view[offset - start : min(got, offset + length - start)])

    def copy(self, source: int, target: int, offset: int, length: int) -> int:
        """Copy bytes at offset to the same place; fewer only if the source ends. Raises OSError.

        The offset is a multiple of ALIGN. After a length that is not, target is buffered.
        """
        with self._view(length) as view:
            got = _fill(source, view, offset)
            whole = got // ALIGN * ALIGN
            _write(target, view[:whole], offset)
            if whole < got:
                flags = fcntl.fcntl(target, fcntl.F_GETFL)
                fcntl.fcntl(target, fcntl.F_SETFL, flags & ~os.O_DIRECT)
                _write(target, view[whole:got], offset + whole)
            return got


def _fill(fd: int, view: memoryview, offset: int) -> int:
    """Read until the view is full or the file ends; how many bytes."""
    got = 0
    while got < len(view) and (more := os.preadv(fd, [view[got:]], offset + got)):
        got += more
        if more % ALIGN:
            break  # only the end of a file is no multiple
    return got


def _write(fd: int, view: memoryview, offset: int) -> None:
    done = 0
    while done < len(view):
        done += os.pwrite(fd, view[done:], offset + done)
