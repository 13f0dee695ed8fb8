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
from ..catalog.queues import RecallClass
from ..errors import HsmError, PosixError, RecallCancelled
from ..types import InodeNo, Range, Requester
from . import processes
from .guard.rules import Rule
from .guard.windows import key_of
from .live import Live

log = logs.get(__name__)

POLL_SECONDS = 1.0
Left = Callable[[Requester, InodeNo], bool]
"""Whether nobody waits any more for what the requester asked of the inode; blocking."""


@dataclass(eq=False, slots=True)
class Waiter:
    """One blocked read. since_ns is UTC ns."""

    ino: InodeNo
    range: Range
    who: Requester
    live: Live
    since_ns: int
    slow: bool = False
    """It reads in the slow lane."""
    error: HsmError | None = field(default=None)

    @property
    def urgency(self) -> RecallClass:
        """What its recall is worth."""
        return RecallClass.BULK if self.slow else RecallClass.INTERACTIVE

    def fail(self, error: HsmError) -> None:
        """End the wait with an error."""
        self.error = error
        self.live.wake()


@dataclass(frozen=True, slots=True)
class WaiterView:
    """A waiter as admins see it.

    Attributes:
        state: of its recall: reading, mounting, queued, slow lane, on the shelf, waiting for
            room; '' if unknown.
        discs_ahead: that go into a drive before its disc.
        expected_s: seconds until its bytes come; None if nobody can tell.
    """

    ino: InodeNo
    start: int
    end: int
    pid: int
    uid: int
    process: str
    via: str
    client: str
    since_ns: int
    slow: bool
    volume: str | None
    state: str
    discs_ahead: int
    drive: str | None
    expected_s: float | None


class Waiters:
    """All waiters."""

    def __init__(self, left: Left | None = None) -> None:
        self._left = left or processes.left
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

    def slow_down(self, who: Requester, rule: Rule) -> set[InodeNo]:
        """All waits of a requester that the rule is about are slow; for which files."""
        key = key_of(who)
        inos = set()
        for waiter in self._all:
            if not waiter.slow and key_of(waiter.who) == key and rule.about(waiter.who):
                waiter.slow = True
                inos.add(waiter.ino)
        return inos

    async def watch(self) -> None:
        """End the waits of processes that were killed; for ever."""
        while True:
            await self._some.wait()
            await trio.sleep(POLL_SECONDS)
            if not self._all:
                self._some = trio.Event()
                continue
            asked = {(w.who, w.ino) for w in self._all if w.error is None}
            over = await clock.blocking(lambda asked=asked: {a for a in asked if self._left(*a)})  # type: ignore[misc]
            for waiter in [w for w in self._all if (w.who, w.ino) in over and w.error is None]:
                log.info("reader gone", pid=waiter.who.pid, ino=waiter.ino)
                waiter.fail(RecallCancelled(f"process {waiter.who.pid} was killed"))


def again(error: HsmError) -> HsmError:
    """The same error for one more reader: an exception object belongs to one task."""
    if isinstance(error, PosixError):
        return PosixError(error.number, error.message)
    return type(error)(error.message, next_step=error.next_step)
