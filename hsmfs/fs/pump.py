"""How requests are fetched from the kernel: without a turn of the event loop for each.

pyfuse3 fetches a request by taking a `trio.Lock` and calling `trio.lowlevel.wait_readable`, which
costs several turns of the loop and more time than most handlers. It takes its `trio` from a module
global that may be replaced (pyfuse3.asyncio does so), and `install` puts one there that differs in
these two calls only: the lock is handed on only if its holder stops, and a request that is there,
or comes within SPIN_SECONDS, is fetched at once. It is looked for without sleeping: to be woken
costs more than most handlers do. Every TURN_SECONDS, and a few requests, the loop has its turn in
any case. docs/adr/0008-fetching-requests.md has the figures.
"""

from __future__ import annotations

import ctypes
import os
import select
import time
from collections import deque
from collections.abc import Awaitable, Generator
from types import TracebackType
from typing import Any

import pyfuse3
import trio
from trio.lowlevel import Abort, Task

SPIN_SECONDS = 50e-6 if len(os.sched_getaffinity(0)) > 1 else 0.0
"""How long to wait for the next request of a client that just got an answer. With one processor the
client cannot send it before we sleep."""
TURN_SECONDS = 2e-3
"""The longest that requests are served without letting other tasks run."""
CLOCK_EVERY = 4
"""Requests for which the clock is looked at once: on some machines it costs a system call."""


class _PollFd(ctypes.Structure):
    """poll(2)"""

    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


_poll = ctypes.PyDLL(None).poll
"""poll(2) that keeps Python's lock, as it is not told to wait. select's lets it go, and looks at
the clock."""
_poll.argtypes = (ctypes.POINTER(_PollFd), ctypes.c_ulong, ctypes.c_int)


class _Done:
    """Awaited, it costs no coroutine."""

    def __await__(self) -> Generator[Any, Any, None]:
        yield from ()


_DONE = _Done()


class Turn:
    """A lock that costs nothing while one task takes and gives it without a pause."""

    def __init__(self) -> None:
        self._held = False
        self._called = False
        self._parked: deque[Task] = deque()

    def __aenter__(self) -> Awaitable[None]:
        if self._held:
            return self._wait()
        self._held = True
        return _DONE

    async def _wait(self) -> None:
        while self._held:
            task = trio.lowlevel.current_task()
            self._parked.append(task)

            def abort(_: Any, task: Task = task) -> Abort:
                self._parked.remove(task)
                return Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)
            self._called = False
        self._held = True

    def __aexit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> Awaitable[None]:
        self._held = False
        if self._parked and not self._called:
            # It runs when this task stops; if that one fetches again before, it parks again.
            self._called = True
            trio.lowlevel.reschedule(self._parked.popleft())
        return _DONE


class LowLevel:
    """`trio.lowlevel` with another `wait_readable`."""

    def __init__(self, fd: int) -> None:
        self._turn_ends = 0.0
        self._unclocked = 0
        self._busy = False
        self._asked = ctypes.pointer(_PollFd(fd, select.POLLIN, 0))
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        self._look = poll.poll

    def __getattr__(self, name: str) -> Any:
        return getattr(trio.lowlevel, name)

    def wait_readable(self, fd: int) -> Awaitable[None]:
        """Await it: a request is there."""
        if self._unclocked:
            self._unclocked -= 1
        elif time.perf_counter() < self._turn_ends:
            self._unclocked = CLOCK_EVERY - 1
        else:
            return self._sleep(fd)
        self._busy = _poll(self._asked, 1, 0) > 0 or (self._busy and self._comes())
        return _DONE if self._busy else self._sleep(fd)

    async def _sleep(self, fd: int) -> None:
        since = time.perf_counter() if SPIN_SECONDS else 0.0
        await trio.lowlevel.wait_readable(fd)
        woken = time.perf_counter()
        # A client that comes back this soon will do so again.
        self._busy = woken - since < 2 * SPIN_SECONDS
        self._turn_ends, self._unclocked = woken + TURN_SECONDS, CLOCK_EVERY

    def _comes(self) -> bool:
        """True if the descriptor is readable soon."""
        look, until = self._look, time.perf_counter() + SPIN_SECONDS
        while not look(0):
            if time.perf_counter() >= until:
                return False
        return True


class Trio:
    """`trio` with another Lock and another `wait_readable`, for pyfuse3 alone."""

    def __init__(self, fd: int) -> None:
        self.lowlevel = LowLevel(fd)

    def __getattr__(self, name: str) -> Any:
        return getattr(trio, name)

    Lock = Turn


def install(fd: int) -> None:
    """Make pyfuse3 fetch requests this way from descriptor fd; called before its main loop."""
    setattr(pyfuse3, "trio", Trio(fd))  # noqa: B010 - not part of its typed interface
