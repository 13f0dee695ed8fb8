"""Copies of pool files: by sharing their blocks where the filesystem can, else byte by byte.

Blocking, so called in threads.
"""

from __future__ import annotations

import errno
import fcntl
import os

from ..limits import COPY_BUFFER_BYTES
from ..types import InodeNo
from .store import Pool

_FICLONE = 0x40049409  # linux/fs.h
_CANNOT = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.EPERM)
"""ioctl_ficlone(2): this filesystem cannot, or these two files are on different ones."""


def duplicate(
    source: int, pool: Pool, ino: InodeNo, size: int | None = None, *, at_most: int | None = None
) -> int:
    """Make the first size bytes of a file those of ino in a pool, holes too; None: all of them.

    Durable when this returns the 512-byte units of the copy. at_most: bytes that may be copied if
    the blocks cannot be shared. Raises OSError, EFBIG if they are more; what was begun stays.
    """
    found = os.fstat(source)
    size = found.st_size if size is None else min(size, found.st_size)
    fd = pool.open(ino)
    try:
        os.ftruncate(fd, 0)
        if not _cloned(source, fd):
            if at_most is not None and size > at_most:
                raise OSError(errno.EFBIG, f"more than {at_most} bytes would have to be copied")
            _copy(source, fd, size)
        os.ftruncate(fd, size)
        os.utime(fd, ns=(found.st_atime_ns, found.st_mtime_ns))
        os.fsync(fd)
        pool.fsync_folder(ino)
        return os.fstat(fd).st_blocks
    finally:
        os.close(fd)


def _cloned(source: int, fd: int) -> bool:
    try:
        fcntl.ioctl(fd, _FICLONE, source)
        return True
    except OSError as fault:
        if fault.errno in _CANNOT:
            return False
        raise


def _copy(source: int, fd: int, size: int) -> None:
    at = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError as fault:
            if fault.errno == errno.ENXIO:  # only a hole up to the end
                break
            raise
        end = min(os.lseek(source, at, os.SEEK_HOLE), size)
        while at < end:
            data = os.pread(source, min(COPY_BUFFER_BYTES, end - at), at)
            if not data:
                raise OSError(errno.EIO, "the file became shorter")
            at += os.pwrite(fd, data, at)
