"""A process that tries locks: python lock.py FILE...

It says "ready", reads lines "flock NUMBER", "posix NUMBER" or "wait NUMBER", NUMBER being that of a
file from 0, and answers each with a line: "free" or "held", and when that was known
(CLOCK_MONOTONIC, seconds). No lock is kept. `Locker` is the other end.
"""

from __future__ import annotations

import fcntl
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self


def lock(kind: str, fd: int) -> None:
    """Take an exclusive lock; 'wait' is a POSIX lock that is waited for. Raises BlockingIOError."""
    if kind == "flock":
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        fcntl.lockf(fd, fcntl.LOCK_EX | (0 if kind == "wait" else fcntl.LOCK_NB))


def attempt(kind: str, path: Path) -> str:
    """What somebody finds who opens the file and wants the lock."""
    with path.open("r+b") as file:
        try:
            lock(kind, file.fileno())
        except (BlockingIOError, PermissionError):  # fcntl(2) allows both; SMB's client says EACCES
            return "held"
        return "free"


class Locker:
    """Such a process, as a context manager: its start takes longer than many attempts."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, *map(str, files)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._in, self._out = _there(self._process.stdin), _there(self._process.stdout)

    def __enter__(self) -> Self:
        self._out.readline()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._process.kill()
        self._process.communicate()

    def ask(self, kind: str, number: int) -> None:
        """Have it try; `answer` says what came of it."""
        self._in.write(f"{kind} {number}\n")
        self._in.flush()

    def answer(self, patience_s: float = 60.0) -> tuple[str, float]:
        """What it found, and when. Raises TimeoutError."""
        if not select.select([self._out], [], [], patience_s)[0]:
            raise TimeoutError(f"no answer about a lock in {patience_s:g} s")
        found, when = self._out.readline().split()
        return found, float(when)


def _there(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


if __name__ == "__main__":
    print("ready", flush=True)
    for line in sys.stdin:
        kind, number = line.split()
        print(attempt(kind, Path(sys.argv[1 + int(number)])), time.monotonic(), flush=True)
