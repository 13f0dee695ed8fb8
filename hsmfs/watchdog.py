"""Watches the event loop: how long each step of a task keeps all others waiting.

A trio instrument. The daemon keeps its histogram for the metrics and logs each stall; tests fail
on one. It relies on nothing but trio and the kernel's accounts: the time that the thread stood
ready in the run queue because other programs had the processors is left out, and so is what the
host of a virtual machine took from a processor meanwhile, as no code of ours could make either
shorter. All else counts: computing, a blocking call, a page that comes from disk, and waiting for
Python's lock while other threads of ours hold it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import traceback
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

import trio

from hsmfs import limits, logs

BOUNDS = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
"""Upper bounds in seconds of the histogram's buckets; one more holds what is longer."""
STALLS_KEPT = 100
FRESH_SECONDS = 0.001
"""The account of the run queue is read anew before a step if it is older than this, so a step is
credited with at most this much that the steps just before it waited."""

_TICKS = os.sysconf("SC_CLK_TCK")
STOLEN_FRESH_SECONDS = 0.02
"""The same for what the host took."""
STAT_BYTES = 1 << 16
"""Of /proc/stat, whose first lines are the processors: more than 500 of them."""

log = logs.get(__name__)


@dataclass(frozen=True, slots=True)
class Stall:
    """A step that was longer than the threshold."""

    task: str
    seconds: float
    """Without the time in the run queue, and what the host took."""
    queued: float
    """Seconds in the run queue, and of the host."""
    stack: str
    """Where it was when the threshold passed; empty without a sampler."""

    def __str__(self) -> str:
        where = f"\n{self.stack}" if self.stack else ""
        return f"{self.task} held the loop for {self.seconds * 1000:.0f} ms{where}"


def log_stall(stall: Stall) -> None:
    """What the daemon does about one."""
    log.warning(
        "event loop stalled", task=stall.task, seconds=round(stall.seconds, 4),
        queued_s=round(stall.queued, 4), **({"stack": stall.stack} if stall.stack else {}),
    )  # fmt: skip


class LoopClock(trio.abc.Clock):
    """The clock of a loop that a LoopWatch looks at: what one of both has read the other does not
    read again. On some machines each look is a system call.

    Attributes:
        now: what was read last, by time.perf_counter.
    """

    def __init__(self) -> None:
        self.now = time.perf_counter()
        self._stepped = False

    def start_clock(self) -> None:
        """Nothing to do."""

    def current_time(self) -> float:
        self.now = now = time.perf_counter()
        return now

    def stepped(self) -> float:
        """A step ends: the time. If it was the last one, the loop asks how long to sleep now."""
        self._stepped = True
        return self.current_time()

    def deadline_to_sleep_time(self, deadline: float) -> float:
        now = self.now if self._stepped else self.current_time()
        self._stepped = False
        return deadline - now


class LoopWatch(trio.abc.Instrument):
    """Times every step; `trio.lowlevel.add_instrument(watch)` or `with watch:` inside the loop.

    on_stall is called on the loop after each step longer than threshold seconds. sample adds a
    thread that catches the stack of a step while it stalls. clock: the loop's, if it is such a one.

    Attributes:
        counts: steps by bucket of BOUNDS.
        total, worst: seconds of all steps, and of the longest.
        worst_wall: seconds of the longest with its time in the run queue and of the host.
        stall_count: steps longer than threshold.
        preempted: steps that only the run queue or the host made longer than threshold.
        stalls: the last ones.
    """

    def __init__(
        self,
        threshold: float = limits.LOOP_STALL_SECONDS,
        on_stall: Callable[[Stall], None] | None = None,
        *,
        sample: bool = False,
        clock: LoopClock | None = None,
    ) -> None:
        self.threshold = threshold
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0
        self.worst = self.worst_wall = 0.0
        self.stall_count = self.preempted = 0
        self.stalls: deque[Stall] = deque(maxlen=STALLS_KEPT)
        self._on_stall = on_stall
        self._clock = clock
        self._schedstat = -1
        self._started: float | None = None
        self._queued_ns = 0
        self._looked = self._stolen_looked = 0.0
        self._host = Host()
        self._stolen: list[int] = []
        self._sampler = _Sampler(self) if sample else None

    @property
    def steps(self) -> int:
        return sum(self.counts)

    @property
    def started(self) -> float | None:
        """When the step that runs now began, by time.perf_counter."""
        return self._started

    @property
    def caught(self) -> str:
        """The stack of the step that runs now, if the sampler has looked at it already."""
        return self._stack_of(self._started)

    def __enter__(self) -> LoopWatch:
        # Kernels without CONFIG_SCHED_INFO have no such file; then all time counts.
        with contextlib.suppress(FileNotFoundError):
            path = f"/proc/self/task/{threading.get_native_id()}/schedstat"
            self._schedstat = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        trio.lowlevel.add_instrument(self)
        if self._sampler:
            self._sampler.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        trio.lowlevel.remove_instrument(self)
        if self._sampler:
            self._sampler.stop()
        self._host.close()
        if self._schedstat >= 0:
            os.close(self._schedstat)
            self._schedstat = -1

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        # trio reads its clock before the first step of a turn, and we do after each.
        now = time.perf_counter() if self._clock is None else self._clock.now
        if now - self._looked > FRESH_SECONDS and self._schedstat >= 0:
            self._queued_ns, self._looked = self._run_queue_ns(), now
            now = time.perf_counter()
        if now - self._stolen_looked > STOLEN_FRESH_SECONDS:
            self._stolen, self._stolen_looked = self._host.took(), now
            now = time.perf_counter()
        self._started = now

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._started is None:
            return
        ended = time.perf_counter() if self._clock is None else self._clock.stepped()
        started, self._started = self._started, None
        seconds = ended - started
        queued = 0.0
        if seconds > self.threshold:
            self.worst_wall = max(self.worst_wall, seconds)
            if self._schedstat >= 0:
                queued = (self._run_queue_ns() - self._queued_ns) / 1e9
            took = zip(self._stolen, self._host.took(), strict=False)
            queued = min(seconds, queued + max((now - then for then, now in took), default=0) / 1e9)
            seconds -= queued
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds
        self.worst = max(self.worst, seconds)
        if seconds > self.threshold:
            self._note(Stall(task.name, seconds, queued, self._stack_of(started)))
        elif queued:
            self.preempted += 1

    def _note(self, stall: Stall) -> None:
        self.stall_count += 1
        self.stalls.append(stall)
        if self._on_stall is not None:
            self._on_stall(stall)

    def _stack_of(self, started: float | None) -> str:
        step, stack = self._sampler.seen if self._sampler else (None, "")
        return stack if step == started else ""

    def _run_queue_ns(self) -> int:
        """Nanoseconds this thread waited for a processor (the second field of schedstat)."""
        return int(os.pread(self._schedstat, 100, 0).split()[1])


class Host:
    """What the host of this virtual machine took from its processors ("steal" in proc(5))."""

    def __init__(self, path: str = "/proc/stat") -> None:
        self._path = path
        self._fd = -1

    def took(self) -> list[int]:
        """Nanoseconds of each processor since the start, in ticks of 10 ms."""
        found = []
        with contextlib.suppress(OSError):
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            for line in os.pread(self._fd, STAT_BYTES, 0).split(b"\n")[1:]:  # the first is of all
                if not line.startswith(b"cpu"):
                    break
                found.append(int(line.split()[8]) * 10**9 // _TICKS)
        return found

    def close(self) -> None:
        """Let go of the file, until it is asked again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _Sampler(threading.Thread):
    """Looks at the loop's thread and keeps the stack of a step that is over the threshold.

    Attributes:
        seen: when the last such step began, and its stack.
    """

    def __init__(self, watch: LoopWatch) -> None:
        super().__init__(name="loop sampler", daemon=True)
        self._watch = watch
        self._loop_thread = 0
        self._over = threading.Event()
        self.seen: tuple[float | None, str] = None, ""

    def start(self) -> None:
        self._loop_thread = threading.get_ident()
        super().start()

    def stop(self) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        while not self._over.wait(self._watch.threshold / 4):
            started = self._watch.started
            if started is None or time.perf_counter() - started < self._watch.threshold / 2:
                continue
            frame = sys._current_frames()[self._loop_thread]
            stack = "".join(traceback.format_stack(frame, limit=8))
            if self._watch.started == started:  # and has not moved on since
                self.seen = started, stack
