"""The slow lane: recalls of a storm wait here for their disc, so that no person waits for them.

A disc that is in a drive, or is fetched for others, is read for them too, after others. For others
of their discs the robot moves at most `guard.slow_discs` times an hour, and not while anyone else
waits, unless that goes on for `schedule.bulk_age_limit`. Such recalls belong to readers alone, so
they are no rows of the catalog: after a restart nobody waits for them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import trio

from .. import logs
from ..catalog.queues import RecallClass
from ..config import Config
from ..types import InodeNo, VolumeId
from .mounts import Mounts
from .recall_queue import Job, VolumeQueue

log = logs.get(__name__)
LOOK_SECONDS = 1.0
"""So often it is asked whether others still wait."""


class SlowLane:
    """Jobs that wait until their disc may be fetched.

    Attributes:
        pause: seconds between two discs.
        next_at: when the next disc may be let in, in trio's time.
        admitted: discs that were let in so far.
    """

    def __init__(
        self,
        mounts: Mounts,
        queues: Mapping[VolumeId, VolumeQueue],
        config: Config,
        place: Callable[[Job], Awaitable[None]],
    ) -> None:
        self._mounts, self._queues, self._place = mounts, queues, place
        self.configure(config)
        self._parked: dict[VolumeId, dict[InodeNo, Job]] = {}
        self._some = trio.Event()
        self.next_at = 0.0
        self.admitted = 0

    def configure(self, config: Config) -> None:
        """Other numbers count from now on."""
        self.pause = 3600.0 / config.guard.slow_discs
        self._patience = config.schedule.bulk_age_limit

    def __len__(self) -> int:
        return sum(map(len, self._parked.values()))

    def must_wait(self, job: Job, volume: VolumeId) -> bool:
        """Whether the robot would move for a storm alone."""
        return (
            job.slow
            and job.admitted != volume
            and volume not in self._queues
            and not self._mounts.within_reach(volume)
        )

    def step_back(self, queue: VolumeQueue) -> None:
        """A disc that only storms want, and no drive has yet, waits here."""
        works = queue.works()
        lazy = all(work.job.slow or work.job.beside for work in works)
        if self._mounts.under_way(queue.volume) or not lazy:
            return
        for work in works:
            queue.remove(work)
            self.park(work.job, queue.volume)
        queue.scope.cancel()

    def park(self, job: Job, volume: VolumeId) -> None:
        """The job waits for the disc."""
        job.volume = volume
        self._parked.setdefault(volume, {})[job.ino] = job
        self._some.set()

    def holds(self, job: Job) -> bool:
        """The job waits here."""
        return job.volume is not None and job.ino in self._parked.get(job.volume, {})

    def forget(self, job: Job) -> bool:
        """The job waits here no more; False if it did not."""
        if not self.holds(job):
            return False
        assert job.volume is not None
        jobs = self._parked[job.volume]
        del jobs[job.ino]
        if not jobs:
            del self._parked[job.volume]
        return True

    def clear(self) -> None:
        """The recaller stops; it places its jobs anew when it starts again."""
        self._parked.clear()

    def ahead(self, volume: VolumeId) -> int:
        """Discs that are let in before this one."""
        return list(self._parked).index(volume)

    async def released(self, volume: VolumeId) -> None:
        """The disc is to be fetched for others: these are read too."""
        if len(self._queues.get(volume, ())):
            await self._let_in(volume)

    async def run(self) -> None:
        """Let in one disc after the other, the longest wanted first; for ever."""
        while True:
            await self._some.wait()
            await trio.sleep_until(self.next_at)
            since = trio.current_time()
            while self._parked and self._others_wait():
                if trio.current_time() - since >= self._patience:
                    break
                await trio.sleep(LOOK_SECONDS)
            if not self._parked:
                self._some = trio.Event()
                continue
            self.next_at = trio.current_time() + self.pause
            self.admitted += 1
            volume = next(iter(self._parked))
            log.info("slow lane lets a disc in", volume=volume, files=len(self._parked[volume]))
            await self._let_in(volume)

    def _others_wait(self) -> bool:
        return any(queue.urgency < RecallClass.BULK for queue in self._queues.values())

    async def _let_in(self, volume: VolumeId) -> None:
        for job in self._parked.pop(volume, {}).values():
            job.admitted = volume
            await self._place(job)
