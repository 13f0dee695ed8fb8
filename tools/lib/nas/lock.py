"""A process that tries a lock: python lock.py flock|posix|wait FILE; prints 'free' or 'held'."""

from __future__ import annotations

import fcntl
import sys
from pathlib import Path


def lock(kind: str, fd: int) -> None:
    """Take an exclusive lock; 'wait' is a POSIX lock that is waited for. Raises BlockingIOError."""
    if kind == "flock":
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        fcntl.lockf(fd, fcntl.LOCK_EX | (0 if kind == "wait" else fcntl.LOCK_NB))


if __name__ == "__main__":
    with Path(sys.argv[2]).open("r+b") as file:
        try:
            lock(sys.argv[1], file.fileno())
            print("free")
        except BlockingIOError:
            print("held")
