"""The ports to the world: wall time that a simulation can own, and the only way to a thread.

Engine code takes its time from here so that a test can run years in seconds: under trio's
MockClock `now_ns` moves with the clock. Blocking calls go through `blocking`, each device class
with a limiter of its own, so that forty stuck drive calls cannot take the threads of the rest.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

import trio

T = TypeVar("T")

DISK = trio.CapacityLimiter(16)
"""Threads for pool and catalog files."""
HASH = trio.CapacityLimiter(4)
"""Threads for what is soon done and a reader or a drive waits for: checksums of pieces."""
IMAGES = trio.CapacityLimiter(4)
"""Threads for what takes seconds to minutes: files staged, images, parity. They are few, and apart,
so that no drive and no reader waits for an image to be made."""
MEDIA = trio.CapacityLimiter(64)
"""Threads for drives and the robot: a stuck one keeps its thread, so there are many."""


class WallClock:
    """UTC nanoseconds that advance with trio's clock from a start that can be chosen."""

    def __init__(self) -> None:
        self._offset_ns: int | None = None

    def set(self, start_ns: int) -> None:
        """From now on `now_ns` is start_ns plus the trio time that passes."""
        self._offset_ns = start_ns - int(trio.current_time() * 1e9)

    def now_ns(self) -> int:
        """UTC nanoseconds now."""
        if self._offset_ns is None:
            return time.time_ns()
        return self._offset_ns + int(trio.current_time() * 1e9)


class BootClock:
    """Nanoseconds since the kernel started, sleep counted: CLOCK_BOOTTIME, which nobody can set.

    A simulation owns it from `simulate` on: it then moves with trio's clock, whatever the wall
    clock does, and begins anew with another identity at each `reboot`.
    """

    def __init__(self) -> None:
        self._start: float | None = None
        self._reboots = 0

    def simulate(self) -> None:
        """From now on it moves with trio's clock."""
        self._start = trio.current_time()

    def reboot(self) -> None:
        """The simulated machine starts again now."""
        self._start = trio.current_time()
        self._reboots += 1

    def now_ns(self) -> int:
        """Nanoseconds since the start; a time namespace cannot shift it (time_namespaces(7))."""
        if self._start is None:
            return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - _namespace_shift_ns()
        return int((trio.current_time() - self._start) * 1e9)

    def boot_id(self) -> str:
        """Which start of which kernel it is: random(4)."""
        if self._start is not None:
            return f"simulated-{self._reboots}"
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


@functools.cache
def _namespace_shift_ns() -> int:
    """What a time namespace adds to CLOCK_BOOTTIME; it cannot change while we run in it."""
    try:
        lines = Path("/proc/self/timens_offsets").read_text(encoding="ascii").splitlines()
    except FileNotFoundError:  # a kernel without time namespaces
        return 0
    for name, seconds, nanoseconds in (line.split() for line in lines):
        if name in ("boottime", "7"):
            return int(seconds) * 10**9 + int(nanoseconds)
    return 0


WALL = WallClock()
BOOT = BootClock()


def now_ns() -> int:
    """UTC nanoseconds now, by the process's wall clock."""
    return WALL.now_ns()


class Beside:
    """A thread of its own for small jobs that must begin before the caller's task pauses.

    `blocking` lets other tasks run before its thread has the job. The thread starts with the first
    job and does them one after the other.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._bells: list[int] = []

    def do(self, job: Callable[[], object]) -> None:
        """Give the thread a job, which must not raise."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._jobs.put(job)

    async def run(self, job: Callable[[], object]) -> None:
        """Have the thread do a job and wait for it, even if cancelled; raises what it raises.

        Whoever the job let go on runs after this task, which is told first.
        """
        # A bell wakes this task; run_sync_soon wakes one that wakes this one, a turn later.
        bell = self._bells.pop() if self._bells else os.eventfd(0, os.EFD_CLOEXEC)
        fault: list[BaseException] = []

        def done() -> None:
            try:
                job()
            except BaseException as found:
                fault.append(found)
            finally:
                os.eventfd_write(bell, 1)

        self.do(done)
        with trio.CancelScope(shield=True):
            await trio.lowlevel.wait_readable(bell)
        os.eventfd_read(bell)
        self._bells.append(bell)
        if fault:
            raise fault[0]

    def end(self) -> None:
        """No more jobs: wait for those given, and for the thread."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None
        while self._bells:
            os.close(self._bells.pop())

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


async def blocking(
    f: Callable[[], T], limiter: trio.CapacityLimiter = DISK, *, abandon: bool = False
) -> T:
    """Run f in a thread and return what it returns.

    A cancelled wait still waits for f to end unless abandon is set, which is right only for reads
    without side effects: a move or a burn is never abandoned.
    """
    return await trio.to_thread.run_sync(f, limiter=limiter, abandon_on_cancel=abandon)
