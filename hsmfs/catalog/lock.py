"""The lock on a state folder: one process at a time uses the catalog that is in it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import CatalogInUse


def lock(state: Path) -> int:
    """The lock that keeps a second daemon off; held as long as the descriptor is open."""
    fd = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise CatalogInUse(f"catalog in {state} is in use by process {holder}") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Keep daemons and others off the folder. Raises CatalogInUse."""
    fd = lock(state)
    try:
        yield
    finally:
        os.close(fd)
