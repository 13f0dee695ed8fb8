"""Requests for recalls that stay rows of the catalog until it is their disc's turn.

A million requests must not be a million records in memory. So no more than RECALL_JOBS of them
are jobs at once; of the others only their discs are known here. A disc's requests are taken up
together, in the order of its sectors: of the most urgent class first, then of discs that are wanted
anyway, then of those that were asked for first. What waits here for as long as its class's age
limit goes before all of them, the oldest first. Relies on the recaller to make jobs of rows.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import trio

from .. import limits, logs
from ..catalog.catalog import Catalog
from ..catalog.queues import Recall, RecallClass
from ..config import Config
from ..types import InodeNo, VolumeId
from .recall_queue import Job, VolumeQueue
from .schedule import rules
from .shelf import Shelf

log = logs.get(__name__)
BLOCK = 1000
"""So many of a disc are taken up at once."""
LOOK = 20_000
"""Rows that are looked at in one statement."""
_START = (-1, 0)


@dataclass(slots=True)
class _Disc:
    """How far the requests of a disc were taken up. again: one was added behind that.

    since: when the first of them came or was found, in trio's time.
    """

    urgency: RecallClass
    since: float
    after: tuple[int, int] = _START
    again: bool = False


class Backlog:
    """Discs with requests that no job was made of yet.

    Reads the recaller's jobs, queues and shelf; take makes a job of a row.
    """

    def __init__(
        self,
        catalog: Catalog,
        jobs: Mapping[InodeNo, Job],
        queues: Mapping[VolumeId, VolumeQueue],
        shelf: Shelf,
        take: Callable[[Recall], Awaitable[None]],
        config: Config,
    ) -> None:
        self._catalog, self._jobs, self._queues = catalog, jobs, queues
        self._shelf, self._take = shelf, take
        self._discs: dict[VolumeId, _Disc] = {}
        self._wake = trio.Event()
        self._enough = -1
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Other numbers count from now on."""
        said = rules(config)
        self._limits = {urgency: said.of(urgency).age_limit for urgency in RecallClass}
        self.look()

    def __len__(self) -> int:
        return len(self._discs)

    def __contains__(self, volume: VolumeId) -> bool:
        return volume in self._discs

    def full(self, urgency: RecallClass) -> bool:
        """No more requests of the class are to become jobs now."""
        return self._taken >= _most(urgency)

    def put_off(self, volume: VolumeId, urgency: RecallClass) -> None:
        """A request for a file on the disc waits as a row."""
        disc = self._disc(volume, urgency)
        disc.again = disc.after != _START
        self._wake.set()

    def _disc(self, volume: VolumeId, urgency: RecallClass) -> _Disc:
        disc = self._discs.setdefault(volume, _Disc(urgency, trio.current_time()))
        disc.urgency = min(disc.urgency, urgency)
        return disc

    def look(self) -> None:
        """Something changed: perhaps requests can be taken up."""
        self._wake.set()

    def ended(self) -> None:
        """A job ended."""
        if self._taken <= self._enough:
            self._wake.set()

    async def run(self) -> None:
        """Take up what the catalog holds as there is room for it; for ever."""
        self._discs.clear()
        began = trio.current_time()
        if count := await self._load():
            log.info("recalls taken up", count=count, seconds=trio.current_time() - began)
        while True:
            self._wake = trio.Event()
            volume = self._next()
            if volume is None:
                with trio.move_on_at(self._older_at()):
                    await self._wake.wait()
                continue
            await self._take_from(volume)
            if not self._discs:  # copies may have moved to other discs meanwhile
                await self._load()

    async def _load(self) -> int:
        """Find the discs of all requests that are no jobs; how many requests."""
        after, count = 0, 0
        while rows := await self._catalog.read(
            lambda reports, after=after: reports.queues.recalls_by_disc(after, LOOK)  # type: ignore[misc]
        ):
            after = rows[-1][0]
            for ino, urgency, volume in rows:
                if ino not in self._jobs:
                    count += 1
                    self._disc(volume, urgency)
            await trio.lowlevel.checkpoint()
        return count

    @property
    def _taken(self) -> int:
        """Requests that are jobs; those that wait for an operator keep nobody from a drive."""
        return len(self._jobs) - len(self._shelf)

    def _next(self) -> VolumeId | None:
        """The disc whose requests are next; None while there is no room for any."""
        discs = [(v, d) for v, d in self._discs.items() if not self._shelf.waits_for(v)]
        waiting = [(v, self._rank(d)) for v, d in discs]
        # When so few jobs are left, a block of some disc can be taken up.
        self._enough = max((_most(rank) - BLOCK for _, (_, rank, _) in waiting), default=-1)
        ready = [(v, rank) for v, rank in waiting if self._taken <= _most(rank[1]) - BLOCK]
        first = min(ready, key=lambda disc: (disc[1], disc[0] not in self._queues), default=None)
        return first[0] if first is not None else None

    def _rank(self, disc: _Disc) -> tuple[bool, RecallClass, float]:
        """Over its age limit it goes first, and there is as much room for it as for any."""
        if self._old_at(disc) <= trio.current_time():
            return False, RecallClass.INTERACTIVE, disc.since
        return True, disc.urgency, 0.0

    def _old_at(self, disc: _Disc) -> float:
        return disc.since + self._limits[disc.urgency]

    def _older_at(self) -> float:
        """When the next disc gets over its age limit."""
        later = (self._old_at(disc) for disc in self._discs.values())
        return min((at for at in later if at > trio.current_time()), default=math.inf)

    async def _take_from(self, volume: VolumeId) -> None:
        """Take up the next requests of a disc."""
        disc = self._discs[volume]
        found = await self._catalog.read(
            lambda reports: reports.queues.recalls_on(volume, disc.after, BLOCK)
        )
        for sector, copy, ino in found:
            disc.after = (sector, copy)
            await self._catalog.settled()
            row = self._catalog.queues.recall(ino)
            if row is not None and ino not in self._jobs:
                await self._take(row)
            await trio.lowlevel.checkpoint()
        if len(found) == BLOCK:
            return
        if disc.again:
            disc.after, disc.again = _START, False
        else:
            self._discs.pop(volume, None)


def _most(urgency: RecallClass) -> int:
    return limits.RECALL_JOBS * (RecallClass.BULK + 1 - urgency)
