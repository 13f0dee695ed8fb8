"""What is to be read from one disc, and in which order: chunks that readers wait for go first.

Plain records and their order; the recaller acts on them.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from itertools import chain

import trio

from ..catalog.copies import Copy
from ..catalog.queues import RecallClass
from ..errors import HsmError
from ..types import CHUNK, SECTOR, CopyId, DataVersion, Digest, InodeNo, Range, StoredPart, VolumeId
from .live import Live
from .ranges import overlap
from .session import Session
from .waiters import Waiter


@dataclass(eq=False, slots=True)
class Job:
    """The recall of one file; duplicates join it.

    Attributes:
        bad: parts of copies that were tried in vain; faults says why, for people.
        beyond: those of them for which parity did not make up either.
        for_readers: only readers asked for it, so it goes when the last of them does.
        ended: set with `error` (None: it is all there) when nothing more will come.
    """

    ino: InodeNo
    urgency: RecallClass
    requester: str
    created_ns: int
    start: int
    end: int
    for_readers: bool
    waiters: list[Waiter] = field(default_factory=list)
    bad: set[CopyId] = field(default_factory=set)
    beyond: set[CopyId] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    volume: VolumeId | None = None
    ended: bool = False
    error: HsmError | None = None

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

    def take(self, index: int) -> tuple[int, int]:
        """The chunk is being read now: its first sector, and how many."""
        self.todo.discard(index)
        self.in_flight += 1
        self.cursor = index + 1
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
        bytes: on the disc, of all work.
    """

    def __init__(self, volume: VolumeId) -> None:
        self.volume = volume
        self.session: Session | None = None
        self.scope = trio.CancelScope()
        self.retries = 0
        self.bytes = 0
        self._works: dict[InodeNo, Work] = {}
        self._order: list[tuple[int, int, InodeNo]] = []
        self._hot: dict[InodeNo, Work] = {}
        self._position = 0
        self._current: Work | None = None

    def __len__(self) -> int:
        return len(self._works)

    def works(self) -> list[Work]:
        """All work, in no order."""
        return list(self._works.values())

    def get(self, ino: InodeNo) -> Work | None:
        """The work for a file."""
        return self._works.get(ino)

    @property
    def urgency(self) -> RecallClass:
        """The most urgent of all."""
        if self._hot:
            return RecallClass.INTERACTIVE
        return RecallClass(self._order[0][0]) if self._order else RecallClass.BULK

    def add(self, work: Work) -> None:
        """One more file."""
        ino = work.job.ino
        self._works[ino] = work
        self.bytes += work.part.stored
        insort(self._order, self._key(work))
        if work.job.waiters:
            self._hot[ino] = work

    def remove(self, work: Work) -> None:
        """It is done, or not wanted."""
        ino = work.job.ino
        if self._works.get(ino) is work:
            del self._works[ino]
            self.bytes -= work.part.stored
            self._hot.pop(ino, None)
            self._forget_order(work)
        if self._current is work:
            self._current = None

    def refresh(self, job: Job, urgency: RecallClass) -> None:
        """The job's waiters or its urgency changed (it was urgency before)."""
        work = self._works.get(job.ino)
        if work is None:
            return
        if job.waiters:
            self._hot[job.ino] = work
        else:
            self._hot.pop(job.ino, None)
        if job.urgency != urgency:
            self._order.remove((int(urgency), work.part.sector, job.ino))
            insort(self._order, self._key(work))

    def _key(self, work: Work) -> tuple[int, int, InodeNo]:
        return int(work.job.urgency), work.part.sector, work.job.ino

    def _forget_order(self, work: Work) -> None:
        at = bisect_left(self._order, self._key(work))
        assert self._order[at] == self._key(work)
        del self._order[at]

    def next_work(self) -> Work | None:
        """What to read of next: for readers first, then on with the file, then by sector."""
        for work in self._hot.values():
            if work.live is None or (work.todo and work.next_for_reader() is not None):
                return work
        if self._current is not None and self._current.todo:
            return self._current
        return self._next_in_order()

    def _next_in_order(self) -> Work | None:
        """The next file on the disc after the last, most urgent class first; then around."""
        if not self._order:
            return None
        urgency = self._order[0][0]
        start = bisect_left(self._order, (urgency, self._position, InodeNo(0)))
        for at in chain(range(start, len(self._order)), range(start)):
            work = self._works[self._order[at][2]]
            if work.live is None or work.todo:
                return work
        return None

    def chose(self, work: Work) -> int:
        """The chunk of work to read now."""
        index = work.next_for_reader() if work.job.waiters else None
        self._current, self._position = work, work.part.sector
        return work.next_in_order() if index is None else index
