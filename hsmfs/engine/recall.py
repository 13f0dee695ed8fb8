"""Recalls: from a request to verified bytes on disk, one queue a disc.

Requests are rows of the catalog, so they outlive a crash; a restart drops those that are done.
Nothing is filled in before its chunk's checksum passed; a copy that fails is marked and the next
one is tried, until none is left. Relies on Mounts for discs and on Files for the bytes' place.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import trio

from .. import clock, crash, logs
from ..catalog.catalog import Catalog
from ..catalog.copies import Copy
from ..catalog.queues import RecallClass
from ..catalog.reports import Query
from ..config import Config
from ..disc.reader import read_chunk
from ..errors import (
    Conflict,
    DriveError,
    HsmError,
    PosixError,
    RecallCancelled,
    RecallFailed,
    RecallTimeout,
    UnreadableSector,
)
from ..states import FileState, VolumeState
from ..types import CHUNK, InodeNo, Range, Requester, VolumeId
from . import eta
from .events import Events
from .files import Files
from .live import Live
from .mounts import Mounts
from .ranges import overlap
from .recall_queue import Job, VolumeQueue, Work
from .room import Room
from .schedule import Purpose
from .session import Session
from .waiters import Waiter, Waiters, WaiterView

log = logs.get(__name__)

SAVE_BYTES = 64 * 1024 * 1024
"""What came in of a large file is made durable this often."""
FINISHERS = 16
"""Files whose last bytes are being made durable at once."""
REWRITE_SECONDS = 1.0
"""A file overwritten in part is completed this long after its first write."""


@dataclass(slots=True)
class _Piece:
    work: Work
    index: int
    sector: int
    data: bytes


class Recaller:
    """Brings bytes back from discs.

    Attributes:
        waiting: the readers that are blocked.
    """

    def __init__(
        self,
        catalog: Catalog,
        files: Files,
        mounts: Mounts,
        events: Events,
        config: Config,
        *,
        gone: Callable[[int], bool] | None = None,
    ) -> None:
        self._catalog, self._files, self._mounts = catalog, files, mounts
        self._events, self._config = events, config
        self.waiting = Waiters(gone)
        self._room = Room(files)
        self._jobs: dict[InodeNo, Job] = {}
        self._queues: dict[VolumeId, VolumeQueue] = {}
        self._failed: dict[InodeNo, HsmError] = {}
        self._nursery: trio.Nursery | None = None
        self._finishers = trio.Semaphore(FINISHERS)
        self._rewritten: set[InodeNo] = set()
        self._some_rewritten = trio.Event()
        library = config.library
        self._speeds = eta.Speeds(
            library.exchange, library.load, library.seek, library.read_rate
        )
        files.wait_for = self.wait
        files.rewritten = self._note_rewritten

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve requests for ever, those of the last run first."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await self._resume()
                nursery.start_soon(self.waiting.watch)
                nursery.start_soon(self._complete_rewritten)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            for queue in self._queues.values():
                for work in queue.works():
                    self._put_down(work)
            self._queues.clear()

    async def _resume(self) -> None:
        """Take up the rows of the catalog; what is on disk already is dropped from them."""
        after = 0
        while rows := self._catalog.queues.recalls(after):
            for row in rows:
                job = self._jobs.get(row.ino) or Job(
                    row.ino, row.urgency, row.requester, row.created_ns, row.start, row.end,
                    for_readers=False,
                )  # fmt: skip
                self._jobs[row.ino] = job
                await self._place(job)
                await trio.lowlevel.checkpoint()
            after = rows[-1].ino
        partial = await self._catalog.read(
            lambda reports: [
                attr.ino
                for attr in reports.files(Query(states=(FileState.PARTIAL,)))
                if attr.version != attr.base_version
            ]
        )
        for ino in partial:
            await self.request(ino, RecallClass.BULK, "rewritten in part")

    # Requests

    async def wait(self, ino: InodeNo, wanted: Range, who: Requester) -> None:
        """Return when the range is on disk: how `Files` waits for it.

        Raises RecallFailed, RecallTimeout after fs.wait_limit, RecallCancelled, PoolFull, or
        PosixError EAGAIN if fs.max_waiters wait already.
        """
        if len(self.waiting) >= self._config.fs.max_waiters:
            raise PosixError(errno.EAGAIN, "too many readers wait for discs")
        live = self._files.hold(ino)
        waiter = Waiter(ino, wanted, who, live, clock.now_ns())
        self.waiting.add(waiter)
        try:
            with trio.move_on_after(self._config.fs.wait_limit):
                await self._wait(waiter)
                return
            limit = self._config.fs.wait_limit
            raise RecallTimeout(f"inode {ino} did not come from its disc within {limit:.0f} s")
        finally:
            self.waiting.remove(waiter)
            self._leave(waiter)
            self._files.drop(live)

    async def _wait(self, waiter: Waiter) -> None:
        live, job = waiter.live, None
        while True:
            arrived = live.arrived
            if not overlap(live.absent, waiter.range):
                return
            if waiter.error is not None:
                raise waiter.error
            if job is not None and job.ended and job.error is not None:
                raise _again(job.error)
            if job is None or job.ended:
                size = live.attr.size
                job = await self._join(
                    waiter.ino, RecallClass.INTERACTIVE, str(waiter.who), Range(0, size), waiter
                )
                continue
            await arrived.wait()

    def _leave(self, waiter: Waiter) -> None:
        """A reader has what it wanted, or gave up."""
        job = self._jobs.get(waiter.ino)
        if job is None or waiter not in job.waiters:
            return
        job.waiters.remove(waiter)
        queue = self._queues.get(job.volume) if job.volume is not None else None
        if queue is not None:
            queue.refresh(job, job.urgency)
        nobody = not job.waiters and job.for_readers
        if nobody and queue is not None and queue.session is None and not job.ended:
            work = queue.get(job.ino)
            if work is not None and work.live is None:
                log.info("recall dropped", ino=job.ino, requester=job.requester)
                self._drop_soon(job, queue, work)

    def _drop_soon(self, job: Job, queue: VolumeQueue, work: Work) -> None:
        queue.remove(work)
        self._jobs.pop(job.ino, None)
        job.ended, job.error = True, RecallCancelled(f"nobody waits for inode {job.ino} any more")
        if not len(queue):
            queue.scope.cancel()
        else:
            self._press(queue)
        if self._nursery is not None:
            self._nursery.start_soon(self._forget_row, job.ino)

    async def _forget_row(self, ino: InodeNo) -> None:
        async with self._catalog.write():
            if ino not in self._jobs:
                self._catalog.queues.end_recall(ino)

    async def request(
        self, ino: InodeNo, urgency: RecallClass, who: str, range: Range | None = None
    ) -> bool:
        """Ask for a file or a range of it; returns at once. False if it is on disk already.

        Raises PosixError ENOENT.
        """
        live = self._files.hold(ino)
        try:
            wanted = range or Range(0, live.attr.size)
            if not overlap(live.absent, wanted):
                return False
            await self._join(ino, urgency, who, wanted, None)
            return True
        finally:
            self._files.drop(live)

    async def cancel(self, ino: InodeNo) -> bool:
        """End the recall of a file; its readers get RecallCancelled. False if there is none."""
        job = self._jobs.get(ino)
        if job is None:
            return False
        await self._end(job, RecallCancelled(f"the recall of inode {ino} was cancelled"))
        return True

    async def _join(
        self, ino: InodeNo, urgency: RecallClass, who: str, wanted: Range, waiter: Waiter | None
    ) -> Job:
        """Make the request, or join the one that is there."""
        job = self._jobs.get(ino)
        now = clock.now_ns()
        covered = (
            job is not None
            and job.urgency <= urgency
            and job.start <= wanted.start
            and wanted.end <= job.end
        )
        if not covered:
            async with self._catalog.write():
                self._catalog.queues.join_recall(ino, urgency, who, now, wanted.start, wanted.end)
            crash.point("recall.request.committed")
            job = self._jobs.get(ino)
        if job is None:
            job = Job(
                ino, urgency, who, now, wanted.start, wanted.end, for_readers=waiter is not None
            )
            self._jobs[ino] = job
            self._failed.pop(ino, None)
            if waiter is not None:
                job.waiters.append(waiter)
            if self._nursery is not None:
                await self._place(job)
            return job
        before = job.urgency
        job.urgency = min(job.urgency, urgency)
        job.start, job.end = min(job.start, wanted.start), max(job.end, wanted.end)
        job.for_readers = job.for_readers and waiter is not None
        if waiter is not None and waiter not in job.waiters:
            job.waiters.append(waiter)
        queue = self._queues.get(job.volume) if job.volume is not None else None
        if queue is not None:
            queue.refresh(job, before)
            self._press(queue)
        return job

    def _press(self, queue: VolumeQueue) -> None:
        self._mounts.press(queue.volume, queue.urgency, queue.bytes)

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
        try:
            wanted = job.wanted(live)
            if wanted is None:
                await self._end(job, None)
                return
            copy = self._choose(job, live, wanted)
            if copy is None:
                await self._end(job, self._no_copy_left(job, live))
                return
        finally:
            self._files.drop(live)
        self._enqueue(Work(job, copy))

    def _enqueue(self, work: Work) -> None:
        volume = work.part.volume
        work.job.volume = volume
        queue = self._queues.get(volume)
        if queue is None:
            queue = self._queues[volume] = VolumeQueue(volume)
            queue.add(work)
            assert self._nursery is not None
            self._nursery.start_soon(self._run_volume, queue)
        else:
            queue.add(work)
            self._press(queue)

    def _choose(self, job: Job, live: Live, wanted: Range) -> Copy | None:
        """A part that holds the first wanted byte: in a drive first, then a healthy disc."""
        found = [
            copy
            for copy in self._catalog.copies.readable(job.ino, live.attr.base_version)
            if copy.id not in job.bad
            and copy.where.offset <= wanted.start < copy.where.offset + copy.where.length
        ]
        if len(found) < 2:
            return found[0] if found else None
        return min(found, key=self._preference)

    def _preference(self, copy: Copy) -> tuple[bool, bool, bool, int]:
        volume = self._catalog.volumes.get(copy.where.volume)
        assert volume is not None
        return (
            volume.state is VolumeState.EXPORTED,
            volume.state is not VolumeState.FULL,
            self._mounts.drive_with(volume.id) is None,
            copy.copy_no,
        )

    def _no_copy_left(self, job: Job, live: Live) -> RecallFailed:
        """Names each disc, what is wrong with it, and what to do."""
        faults = list(job.faults)
        for copy in self._catalog.copies.of(job.ino, live.attr.base_version):
            volume = self._catalog.volumes.get(copy.where.volume)
            if volume is None or copy.id in job.bad:
                continue
            state = volume.state.name.lower()
            if volume.state is VolumeState.FULL:
                state = f"copy {copy.state.name.lower()}"
            faults.append(f"disc {volume.barcode}: {state} {volume.reason}".rstrip())
        what = "; ".join(faults) or "it has no copy"
        return RecallFailed(
            f"no copy of inode {job.ino} version {live.attr.base_version} can be read: {what}",
            next_step="bring a disc back or repair one (see 'hsmctl volume'), then read again",
        )

    async def _end(self, job: Job, error: HsmError | None) -> None:
        """Nothing more will come: the row goes, and the readers are told."""
        if job.ended:
            return
        job.ended, job.error = True, error
        self._jobs.pop(job.ino, None)
        queue = self._queues.get(job.volume) if job.volume is not None else None
        work = queue.get(job.ino) if queue is not None else None
        if queue is not None and work is not None and work.job is job:
            work.todo.clear()
            work.dead = True
            if not work.in_flight:
                queue.remove(work)
                if work.live is not None:
                    await self._finish_beside(work)
            if not len(queue) and queue.session is None:
                queue.scope.cancel()
        crash.point("recall.end.before")
        await self._forget_row(job.ino)
        crash.point("recall.end.committed")
        if error is not None:
            self._note_failure(job, error)
        live = self._files.live(job.ino)
        if live is not None:
            live.wake()

    def _note_failure(self, job: Job, error: HsmError) -> None:
        self._failed[job.ino] = error
        while len(self._failed) > 1000:
            self._failed.pop(next(iter(self._failed)))
        if not isinstance(error, RecallCancelled):
            log.error("recall failed", ino=job.ino, requester=job.requester, error=error.message)
        self._events.emit(
            "recall_failed", ino=job.ino, requester=job.requester, error=error.message,
            next_step=error.next_step,
        )  # fmt: skip

    # One disc

    async def _run_volume(self, queue: VolumeQueue) -> None:
        """Keep a claim on the disc as long as there is work for it."""
        while len(queue):
            fault: HsmError | None = None
            with trio.CancelScope() as queue.scope:
                try:
                    await self._one_session(queue)
                except Conflict:
                    await trio.sleep(self._config.engine.recall_retry_wait)
                except HsmError as error:
                    fault = error
                finally:
                    queue.session = None
            if fault is not None:
                queue.retries += 1
                again = isinstance(fault, _SessionBroken)
                if not again or queue.retries > self._config.engine.recall_retries:
                    await self._disc_failed(queue, fault)
        if self._queues.get(queue.volume) is queue:
            del self._queues[queue.volume]

    async def _one_session(self, queue: VolumeQueue) -> None:
        async with self._mounts.use(
            queue.volume, Purpose.READ, urgency=queue.urgency, bytes=queue.bytes, who="recall"
        ) as session:
            queue.session = session
            while len(queue) and not session.wanted_elsewhere:
                if not await self._stream(queue, session):
                    break

    async def _disc_failed(self, queue: VolumeQueue, error: HsmError) -> None:
        """The disc cannot be had: everything that waits for it tries its next copy."""
        queue.retries = 0
        for work in queue.works():
            queue.remove(work)
            await self._fault(work, error)
            if work.live is not None:
                await self._finish_beside(work)
            else:
                await self._place(work.job)
            await trio.lowlevel.checkpoint()

    async def _fault(self, work: Work, error: HsmError) -> None:
        job = work.job
        volume = self._catalog.volumes.get(work.part.volume)
        name = volume.barcode if volume else work.part.volume
        text = f"copy {work.copy.copy_no} on disc {name}: {error.message}"
        job.bad.add(work.copy.id)
        job.faults.append(text)
        async with self._catalog.write():
            self._catalog.queues.fail_attempt(job.ino, text)

    async def _stream(self, queue: VolumeQueue, session: Session) -> bool:
        """Read until there is nothing more to read or others want the drive; False if nothing was.

        The next chunk is read while the last one is checked and written.
        """
        send, receive = trio.open_memory_channel[_Piece](1)
        broken: HsmError | None = None
        did = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._take_in, receive, queue, session)
            async with send:
                while not session.wanted_elsewhere:
                    work = queue.next_work()
                    if work is None:
                        break
                    did = True
                    if work.live is None:
                        await self._pick_up(work, queue)
                        continue
                    index = queue.chose(work)
                    sector, count = work.take(index)
                    try:
                        data = await session.read(sector, count)
                    except UnreadableSector as error:
                        work.in_flight -= 1
                        await self._copy_failed(work, queue, error)
                    except HsmError as error:
                        work.in_flight -= 1
                        work.todo.add(index)
                        broken = error
                        break
                    else:
                        await send.send(_Piece(work, index, sector, data))
        if broken is not None:
            raise _SessionBroken(broken.message) from broken
        return did

    async def _pick_up(self, work: Work, queue: VolumeQueue) -> None:
        """Begin with a file: hold it, see what is missing and reserve the room for it."""
        job = work.job
        try:
            live = self._files.hold(job.ino)
        except PosixError:
            queue.remove(work)
            await self._end(job, None)
            return
        digest = self._catalog.copies.digest(job.ino, work.version)
        if digest is None or live.attr.base_version != work.version:
            queue.remove(work)
            self._files.drop(live)
            if digest is None:
                await self._fault(work, HsmError("the catalog has no checksums of it"))
            await self._place(job)
            return
        need = work.plan(live, digest)
        work.began = trio.current_time()
        try:
            error: HsmError | None = await self._room.reserve(live, need)
        except (OSError, HsmError) as fault:
            error = _ours(fault)
        if error is not None:
            await self._end(job, error)
            return
        work.reserved = need
        if not work.todo or job.ended:
            await self._done(work, queue)

    async def _take_in(
        self,
        receive: trio.MemoryReceiveChannel[_Piece],
        queue: VolumeQueue,
        session: Session,
    ) -> None:
        """Check, write and hand out what was read."""
        async with receive:
            async for piece in receive:
                await self._take_piece(piece, queue, session)

    async def _take_piece(self, piece: _Piece, queue: VolumeQueue, session: Session) -> None:
        work = piece.work
        live, digest = work.live, work.digest
        assert live is not None and digest is not None
        filled = False
        try:
            if not work.dead:
                plain = await clock.blocking(
                    lambda: read_chunk(
                        work.part, piece.index, digest, lambda sector, count: piece.data
                    ),
                    clock.HASH,
                )
                crash.point("recall.chunk.verified")
                filled = await self._files.fill(live, work.version, piece.index * CHUNK, plain)
                work.read += len(plain)
                work.unsaved += len(plain)
        except UnreadableSector as error:
            work.in_flight -= 1
            await session.accuse(error)
            await self._copy_failed(work, queue, error)
            return
        except (OSError, HsmError) as error:
            work.in_flight -= 1
            await self._end(work.job, _ours(error))
            return
        work.in_flight -= 1
        if not filled:
            # Overwritten, truncated or unlinked meanwhile: what is left is looked at anew.
            work.todo.clear()
        elif work.unsaved >= SAVE_BYTES and work.todo:
            work.unsaved = 0
            try:
                await self._files.save_ranges(live)
            except (OSError, HsmError) as error:
                await self._end(work.job, _ours(error))
                return
        if not work.todo and not work.in_flight:
            await self._done(work, queue)

    async def _copy_failed(self, work: Work, queue: VolumeQueue, error: UnreadableSector) -> None:
        """These bytes cannot be had from this copy: it is marked, and the next one is tried."""
        if not work.dead:
            work.dead = True
            work.todo.clear()
            await self._fault(work, error)
            async with self._catalog.write():
                self._catalog.copies.damage(work.copy.id)
            crash.point("recall.copy.damaged")
        if not work.in_flight:
            await self._done(work, queue)

    async def _done(self, work: Work, queue: VolumeQueue) -> None:
        """Nothing more is wanted of this part; the rest happens beside the reading."""
        if queue.get(work.job.ino) is not work:
            return
        queue.remove(work)
        await self._finish_beside(work)

    async def _finish_beside(self, work: Work) -> None:
        await self._finishers.acquire()
        assert self._nursery is not None
        self._nursery.start_soon(self._finish, work)

    async def _finish(self, work: Work) -> None:
        live, job = work.live, work.job
        assert live is not None
        try:
            await self._files.save_ranges(live)
            crash.point("recall.file.saved")
            if work.read:
                self._tell(work)
        except (OSError, HsmError) as error:
            await self._end(job, _ours(error))
        finally:
            self._put_down(work)
            self._finishers.release()
        await self._place(job)

    def _put_down(self, work: Work) -> None:
        live, work.live = work.live, None
        if live is not None:
            self._room.give_back(live, work.reserved)
            work.reserved = 0
            self._files.drop(live)

    def _tell(self, work: Work) -> None:
        volume = self._catalog.volumes.get(work.part.volume)
        fields: dict[str, Any] = {
            "ino": work.job.ino,
            "volume": volume.barcode if volume else work.part.volume,
            "sector": work.part.sector,
            "sectors": -(-work.part.stored // 2048),
            "bytes": work.read,
            "seconds": trio.current_time() - work.began,
            "requester": work.job.requester,
        }
        log.info("recalled", **fields)
        self._events.emit("recalled", **fields)

    # Files overwritten in part

    def _note_rewritten(self, ino: InodeNo) -> None:
        self._rewritten.add(ino)
        self._some_rewritten.set()

    async def _complete_rewritten(self) -> None:
        """Their rest is fetched, so that the new version can be archived."""
        while True:
            await self._some_rewritten.wait()
            await trio.sleep(REWRITE_SECONDS)
            self._some_rewritten = trio.Event()
            inos, self._rewritten = self._rewritten, set()
            for ino in inos:
                try:
                    await self.request(ino, RecallClass.BULK, "rewritten in part")
                except PosixError:
                    continue  # unlinked meanwhile

    # What admins ask

    def waiters(self) -> list[WaiterView]:
        """Readers that are blocked, the oldest first."""
        return [self._waiter_view(waiter) for waiter in self.waiting]

    def _waiter_view(self, waiter: Waiter) -> WaiterView:
        job = self._jobs.get(waiter.ino)
        who = waiter.who
        return WaiterView(
            waiter.ino, waiter.range.start, waiter.range.end, who.pid, who.uid, who.process,
            waiter.since_ns, self._barcode(job), self._seconds(job) if job else None,
        )  # fmt: skip

    def fail_waiters(self, which: Callable[[Waiter], bool], number: int = errno.EIO) -> int:
        """End the waits that match with an errno; how many there were."""
        return self.waiting.fail(which, number)

    def why(self, ino: InodeNo) -> dict[str, Any]:
        """Why a file is not there yet, or why its last recall failed; plain values."""
        job = self._jobs.get(ino)
        if job is None:
            error = self._failed.get(ino)
            if error is None:
                return {"state": "no recall"}
            return {"state": "failed", "error": error.message, "next_step": error.next_step}
        queue = self._queues.get(job.volume) if job.volume is not None else None
        ahead, active = self._mounts.place(job.volume) if job.volume is not None else (0, False)
        reading = queue is not None and queue.session is not None
        return {
            "state": "reading" if reading else "mounting" if active else "queued",
            "class": job.urgency.name.lower(),
            "requester": job.requester,
            "since_ns": job.created_ns,
            "volume": self._barcode(job),
            "drive": self._mounts.drive_with(job.volume) if job.volume is not None else None,
            "discs_ahead": ahead,
            "files_on_disc": len(queue) if queue is not None else 0,
            "expected_s": self._seconds(job),
            "waiters": len(job.waiters),
            "faults": list(job.faults),
            "robot": self._mounts.robot_care.trouble or "ready",
        }

    def _barcode(self, job: Job | None) -> str | None:
        if job is None or job.volume is None:
            return None
        volume = self._catalog.volumes.get(job.volume)
        return volume.barcode if volume else None

    def _seconds(self, job: Job) -> float | None:
        queue = self._queues.get(job.volume) if job.volume is not None else None
        if queue is None:
            return None
        before = sum(1 for work in queue.works() if work.job.created_ns < job.created_ns)
        ahead, _ = self._mounts.place(queue.volume)
        size = CHUNK if job.waiters else job.end - job.start
        others = (q for q in self._queues.values() if q is not queue)
        return eta.expected(
            self._speeds,
            size=size,
            in_drive=self._mounts.drive_with(queue.volume) is not None,
            before_on_disc=before * CHUNK if job.waiters else queue.bytes,
            discs_before=ahead,
            bytes_before=sum(q.bytes for q in others),
            drives=self._mounts.drives_up,
            run_cap=self._config.engine.run_cap,
        )


class _SessionBroken(DriveError):
    """The drive failed in the middle: the disc is asked for again, and comes in another drive."""


def _ours(error: OSError | HsmError) -> HsmError:
    """An error of the pool as one of ours."""
    if isinstance(error, HsmError):
        return error
    return PosixError(error.errno or errno.EIO, f"the pool failed: {error}")


def _again(error: HsmError) -> HsmError:
    """The same error for one more reader: an exception object belongs to one task."""
    if isinstance(error, PosixError):
        return PosixError(error.number, error.message)
    return type(error)(error.message, next_step=error.next_step)
