"""Back-pressure: orders whose bytes have no room wait here, and hold no drive meanwhile.

A reader is served as long as his pool has any room. An order (`hsmctl recall`, a prefetch) leaves
what lies above the high watermark to readers and writers; where its bytes do not fit below, it
waits, and with it other orders for that pool, so that no disc is fetched in vain. As files are
released they go on, by class and age. One that waits for as long as its class's age limit ends with
the error. Like all orders they are rows of the catalog, so they outlive a restart.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import trio

from .. import logs
from ..catalog.queues import RecallClass
from ..config import Config
from ..errors import HsmError, PoolFull, PosixError
from ..types import InodeNo, PoolId, VolumeId
from .events import Events
from .files import Files
from .live import Live
from .mounts import Mounts
from .ranges import total
from .recall_queue import Job, VolumeQueue
from .room import Room
from .schedule import rules
from .waiters import again

log = logs.get(__name__)
LOOK = 10.0
"""Seconds between looks for room, while somebody waits for it."""
AT_ONCE = 64
"""Orders that are looked at in one step of the event loop."""


@dataclass(eq=False, slots=True)
class _Held:
    """A job that waits, since when in trio's time, and what it met."""

    job: Job
    since: float
    error: PoolFull


class Backpressure:
    """Jobs that wait for room.

    Attributes:
        nursery: set while the recaller runs.
    """

    def __init__(
        self,
        files: Files,
        mounts: Mounts,
        room: Room,
        queues: Mapping[VolumeId, VolumeQueue],
        events: Events,
        config: Config,
        *,
        place: Callable[[Job], Awaitable[None]],
        end: Callable[[Job, HsmError | None], Awaitable[None]],
    ) -> None:
        self._files, self._mounts, self._room, self._queues = files, mounts, room, queues
        self._events, self._place, self._end = events, place, end
        self._held: dict[PoolId, dict[InodeNo, _Held]] = {}
        self._since: dict[InodeNo, float] = {}
        """Of those that were let go on and did not end yet, too."""
        self._looking = False
        self.nursery: trio.Nursery | None = None
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Other numbers count from now on."""
        said = rules(config)
        self._limits = {urgency: said.of(urgency).age_limit for urgency in RecallClass}

    def holds(self, job: Job) -> bool:
        """The job waits for room."""
        return any(job.ino in held for held in self._held.values())

    def must_wait(self, job: Job, live: Live) -> bool:
        """Whether an order has to wait behind others for its pool before a disc is fetched."""
        if not self._held or not self._behind(job):
            return False
        pool = self._files.pool_of(live).id
        if pool not in self._held:
            return False
        self._park(job, pool, next(iter(self._held[pool].values())).error)
        return True

    def _behind(self, job: Job) -> bool:
        """It is an order that was not let go on before."""
        return not (job.waiters or job.for_readers or job.beside or job.ino in self._since)

    def hold(self, job: Job, live: Live, error: HsmError) -> bool:
        """It met a full pool: it waits, and its readers get the error; False if it must end."""
        if not isinstance(error, PoolFull) or job.for_readers or job.beside or job.ended:
            return False
        if self._room.hopeless(live, total(job.missing(live))):
            return False
        for waiter in job.waiters:
            waiter.fail(again(error))
        pool = self._files.pool_of(live)
        first = pool.id not in self._held
        self._park(job, pool.id, error)
        if first:
            log.warning("orders wait: there is no room for them", pool=pool.name,
                        next_step=error.next_step)  # fmt: skip
            self._events.emit("orders_wait", pool=pool.name, message=error.message)
        return True

    def _park(self, job: Job, pool: PoolId, error: PoolFull) -> None:
        job.volume = None
        since = self._since.setdefault(job.ino, trio.current_time())
        self._held.setdefault(pool, {})[job.ino] = _Held(job, since, error)
        if not self._looking:
            assert self.nursery is not None
            self._looking = True
            self.nursery.start_soon(self._look)

    def forget(self, job: Job) -> bool:
        """The job waits here no more; False if it did not."""
        for pool, held in self._held.items():
            if held.pop(job.ino, None) is not None:
                if not held:
                    del self._held[pool]
                return True
        return False

    def ended(self, job: Job) -> None:
        """Nothing more comes of the job."""
        self.forget(job)
        self._since.pop(job.ino, None)

    def clear(self) -> None:
        """The recaller stops; it places its jobs anew when it starts again."""
        self._held.clear()
        self._since.clear()
        self._looking = False

    # Going on

    async def _look(self) -> None:
        while self._held:
            await self._step_back()
            await trio.sleep(LOOK)
            for held in list(self._held.values()):
                line = sorted(held.values(), key=lambda one: (one.job.urgency, one.since))
                await self._end_old(line)
                for job in await self._that_fit(line):
                    if self.forget(job):
                        await self._place(job)
                        await trio.lowlevel.checkpoint()
        self._looking = False

    async def _step_back(self) -> None:
        """Discs that only orders for a full pool want, and no drive has yet, are not fetched."""
        for queue in list(self._queues.values()):
            works = queue.works()
            if self._mounts.under_way(queue.volume) or not all(self._behind(w.job) for w in works):
                continue
            if not works or not self._is_full_for(works[0].job):
                continue
            for work in works:
                queue.remove(work)
            queue.scope.cancel()
            for work in works:
                await self._place(work.job)
                await trio.lowlevel.checkpoint()

    def _is_full_for(self, job: Job) -> bool:
        try:
            live = self._files.hold(job.ino)
        except PosixError:
            return False
        try:
            return self._files.pool_of(live).id in self._held
        finally:
            self._files.drop(live)

    async def _end_old(self, line: list[_Held]) -> None:
        now = trio.current_time()
        for held in line:
            if now - held.since >= self._limits[held.job.urgency] and self.holds(held.job):
                await self._end(held.job, held.error)

    async def _that_fit(self, line: list[_Held]) -> list[Job]:
        """Those at the head of the line for which there is room together: none overtakes."""
        found: list[Job] = []
        promised: list[tuple[Live, int]] = []
        try:
            for held in line:
                if not len(found) % AT_ONCE:
                    await trio.lowlevel.checkpoint()
                if not self.holds(held.job):
                    continue
                try:
                    live = self._files.hold(held.job.ino)
                except PosixError:
                    found.append(held.job)  # it is gone
                    continue
                promised.append((live, 0))
                need = total(held.job.missing(live))
                error = await self._room.reserve(live, need, order=True)
                if error is not None:
                    held.error = error
                    break
                promised[-1] = live, need
                found.append(held.job)
        finally:
            for live, need in promised:
                self._room.give_back(live, need)
                self._files.drop(live)
        return found
