"""Recalls: from a request to verified bytes on disk, one queue a disc.

Requests are rows of the catalog, so they outlive a crash; a restart drops those that are done.
Nothing is filled in before its chunk's checksum passed; a copy that fails is marked and the next
one is tried, until none is left. Relies on Mounts for discs and on Files for the bytes' place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import trio

from .. import clock, crash, logs
from ..catalog.catalog import Catalog
from ..catalog.copies import Copy
from ..catalog.queues import Recall, RecallClass
from ..catalog.reports import Query
from ..config import Config
from ..errors import HsmError, PosixError, RecallCancelled
from ..states import FileState, VolumeState
from ..types import DataVersion, InodeNo, Range, VolumeId
from .backlog import Backlog
from .backpressure import Backpressure
from .beside import Beside
from .copy_choice import CopyChoice
from .events import Events
from .failures import Failures
from .files import Files
from .guard import Guard
from .live import Live
from .mounts import Mounts
from .parity_read import ParityReader
from .parity_recall import ParityRecall
from .ranges import overlap
from .readers import Readers
from .reading import DiscReading
from .recall_queue import Job, VolumeQueue, Work
from .rewritten import Rewritten
from .room import Room
from .shelf import Shelf
from .slow_lane import SlowLane
from .trust.audit import Note, unheard
from .trust.words import path_of
from .waiters import Left, Waiter, Waiters
from .why import Why

log = logs.get(__name__)


TOGETHER = 32
"""Requests of one order that are written down in one transaction."""
Asked = Callable[[InodeNo, DataVersion, RecallClass, Range], None]


class Recaller(Readers):
    """Brings bytes back from discs.

    Attributes:
        waiting: the readers that wait.
        parity_reader: reads through the parity of sets.
        came_in: called with an inode whose recall ended well; set by who wires the engine.
        asked: told of each recall that begins, with the version and range that are wanted.
        beside: brings the rest of a study in while its disc is read.
    """

    def __init__(
        self,
        catalog: Catalog,
        files: Files,
        mounts: Mounts,
        events: Events,
        config: Config,
        *,
        guard: Guard | None = None,
        left: Left | None = None,
    ) -> None:
        self._catalog, self._files, self._mounts = catalog, files, mounts
        self._events, self._config = events, config
        self.guard = guard
        self.waiting = Waiters(left)
        self.note: Note = unheard
        self.came_in: Callable[[InodeNo], None] = lambda ino: None
        self.asked: Asked = lambda ino, version, urgency, wanted: None
        self._jobs: dict[InodeNo, Job] = {}
        self._going: set[InodeNo] = set()
        self._queues: dict[VolumeId, VolumeQueue] = {}
        self._failures = Failures(catalog, events)
        self._nursery: trio.Nursery | None = None
        room = Room(files)
        self._pressure = Backpressure(
            files, mounts, room, self._queues, events, config, place=self._place, end=self._end
        )
        self._reading = DiscReading(
            catalog, files, mounts, events, config, room=room, pressure=self._pressure,
            place=self._place, end_all=self._end_all,
            put_aside=lambda queue: self.beside.put_down(queue),
        )  # fmt: skip
        self.beside = Beside(catalog, files, self._jobs, self._queues, self._press, self._end)
        self._copies = CopyChoice(catalog, mounts, self._queues)
        self.parity_reader = ParityReader(catalog, mounts, self._copies.effort)
        self._parity = ParityRecall(
            catalog, files, self.parity_reader, events, config, room=room,
            pressure=self._pressure, place=self._place, end=self._end,
        )  # fmt: skip
        self._shelf = Shelf(catalog, events)
        self._slow = SlowLane(mounts, self._queues, config, self._place)
        self._backlog = Backlog(
            catalog, self._jobs, self._queues, self._shelf, self._take, config
        )
        self._rewritten = Rewritten(
            lambda ino: self.request(ino, RecallClass.BULK, "rewritten in part")
        )
        self._why = Why(catalog, mounts, self._queues, self._shelf, self._slow, self._pressure)
        files.wait_for = self.wait
        files.rewritten = self._rewritten.note
        if guard is not None:
            guard.slowed = self._slow_down

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve requests for ever; those of the last run are taken up meanwhile."""
        self._going.clear()
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = self._reading.nursery = self._parity.nursery = nursery
                self._pressure.nursery = nursery
                nursery.start_soon(self._resume, set(self._jobs.values()))
                nursery.start_soon(self._backlog.run)
                nursery.start_soon(self.waiting.watch)
                nursery.start_soon(self._rewritten.run)
                nursery.start_soon(self._slow.run)
                nursery.start_soon(self.beside.run)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = self._reading.nursery = self._parity.nursery = None
            for waiting in (self._pressure, self._shelf, self._slow):
                waiting.clear()
            for queue in self._queues.values():
                for work in queue.works():
                    self._reading.put_down(work)
            self._queues.clear()

    async def _resume(self, unplaced: set[Job]) -> None:
        """Place what was there before this run; complete what was rewritten in part."""
        for job in unplaced:
            await self._place(job)
        partial = await self._catalog.read(
            lambda reports: [
                attr.ino
                for attr in reports.files(Query(states=(FileState.PARTIAL,)))
                if attr.version != attr.base_version
            ]
        )
        for ino in partial:
            await self.request(ino, RecallClass.BULK, "rewritten in part")

    async def _take(self, row: Recall) -> None:
        """A request that was waiting as a row."""
        job = Job(row.ino, row.urgency, row.requester, row.created_ns, row.start, row.end)
        self._jobs[row.ino] = job
        await self._place(job)

    # Requests

    async def _forget_rows(self, inos: Sequence[InodeNo]) -> None:
        """The rows go, unless they are wanted again or by others than a storm's readers."""
        try:
            async with self._catalog.write():
                jobs = {ino: self._jobs.get(ino) for ino in inos}
                self._catalog.queues.end_recalls(
                    [ino for ino, job in jobs.items() if job is None or job.slow]
                )
        finally:
            self._going.difference_update(inos)

    async def request(
        self, ino: InodeNo, urgency: RecallClass, who: str, range: Range | None = None
    ) -> bool:
        """Ask for a file or a range of it; returns at once. False if it is on disk already.

        Raises PosixError ENOENT.
        """
        await trio.lowlevel.checkpoint()
        live = self._files.hold(ino)
        try:
            wanted = range or Range(0, live.attr.size)
            if not overlap(live.absent, wanted):
                return False
            await self._join(ino, urgency, who, wanted, None)
            return True
        finally:
            self._files.drop(live)

    async def request_all(
        self, inos: Sequence[InodeNo], urgency: RecallClass, who: str
    ) -> dict[InodeNo, PosixError]:
        """As `request` for whole files, some in one transaction; those that are gone, and why."""
        gone = dict[InodeNo, PosixError]()
        for at in range(0, len(inos), TOGETHER):
            held, joined, new = list[Live](), list[InodeNo](), list[Job]()
            try:
                async with self._catalog.write():
                    for ino in dict.fromkeys(inos[at : at + TOGETHER]):
                        try:
                            live = self._files.hold(ino)
                        except PosixError as fault:
                            gone[ino] = fault
                            continue
                        held.append(live)
                        if ino in self._jobs:
                            joined.append(ino)
                        elif live.absent:
                            job = Job(ino, urgency, who, clock.now_ns(), 0, live.attr.size)
                            if (left := self._write_down(job)) is not None:
                                job.take_over(left)
                            new.append(job)
                crash.point("recall.requests.committed")
                joined += [job.ino for job in new if job.ino in self._jobs]
                begun = [job for job in new if job.ino not in self._jobs and self._begin(job)]
                for job in begun:
                    await self._place(job)
                for ino in joined:
                    await self.request(ino, urgency, who)
            finally:
                for live in held:
                    self._files.drop(live)
            await trio.lowlevel.checkpoint()
        return gone

    async def cancel(self, ino: InodeNo) -> bool:
        """End the recall of a file; its readers get RecallCancelled. False if there is none."""
        job = self._jobs.get(ino)
        if job is None and self._catalog.queues.recall(ino) is not None:
            await self._forget_rows([ino])
            return True
        if job is None:
            return False
        await self._end(job, RecallCancelled(f"the recall of inode {ino} was cancelled"))
        return True

    async def _join(
        self, ino: InodeNo, urgency: RecallClass, who: str, wanted: Range, waiter: Waiter | None
    ) -> Job:
        """Make the request, or join the one that is there."""
        job = self._jobs.get(ino)
        covered = (
            job is not None
            and job.urgency <= urgency
            and job.start <= wanted.start
            and wanted.end <= job.end
        )
        new = Job(ino, urgency, who, clock.now_ns(), wanted.start, wanted.end)
        storm = job is None and waiter is not None and waiter.slow
        left: Recall | None = None
        if not covered:
            async with self._catalog.write():
                left = self._write_down(new, storm=storm)
            crash.point("recall.request.committed")
            job = self._jobs.get(ino)
            if waiter is not None:
                new.urgency = waiter.urgency  # it may have become a storm meanwhile
        if job is not None:
            await self._merge(job, new.urgency, wanted, waiter)
            return job
        if waiter is not None:
            new.for_readers, new.slow = True, waiter.slow
            new.waiters.append(waiter)
        if left is not None:
            new.take_over(left)
        if self._begin(new) and self._nursery is not None:
            if new.slow and not storm:
                self._nursery.start_soon(self._forget_rows, [ino])
            await self._place(new)
        return new

    def _write_down(self, job: Job, *, storm: bool = False) -> Recall | None:
        """A request is put on record, as a row that outlives a crash; in a transaction.

        storm: it belongs to readers alone, and no row outlives them. Returns the row that was there
        before if nobody made a job of it yet.
        """
        ino, queues = job.ino, self._catalog.queues
        left = None if ino in self._jobs or ino in self._going else queues.recall(ino)
        if not storm:
            queues.join_recall(ino, job.urgency, job.requester, job.created_ns, job.start, job.end)
        self.note("file.recalled", job.requester, path_of(self._catalog, ino), ino=ino)
        return left

    def _begin(self, job: Job) -> bool:
        """A new request is written down: it is to be worked on. False: it waits as a row."""
        self._failures.forget(job.ino)
        if (attr := self._files.attr(job.ino)) is not None:
            self.asked(job.ino, attr.base_version, job.urgency, Range(job.start, job.end))
        if not job.waiters and self._put_off(job):
            return False
        self._jobs[job.ino] = job
        return True

    def _put_off(self, job: Job) -> bool:
        """Leave the request a row if there are many jobs already."""
        if not self._backlog.full(job.urgency) or job.ino in self._going:
            return False
        live = self._files.hold(job.ino)
        try:
            wanted = job.wanted(live)
            copy = self._copies.choose(job, live, wanted) if wanted is not None else None
        finally:
            self._files.drop(live)
        if copy is None:
            return False
        self._backlog.put_off(copy.where.volume, job.urgency)
        return True

    async def _merge(
        self, job: Job, urgency: RecallClass, wanted: Range, waiter: Waiter | None
    ) -> None:
        """One more request for a file that is being recalled."""
        job.urgency = min(job.urgency, urgency)
        job.start, job.end = min(job.start, wanted.start), max(job.end, wanted.end)
        job.for_readers = job.for_readers and waiter is not None
        if waiter is not None and waiter not in job.waiters:
            job.waiters.append(waiter)
        job.slow = job.slow and waiter is not None and waiter.slow
        job.beside = False
        queue = self.queue(job)
        if queue is not None:
            queue.refresh(job)
            self._press(queue)
        elif (not job.slow and self._slow.forget(job)) or (job.hot and self._pressure.forget(job)):
            await self._place(job)

    def _press(self, queue: VolumeQueue) -> None:
        self._mounts.press(queue.volume, **queue.demand)

    # From which disc

    async def _place(self, job: Job) -> None:
        """Queue the job at the disc that has what it needs next; end it if there is none."""
        if job.ended or self._nursery is None:
            return
        try:
            live = self._files.hold(job.ino)
        except PosixError:
            await self._end(job, None)
            return
        if job.beside:  # its own disc did not do, and no other one is fetched for it
            self._files.drop(live)
            await self._end(job, None)
            return
        try:
            wanted = job.wanted(live)
            if wanted is None:
                await self._end(job, None)
                return
            if self._pressure.must_wait(job, live):
                return
            copy = self._copies.choose(job, live, wanted)
            outside = copy if copy is not None and self._is_outside(copy) else None
            if copy is None or outside is not None:
                copy = self._parity.choose(job, live, wanted.start)
                if copy is not None and self._slow.must_wait(job, copy.where.volume):
                    self._slow.park(job, copy.where.volume)
                elif copy is not None:
                    self._parity.add(Work(job, copy))
                elif outside is not None:
                    await self._shelf.park(job, outside.where.volume)
                    live.wake()
                else:
                    await self._end(job, self._failures.no_copy_left(job, live))
                return
        finally:
            self._files.drop(live)
        if self._slow.must_wait(job, copy.where.volume):
            self._slow.park(job, copy.where.volume)
        else:
            self._enqueue(Work(job, copy))

    def _enqueue(self, work: Work) -> None:
        volume = work.part.volume
        work.job.volume = volume
        queue = self._queues.get(volume)
        if queue is None:
            queue = self._queues[volume] = VolumeQueue(volume)
            queue.add(work)
            assert self._nursery is not None
            self._nursery.start_soon(self._work, queue)
            self._nursery.start_soon(self._slow.released, volume)
        else:
            queue.add(work)
            self._press(queue)
        self.beside.queued(work.job, queue)

    async def _work(self, queue: VolumeQueue) -> None:
        await self._reading.run(queue)
        if self._queues.get(queue.volume) is queue:
            del self._queues[queue.volume]

    def _is_outside(self, copy: Copy) -> bool:
        volume = self._catalog.volumes.get(copy.where.volume)
        return volume is not None and volume.state is VolumeState.EXPORTED

    async def volume_back(self, volume: VolumeId) -> None:
        """A disc is in the library again: whoever waits for it is served."""
        for job in await self._shelf.unpark(volume):
            await self._place(job)
        self._backlog.look()

    async def refuse(self, volume: VolumeId, reason: str) -> int:
        """The operator will not bring the disc: its readers are told; how many recalls end."""
        error = self._shelf.refusal(volume, reason)
        jobs = await self._shelf.unpark(volume)
        for job in jobs:
            await self._end(job, error)
        return len(jobs)

    def wants(self, volume: VolumeId) -> bool:
        """Recalls are queued for the disc."""
        return volume in self._queues or volume in self._backlog

    def shelved(self, volume: VolumeId) -> list[Job]:
        """Recalls that wait until an operator brings the disc."""
        return self._shelf.waiting_for(volume)

    async def _end(self, job: Job, error: HsmError | None) -> None:
        """Nothing more will come: the row goes, and the readers are told."""
        await self._end_all([job], error)

    async def _end_all(self, jobs: Sequence[Job], error: HsmError | None) -> None:
        """As `_end`, for many in one transaction."""
        ending = [job for job in jobs if not job.ended]
        for job in ending:
            job.ended, job.error = True, error
            self._jobs.pop(job.ino, None)
            self._going.add(job.ino)
        for job in ending:
            await self._shelf.forget(job)
            self._slow.forget(job)
            self._pressure.ended(job)
            await self._leave_queue(job)
        if not ending:
            return
        crash.point("recall.end.before")
        await self._forget_rows([job.ino for job in ending])
        self._backlog.ended()
        crash.point("recall.end.committed")
        for job in ending:
            if error is not None:
                self._failures.note(job.ino, job.requester, error)
            else:
                self.came_in(job.ino)
            live = self._files.live(job.ino)
            if live is not None:
                live.wake()

    async def _leave_queue(self, job: Job) -> None:
        queue = self.queue(job)
        work = queue.get(job.ino) if queue is not None else None
        if queue is not None and work is not None and work.job is job:
            work.todo.clear()
            work.dead = True
            if not work.in_flight:
                queue.remove(work)
                if work.live is not None:
                    await self._reading.finish_beside(work)
            if not len(queue) and queue.session is None:
                queue.scope.cancel()

    # For admins

    def job(self, ino: InodeNo) -> Job | None:
        """The recall of a file that is under way."""
        return self._jobs.get(ino)

    def queue(self, job: Job) -> VolumeQueue | None:
        """The queue that the job waits in."""
        return self._queues.get(job.volume) if job.volume is not None else None

    def left(self) -> Mapping[VolumeId, tuple[int, int]]:
        """Bytes and files that are still to be read, by disc."""
        return self._why.left()

    def failure(self, ino: InodeNo) -> HsmError | None:
        """Why the last recall of a file failed, until it is asked for again."""
        return self._failures.get(ino)

    def why(self, ino: InodeNo) -> dict[str, Any]:
        """Why a file is not there yet, or why its last recall failed; plain values."""
        job = self._jobs.get(ino)
        if job is not None:
            return self._why.job(job) | self._shelf.why(job)
        error, row = self._failures.get(ino), self._catalog.queues.recall(ino)
        if row is not None:
            return self._why.row(row)
        if error is None:
            return {"state": "no recall"}
        return {"state": "failed", "error": error.message, "next_step": error.next_step}
