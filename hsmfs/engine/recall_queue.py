"""What is to be read from one disc, and in which order: chunks that readers wait for go first.

Plain records and their order; the recaller acts on them.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import trio

from ..catalog.copies import Copy
from ..catalog.queues import Recall, RecallClass
from ..errors import HsmError
from ..types import CHUNK, SECTOR, CopyId, DataVersion, Digest, InodeNo, Range, StoredPart, VolumeId
from .live import Live
from .ranges import overlap
from .schedule import DiscOrder
from .session import Session
from .waiters import Waiter


@dataclass(eq=False, slots=True)
class Job:
    """The recall of one file; duplicates join it.

    Attributes:
        bad: parts of copies that were tried in vain; faults says why, for people.
        beyond: those of them for which parity did not make up either.
        slow: only readers of a storm asked for it: the slow lane. admitted: the disc of which it
            let it in.
        beside: wanted only while its disc is read for others (beside.py).
        for_readers: only readers asked for it, so it goes when the last of them does.
        ended: set with `error` (None: it is all there) when nothing more will come.
    """

    ino: InodeNo
    urgency: RecallClass
    requester: str
    created_ns: int
    start: int
    end: int
    for_readers: bool = False
    slow: bool = False
    beside: bool = False
    admitted: VolumeId | None = None
    waiters: list[Waiter] = field(default_factory=list)
    bad: set[CopyId] = field(default_factory=set)
    beyond: set[CopyId] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    volume: VolumeId | None = None
    ended: bool = False
    error: HsmError | None = None

    @property
    def hot(self) -> bool:
        """A person waits for it."""
        return bool(self.waiters) and not self.slow

    def take_over(self, row: Recall) -> None:
        """It goes on for whoever asked before, and not for readers alone."""
        self.urgency = min(self.urgency, row.urgency)
        self.start, self.end = min(self.start, row.start), max(self.end, row.end)
        self.requester, self.created_ns = row.requester, row.created_ns
        self.for_readers = self.slow = False

    def missing(self, live: Live) -> list[Range]:
        """What is asked for and not on disk."""
        return overlap(live.absent, Range(self.start, max(self.start, self.end)))

    def wanted(self, live: Live) -> Range | None:
        """The first range that a reader waits for, else the first that is missing."""
        for waiter in self.waiters:
            for r in overlap(live.absent, waiter.range):
                return r
        return next(iter(self.missing(live)), None)


@dataclass(eq=False, slots=True)
class Work:
    """What a job wants of one part of one copy. `todo` holds indices of chunks of the version."""

    job: Job
    copy: Copy
    live: Live | None = None
    digest: Digest | None = None
    todo: set[int] = field(default_factory=set)
    cursor: int = 0
    in_flight: int = 0
    dead: bool = False
    reserved: int = 0
    unsaved: int = 0
    came: float = 0.0
    read: int = 0
    began: float = 0.0

    @property
    def part(self) -> StoredPart:
        return self.copy.where

    @property
    def version(self) -> DataVersion:
        return self.copy.version

    def plan(self, live: Live, digest: Digest) -> int:
        """Take the inode in hand; returns the bytes that are missing of the part."""
        self.live, self.digest = live, digest
        whole = Range(self.part.offset, self.part.offset + self.part.length)
        missing = [x for r in self.job.missing(live) for x in overlap([r], whole)]
        for r in missing:
            self.todo.update(range(r.start // CHUNK, -(-r.end // CHUNK)))
        wanted = self.job.wanted(live)
        self.cursor = (wanted.start if wanted else 0) // CHUNK
        return sum(r.length for r in missing)

    def next_for_reader(self) -> int | None:
        """The chunk that a reader waits for, if it is still to be read."""
        assert self.live is not None
        for waiter in self.job.waiters:
            for r in overlap(self.live.absent, waiter.range):
                for index in range(r.start // CHUNK, -(-r.end // CHUNK)):
                    if index in self.todo:
                        return index
        return None

    def next_in_order(self) -> int:
        """The next chunk after the last one read, around the end."""
        if self.cursor not in self.todo:
            later = [index for index in self.todo if index > self.cursor]
            self.cursor = min(later or self.todo)
        return self.cursor

    def take(self, index: int) -> None:
        """The chunk is being read now."""
        self.todo.discard(index)
        self.in_flight += 1
        self.cursor = index + 1

    def place(self, index: int) -> tuple[int, int]:
        """The chunk's first sector, and how many."""
        local = index - self.part.offset // CHUNK
        if self.part.compressed:
            start = self.part.frame_ends[local - 1] if local else 0
            end = self.part.frame_ends[local]
        else:
            start = local * CHUNK
            end = min(start + CHUNK, self.part.length)
        skip = start % SECTOR
        return self.part.sector + start // SECTOR, -(-(skip + end - start) // SECTOR)


class VolumeQueue:
    """The work that waits for one disc.

    Attributes:
        session: the disc is in a drive and is being read.
        scope: around the wait for a drive and the reading.
        retries: sessions in a row that a drive broke.
        coming: looks for what lies beside that are not over; they may add work (beside.py).
    """

    def __init__(self, volume: VolumeId) -> None:
        self.volume = volume
        self.session: Session | None = None
        self.scope = trio.CancelScope()
        self.retries = self.coming = 0
        self._works: dict[InodeNo, Work] = {}
        self._order: DiscOrder[InodeNo] = DiscOrder()
        self._hot: dict[InodeNo, Work] = {}
        self._hot_order: list[tuple[int, InodeNo]] = []
        self._more = trio.Event()
        self._position = 0
        self._current: Work | None = None
        self._last = 0.0

    def __len__(self) -> int:
        return len(self._works)

    def works(self) -> list[Work]:
        """All work, in no order."""
        return list(self._works.values())

    def get(self, ino: InodeNo) -> Work | None:
        """The work for a file."""
        return self._works.get(ino)

    @property
    def bytes(self) -> int:
        """On the disc, of all work."""
        return self._order.bytes

    @property
    def urgency(self) -> RecallClass:
        """The most urgent of all."""
        if self._hot:
            return RecallClass.INTERACTIVE
        urgency = self._order.urgency
        return RecallClass.BULK if urgency is None else urgency

    @property
    def demand(self) -> dict[str, Any]:
        """What `Mounts.press` wants to know."""
        return {
            "urgency": self.urgency, "bytes": self.bytes, "count": len(self), "last": self._last,
        }  # fmt: skip

    @property
    def since(self) -> float:
        """When the oldest work of the most urgent class came, in trio's time."""
        first = next(iter(self._hot.values()), None)
        if first is not None:
            return first.came
        since = self._order.since(self.urgency)
        return trio.current_time() if since is None else since

    def add(self, work: Work) -> None:
        """One more file."""
        job, part = work.job, work.part
        work.came = self._last = trio.current_time()
        self._works[job.ino] = work
        self._order.add(job.ino, job.urgency, part.sector, part.stored, work.came)
        if job.hot:
            self._heat(work)
        self._more.set()

    async def more(self, seconds: float) -> bool:
        """Wait until work is added; False if none was in that time."""
        self._more = trio.Event()
        with trio.move_on_after(seconds):
            await self._more.wait()
        return self._more.is_set()

    def remove(self, work: Work) -> None:
        """It is done, or not wanted."""
        ino = work.job.ino
        if self._works.get(ino) is work:
            del self._works[ino]
            self._cool(work)
            self._order.remove(ino)
        if self._current is work:
            self._current = None

    def refresh(self, job: Job) -> None:
        """The job's waiters or its urgency changed."""
        work = self._works.get(job.ino)
        if work is None:
            return
        if job.hot:
            self._heat(work)
        else:
            self._cool(work)
        self._order.change(job.ino, job.urgency)

    def _heat(self, work: Work) -> None:
        if work.job.ino not in self._hot:
            self._hot[work.job.ino] = work
            insort(self._hot_order, (work.part.sector, work.job.ino))

    def _cool(self, work: Work) -> None:
        if self._hot.pop(work.job.ino, None) is not None:
            del self._hot_order[bisect_left(self._hot_order, (work.part.sector, work.job.ino))]

    def _hot_from_here(self) -> Iterator[Work]:
        """What readers wait for, in the order in which it is read."""
        start = bisect_left(self._hot_order, (self._position, InodeNo(0)))
        for at in chain(range(start, len(self._hot_order)), range(start)):
            yield self._works[self._hot_order[at][1]]

    def before(self, job: Job) -> tuple[int, int]:
        """Bytes to read, and in how many places, until a reader of the job has its bytes.

        Without a reader: until all of the job has come.
        """
        size = reads = 0
        if job.ino not in self._hot:
            return self.bytes, len(self)
        for work in self._hot_from_here():
            wanted = sum(w.range.length for w in work.job.waiters[:1])
            size += min(work.part.stored, -(-wanted // CHUNK) * CHUNK)
            reads += 1
            if work.job is job:
                break
        return size, reads

    def next_work(self) -> Work | None:
        """What to read of next: for readers first, then on with the file, then by sector.

        Readers are served in the order of the disc from where it was read last, around its end.
        """
        for work in self._hot_from_here():
            if work.live is None or (work.todo and work.next_for_reader() is not None):
                return work
        if self._current is not None and self._current.todo:
            return self._current
        for ino in self._order.from_sector(self._position):
            work = self._works[ino]
            if work.live is None or work.todo:
                return work
        return None

    def chose(self, work: Work) -> int:
        """The chunk of work to read now."""
        index = work.next_for_reader() if work.job.waiters else None
        self._current, self._position = work, work.part.sector
        return work.next_in_order() if index is None else index
