"""How requests are fetched from the kernel: without a turn of the event loop for each.

pyfuse3 fetches a request by taking a `trio.Lock` and calling `trio.lowlevel.wait_readable`, which
costs several turns of the loop and more time than most handlers. It takes its `trio` from a module
global that may be replaced (pyfuse3.asyncio does so), and `install` puts one there that differs in
these two calls only: the lock is handed on only if its holder stops, and a request that is there,
or comes within SPIN_SECONDS, is fetched at once. It is looked for without sleeping: to be woken
costs more than most handlers do. If none came, and nobody else wants the loop, it sleeps for a
moment in one system call, where a turn of the loop takes half a dozen; whatever trio waits for
wakes it, too. docs/adr/0008-fetching-requests.md has the figures.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Awaitable, Generator
from types import TracebackType
from typing import Any

import pyfuse3
import trio
from trio.lowlevel import Abort, Task

from ..poll import Poll

SPIN_SECONDS = 50e-6 if len(os.sched_getaffinity(0)) > 1 else 0.0
"""How long to wait for the next request of a client that just got an answer. With one processor the
client cannot send it before we sleep."""
REST_SECONDS = 1e-3
"""How long to sleep without a turn of the loop, whose timers are late by as much."""
TURN_SECONDS = 2e-3
"""The longest that requests are served without letting other tasks run that can."""
ALONE_SECONDS = 10e-3
"""The same if none can: timers want their turn."""
CLOCK_EVERY = 4
"""Requests for which the clock is looked at once: on some machines it costs a system call."""


class _Done:
    """Awaited, it costs no coroutine."""

    def __await__(self) -> Generator[Any, Any, None]:
        return iter(())  # type: ignore[return-value]  # all that `await` wants is an iterator


_DONE = _Done()


class Turn:
    """A lock that costs nothing while one task takes and gives it without a pause.

    Attributes:
        called: a waiting task can run, and will have the lock if its holder stops.
    """

    def __init__(self) -> None:
        self._held = False
        self.called = False
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
            self.called = False
        self._held = True

    def __aexit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> Awaitable[None]:
        self._held = False
        if self._parked and not self.called:
            # It runs when this task stops; if that one fetches again before, it parks again.
            self.called = True
            trio.lowlevel.reschedule(self._parked.popleft())
        return _DONE


class Runnable(trio.abc.Instrument):
    """Counts the tasks that can run and wait for their turn.

    Attributes:
        count: exact from the first time on that the loop had nothing to do.
    """

    def __init__(self) -> None:
        self.count = 0

    def task_scheduled(self, task: Task) -> None:
        self.count += 1

    def before_task_step(self, task: Task) -> None:
        if self.count:
            self.count -= 1

    def before_io_wait(self, timeout: float) -> None:
        if timeout:
            self.count = 0


class LowLevel:
    """`trio.lowlevel` with another `wait_readable`."""

    def __init__(self, fd: int, turn: Turn) -> None:
        self._turn = turn
        self._runnable = Runnable()
        self._fuse, self._both = Poll(fd), Poll(fd)
        self._loop: Poll | None = None
        self._turn_began = 0.0
        self._unclocked = 0
        self._busy = False

    def __getattr__(self, name: str) -> Any:
        return getattr(trio.lowlevel, name)

    def wait_readable(self, fd: int) -> Awaitable[None]:
        """Await it: a request is there."""
        if SPIN_SECONDS or not self._may_rest():
            self._busy = self._fuse.look() or (self._busy and self._comes())
        else:  # the client cannot have sent one yet, and to rest looks as well
            self._busy = False
        if not (self._busy or self._rests()):
            return self._sleep(fd)
        return self._let_others() if self._others_are_due() else _DONE

    def _comes(self) -> bool:
        """True if a request comes soon."""
        until = time.perf_counter() + SPIN_SECONDS
        while not self._fuse.look():
            if time.perf_counter() >= until:
                return False
        return True

    def _rests(self) -> bool:
        """Sleep for a moment if nobody else wants the loop; true if a request ended that."""
        if not self._may_rest():
            return False
        since = time.perf_counter() if SPIN_SECONDS else 0.0
        came = self._both.wait(REST_SECONDS) and self._both.ready(0)
        if came and SPIN_SECONDS:
            # A client that comes back this soon will do so again.
            self._busy = time.perf_counter() - since < 2 * SPIN_SECONDS
        return came

    def _may_rest(self) -> bool:
        """Whether nobody else can run, and all that trio waits for is known."""
        return self._loop is not None and self._runnable.count <= self._turn.called

    def _others(self) -> bool:
        """Whether other tasks want the loop, but for the one that would fetch in our place."""
        return self._runnable.count > self._turn.called or (
            self._loop is not None and self._loop.look()
        )

    def _others_are_due(self) -> bool:
        if self._unclocked:
            self._unclocked -= 1
            return False
        self._unclocked = CLOCK_EVERY - 1
        taken = time.perf_counter() - self._turn_began
        return taken > ALONE_SECONDS or (taken > TURN_SECONDS and self._others())

    async def _let_others(self) -> None:
        await trio.lowlevel.checkpoint()
        self._begin_turn()

    async def _sleep(self, fd: int) -> None:
        if self._loop is None:
            self._join(fd)
        since = time.perf_counter() if SPIN_SECONDS else 0.0
        await trio.lowlevel.wait_readable(fd)
        self._begin_turn()
        self._busy = self._turn_began - since < 2 * SPIN_SECONDS

    def _begin_turn(self) -> None:
        self._turn_began, self._unclocked = time.perf_counter(), CLOCK_EVERY

    def _join(self, fd: int) -> None:
        """Learn of the loop that this runs in what it waits for, and who can run."""
        loop = _epoll()
        if loop >= 0:
            self._loop, self._both = Poll(loop), Poll(fd, loop)
        trio.lowlevel.add_instrument(self._runnable)


def _epoll() -> int:
    """The descriptor by which trio waits for all others; -1 if this trio has none to be found."""
    runner = getattr(trio._core._run.GLOBAL_RUN_CONTEXT, "runner", None)
    epoll = getattr(getattr(runner, "io_manager", None), "_epoll", None)
    return -1 if epoll is None else int(epoll.fileno())


class Trio:
    """`trio` with another Lock and another `wait_readable`, for pyfuse3 alone."""

    def __init__(self, fd: int) -> None:
        self._turn = Turn()
        self.lowlevel = LowLevel(fd, self._turn)

    def __getattr__(self, name: str) -> Any:
        return getattr(trio, name)

    def Lock(self) -> Turn:
        """pyfuse3 asks for one."""
        return self._turn


def install(fd: int) -> None:
    """Make pyfuse3 fetch requests this way from descriptor fd; called before its main loop."""
    setattr(pyfuse3, "trio", Trio(fd))  # noqa: B010 - not part of its typed interface
