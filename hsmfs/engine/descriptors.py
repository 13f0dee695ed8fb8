"""Descriptors of pool files: opened to fit the catalog's row, and given back."""

from __future__ import annotations

import contextlib
import os

from ..errors import HsmError
from ..pool.store import Pool
from ..states import FileState
from ..types import Attr


def fitted(pool: Pool, attr: Attr) -> int:
    """The pool file's descriptor. A clean inode's row is the truth: the file is made to fit it.

    Raises HsmError if bytes are missing that discs have: they must not read as zeros.
    """
    fd = pool.open(attr.ino)
    if attr.dirty:
        return fd
    size = os.fstat(fd).st_size
    if size != attr.size:
        if size < attr.size and attr.state == FileState.PREMIGRATED:
            os.close(fd)
            raise HsmError(
                f"pool {pool.name} has {size} of the {attr.size} bytes of inode {attr.ino}",
                next_step="'hsmctl fsck --repair' takes it from its discs",
            )
        os.ftruncate(fd, attr.size)
    return fd


def give_back(fd: int) -> None:
    with contextlib.suppress(OSError):  # what was to be durable was synced
        os.close(fd)
