"""Readers that wait for a disc: who they are, and whether they still live.

FUSE never tells that a reader was killed while its request is being served, so /proc is asked once
a second, by one task for all.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import trio

from .. import clock, logs
from ..errors import HsmError, PosixError, RecallCancelled
from ..types import InodeNo, Range, Requester
from .live import Live

log = logs.get(__name__)

POLL_SECONDS = 1.0
_SIGKILL_BIT = 1 << 8


@dataclass(eq=False, slots=True)
class Waiter:
    """One blocked read. since_ns is UTC ns."""

    ino: InodeNo
    range: Range
    who: Requester
    live: Live
    since_ns: int
    error: HsmError | None = field(default=None)

    def fail(self, error: HsmError) -> None:
        """End the wait with an error."""
        self.error = error
        self.live.wake()


@dataclass(frozen=True, slots=True)
class WaiterView:
    """A waiter as admins see it; expected_s is None if nobody can tell."""

    ino: InodeNo
    start: int
    end: int
    pid: int
    uid: int
    process: str
    since_ns: int
    volume: str | None
    expected_s: float | None


class Waiters:
    """All waiters. `gone` tells whether a process is dead or about to be."""

    def __init__(self, gone: Callable[[int], bool] | None = None) -> None:
        self._gone = gone or process_gone
        self._all: set[Waiter] = set()
        self._some = trio.Event()

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Waiter]:
        return iter(sorted(self._all, key=lambda w: w.since_ns))

    def add(self, waiter: Waiter) -> None:
        """A read blocks."""
        self._all.add(waiter)
        self._some.set()

    def remove(self, waiter: Waiter) -> None:
        """It does not block any more."""
        self._all.discard(waiter)

    def fail(self, which: Callable[[Waiter], bool], number: int = errno.EIO) -> int:
        """End waits with an errno, as an admin asks; how many there were."""
        found = [w for w in self._all if w.error is None and which(w)]
        for waiter in found:
            waiter.fail(PosixError(number, "the wait was ended by an admin"))
        return len(found)

    async def watch(self) -> None:
        """End the waits of processes that were killed; for ever."""
        while True:
            await self._some.wait()
            await trio.sleep(POLL_SECONDS)
            if not self._all:
                self._some = trio.Event()
                continue
            pids = {w.who.pid for w in self._all if w.who.pid and not w.who.nfs}
            dead = await clock.blocking(lambda pids=pids: {p for p in pids if self._gone(p)})  # type: ignore[misc]
            for waiter in [w for w in self._all if w.who.pid in dead and w.error is None]:
                log.info("reader gone", pid=waiter.who.pid, ino=waiter.ino)
                waiter.fail(RecallCancelled(f"process {waiter.who.pid} was killed"))


def process_gone(pid: int) -> bool:
    """Whether a process is dead, or has a SIGKILL pending (proc_pid_status(5)); blocking."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key == "State" and value.strip()[:1] in ("Z", "X"):
                    return True
                if key in ("SigPnd", "ShdPnd") and int(value, 16) & _SIGKILL_BIT:
                    return True
    except (FileNotFoundError, ProcessLookupError):
        return True
    return False


def again(error: HsmError) -> HsmError:
    """The same error for one more reader: an exception object belongs to one task."""
    if isinstance(error, PosixError):
        return PosixError(error.number, error.message)
    return type(error)(error.message, next_step=error.next_step)
