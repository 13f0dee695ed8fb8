"""Readers that wait for a recall: who they are, and what the guard says.

One half of the recaller; the other one is recall.py.
"""

from __future__ import annotations

import errno
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence

import trio

from .. import clock, logs
from ..catalog.queues import RecallClass
from ..config import Config
from ..errors import PosixError, RecallCancelled, RecallTimeout
from ..types import InodeNo, Range, Requester, VolumeId
from .backlog import Backlog
from .backpressure import Backpressure
from .failures import Failures
from .files import Files
from .guard import Guard, Rule
from .mounts import Mounts
from .parity_recall import ParityRecall
from .ranges import overlap
from .reading import DiscReading
from .recall_queue import Job, VolumeQueue
from .shelf import Shelf
from .slow_lane import SlowLane
from .waiters import Waiter, Waiters, WaiterView, again
from .why import Why

log = logs.get(__name__)

class Readers:
    """What the recaller does for readers.

    Attributes:
        waiting: the readers that wait.
        guard: asked before a recall begins; None: all are allowed.
    """

    waiting: Waiters
    guard: Guard | None
    _backlog: Backlog
    _going: set[InodeNo]
    _config: Config
    _failures: Failures
    _files: Files
    _jobs: dict[InodeNo, Job]
    _mounts: Mounts
    _nursery: trio.Nursery | None
    _parity: ParityRecall
    _pressure: Backpressure
    _queues: dict[VolumeId, VolumeQueue]
    _reading: DiscReading
    _shelf: Shelf
    _slow: SlowLane
    _why: Why

    @abstractmethod
    async def _join(
        self, ino: InodeNo, urgency: RecallClass, who: str, wanted: Range, waiter: Waiter | None
    ) -> Job: ...

    @abstractmethod
    def _press(self, queue: VolumeQueue) -> None: ...

    @abstractmethod
    def queue(self, job: Job) -> VolumeQueue | None: ...

    @abstractmethod
    async def _forget_rows(self, inos: Sequence[InodeNo]) -> None: ...

    def configure(self, config: Config) -> None:
        """Other numbers count from now on."""
        self._config = self._reading.config = self._parity.config = config
        for part in (self._slow, self._backlog, self._pressure):
            part.configure(config)

    async def wait(self, ino: InodeNo, wanted: Range, who: Requester) -> None:
        """Return when the range is on disk: how `Files` waits for it.

        Raises RecallFailed, RecallTimeout after fs.wait_limit, RecallCancelled, PoolFull, or
        PosixError EAGAIN if fs.max_waiters wait already, or what the guard says.
        """
        if len(self.waiting) >= self._config.fs.max_waiters:
            raise PosixError(errno.EAGAIN, "too many readers wait for discs")
        slow = self._asked(who, ino)
        live = self._files.hold(ino)
        waiter = Waiter(ino, wanted, who, live, clock.now_ns(), slow=slow)
        self.waiting.add(waiter)
        try:
            with trio.move_on_after(self._config.fs.wait_limit):
                await self._wait(waiter)
                return
            raise self._too_late(waiter)
        finally:
            self.waiting.remove(waiter)
            self._leave(waiter)
            self._files.drop(live)

    async def _wait(self, waiter: Waiter) -> None:
        live, job = waiter.live, None
        waiter_limit = trio.current_time() + self._config.recall.shelf_wait
        while True:
            arrived = live.arrived
            if not overlap(live.absent, waiter.range):
                return
            if waiter.error is not None:
                raise waiter.error
            if job is not None and job.ended and job.error is not None:
                raise again(job.error)
            if job is None or job.ended:
                size = live.attr.size
                job = await self._join(
                    waiter.ino, waiter.urgency, str(waiter.who), Range(0, size), waiter
                )
                continue
            limit = waiter_limit if self._shelf.holds(job) else math.inf
            with trio.move_on_at(limit) as scope:
                await arrived.wait()
            if scope.cancelled_caught and self._shelf.holds(job):
                error = self._shelf.too_late(job)
                self._failures.note(waiter.ino, str(waiter.who), error)
                raise error

    def _too_late(self, waiter: Waiter) -> RecallTimeout:
        """Names the disc and what it waits for; `why` tells it until the file is wanted again."""
        told = self._why.waiter(waiter, self._jobs.get(waiter.ino))
        trouble = self._mounts.robot_care.trouble
        error = RecallTimeout(
            f"inode {waiter.ino} did not come from disc {told.volume or 'yet unknown'} within"
            f" {self._config.fs.wait_limit:g} s" + (f": {trouble}" if trouble else ""),
            next_step="see 'hsmctl status' for robot and drives, then read the file again",
        )
        self._failures.note(waiter.ino, str(waiter.who), error)
        return error

    def _leave(self, waiter: Waiter) -> None:
        """A reader has what it wanted, or gave up."""
        job = self._jobs.get(waiter.ino)
        if job is None or waiter not in job.waiters:
            return
        job.waiters.remove(waiter)
        queue = self.queue(job)
        if queue is not None:
            queue.refresh(job)
        if job.waiters or not job.for_readers or job.ended:
            return
        if self._slow.forget(job):
            self._drop(job)
        elif queue is not None and queue.session is None:
            work = queue.get(job.ino)
            if work is not None and work.live is None:
                queue.remove(work)
                self._tidy(queue)
                self._drop(job)

    def _tidy(self, queue: VolumeQueue) -> None:
        """Less is wanted of a disc that is not being read."""
        if all(work.job.beside for work in queue.works()):
            queue.scope.cancel()
        else:
            self._press(queue)

    def _drop(self, job: Job) -> None:
        """The last reader left."""
        log.info("recall dropped", ino=job.ino, requester=job.requester)
        self._jobs.pop(job.ino, None)
        job.ended, job.error = True, RecallCancelled(f"nobody waits for inode {job.ino} any more")
        if self._nursery is not None:
            self._going.add(job.ino)
            self._nursery.start_soon(self._forget_rows, [job.ino])
        self._backlog.ended()

    def fail_waiters(self, which: Callable[[Waiter], bool], number: int = errno.EIO) -> int:
        """End the waits that match with an errno; how many there were."""
        return self.waiting.fail(which, number)

    def waiters(self) -> list[WaiterView]:
        """Readers that are blocked, the oldest first."""
        return [self._why.waiter(waiter, self._jobs.get(waiter.ino)) for waiter in self.waiting]

    # The guard

    def _asked(self, who: Requester, ino: InodeNo) -> bool:
        """Ask the guard; True if the recall is slow. Raises PosixError."""
        if self.guard is None:
            return False
        verdict = self.guard.ask(who, ino)
        verdict.check()
        return verdict.slow

    def _slow_down(self, who: Requester, rule: Rule) -> None:
        """A requester has become a storm: what it waits for already is slow, too."""
        jobs = self.waiting.slow_down(who, rule)
        for job in filter(None, map(self._jobs.get, jobs)):
            if job.slow or not job.for_readers or not all(w.slow for w in job.waiters):
                continue
            job.slow, job.urgency = True, RecallClass.BULK
            queue = self.queue(job)
            if queue is not None:
                queue.refresh(job)
                self._press(queue)
            if self._nursery is not None:
                self._nursery.start_soon(self._forget_rows, [job.ino])
        for queue in list(self._queues.values()):
            self._slow.step_back(queue)
