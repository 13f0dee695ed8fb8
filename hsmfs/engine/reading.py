"""Reading one disc: chunks in a pipeline, each checked before it is filled in.

The next chunks are read while the last ones are hashed and written; what fails is marked and sent
to the next copy. Small files that lie together on the disc are read at once, checked and written in
one thread call, and made durable by one sync. Which file comes from which disc is the recaller's
choice.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import trio

from .. import crash, logs
from ..catalog.catalog import Catalog
from ..config import Config
from ..disc.reader import Bytes, read_chunk
from ..errors import Conflict, DriveError, HsmError, PoolFull, PosixError, UnreadableSector
from ..types import CHUNK, SECTOR, VolumeId
from .ahead import GAP, MOST, Ahead
from .backpressure import Backpressure
from .events import Events
from .files import Files
from .incoming import Incoming, take
from .mounts import Mounts
from .recall_queue import Job, VolumeQueue, Work
from .room import Room
from .schedule import Purpose
from .session import Session

log = logs.get(__name__)

SAVE_BYTES = 64 * 1024 * 1024
"""What came in of a large file is made durable this often."""
CHECKERS = 2
"""Reads of one disc that are checked and written at once, while the next one is done."""
FILES = 64
"""Pieces that are read at once, or files that are told of in one step: each takes some time."""
UNSAVED = 2048
"""Files whose last bytes may wait to be made durable together."""
LINGER = 0.05
"""Seconds that a disc is kept ready for more after its last read; while it is looked for what lies
beside, until that is over."""


@dataclass(slots=True)
class _Piece:
    work: Work
    index: int
    sector: int
    count: int
    data: Bytes = b""


class DiscReading:
    """Works the queues of discs; one `run` a queue.

    Attributes:
        config: in force now.
        nursery: set while the recaller runs; files are finished in it, beside the reading.
    """

    def __init__(
        self,
        catalog: Catalog,
        files: Files,
        mounts: Mounts,
        events: Events,
        config: Config,
        *,
        room: Room,
        pressure: Backpressure,
        place: Callable[[Job], Awaitable[None]],
        end_all: Callable[[Sequence[Job], HsmError | None], Awaitable[None]],
        put_aside: Callable[[VolumeQueue], Awaitable[None]],
    ) -> None:
        self._catalog, self._files, self._mounts = catalog, files, mounts
        self._events, self.config = events, config
        self._room, self._pressure = room, pressure
        self._place, self._end_all, self._put_aside = place, end_all, put_aside
        self._unsaved = trio.Semaphore(UNSAVED)
        self._ended: list[Work] = []
        self._finishing = False
        self.nursery: trio.Nursery | None = None

    async def run(self, queue: VolumeQueue) -> None:
        """Keep a claim on the disc as long as there is work for it."""
        while len(queue):
            fault: HsmError | None = None
            with trio.CancelScope() as queue.scope:
                try:
                    await self._one_session(queue)
                except Conflict:
                    await trio.sleep(self.config.engine.recall_retry_wait)
                except HsmError as error:
                    fault = error
                finally:
                    queue.session = None
            await self._put_aside(queue)
            if fault is not None:
                queue.retries += 1
                again = isinstance(fault, _SessionBroken)
                if not again or queue.retries > self.config.engine.recall_retries:
                    await self._disc_failed(queue, fault)

    async def _one_session(self, queue: VolumeQueue) -> None:
        async with self._mounts.use(
            queue.volume, Purpose.READ, who="recall", since=queue.since, **queue.demand
        ) as session:
            queue.session, ahead = session, Ahead(session)
            while await self._stream(queue, session, ahead) and not session.wanted_elsewhere:
                pass

    async def _disc_failed(self, queue: VolumeQueue, error: HsmError) -> None:
        """The disc cannot be had: everything that waits for it tries its next copy."""
        queue.retries = 0
        for work in queue.works():
            queue.remove(work)
            await self._fault(work, error)
            if work.live is not None:
                await self.finish_beside(work)
            else:
                await self._place(work.job)
            await trio.lowlevel.checkpoint()

    async def _fault(self, work: Work, error: HsmError) -> None:
        job = work.job
        disc = self._barcode(work.part.volume)
        text = f"copy {work.copy.copy_no} on disc {disc}: {error.message}"
        job.bad.add(work.copy.id)
        job.faults.append(text)
        async with self._catalog.write():
            self._catalog.queues.fail_attempt(job.ino, text)

    async def _stream(self, queue: VolumeQueue, session: Session, ahead: Ahead) -> bool:
        """Read until there is nothing more to read or others want the drive; False if nothing was.

        The next chunks are read while the last ones are checked and written.
        """
        send, receive = trio.open_memory_channel[list[_Piece]](1)
        broken: HsmError | None = None
        did = False
        async with trio.open_nursery() as nursery:
            for _ in range(CHECKERS):
                nursery.start_soon(self._take_in, receive.clone(), queue, session)
            receive.close()
            async with send:
                # At least one read a session, so that two who want the drive both get on.
                while not (did and session.wanted_elsewhere):
                    pieces = await self._gather(queue)
                    if not pieces:
                        if did and await queue.more(LINGER):
                            continue
                        if did and queue.coming:
                            continue
                        break
                    did = True
                    try:
                        pieces = await self._read(queue, session, ahead, pieces)
                    except HsmError as error:
                        broken = error
                        break
                    if pieces:
                        await send.send(pieces)
        if broken is not None:
            raise _SessionBroken(broken.message) from broken
        return did

    async def _gather(self, queue: VolumeQueue) -> list[_Piece]:
        """The chunk to read next, and those behind it that are wanted next and lie there too."""
        pieces: list[_Piece] = []
        while (work := queue.next_work()) is not None:
            if work.live is None:
                await self._pick_up(work, queue)
                continue
            index = queue.chose(work)
            sector, count = work.place(index)
            if len(pieces) >= FILES:
                break
            if pieces:
                end = pieces[-1].sector + pieces[-1].count
                near = end <= sector <= end + GAP
                if not near or sector + count - pieces[0].sector > MOST:
                    break
            work.take(index)
            pieces.append(_Piece(work, index, sector, count))
        return pieces

    async def _read(
        self, queue: VolumeQueue, session: Session, ahead: Ahead, pieces: list[_Piece]
    ) -> list[_Piece]:
        """Read the pieces, at once if that goes; those that were had.

        Raises DriveError with all of them still to be read.
        """
        left, had = list(pieces), list[_Piece]()
        try:
            if len(pieces) > 1 and await self._read_together(session, pieces):
                return pieces
            while left:
                good = await self._read_one(queue, ahead, left[0])
                piece = left.pop(0)
                if good:
                    had.append(piece)
        except HsmError:
            for piece in (*had, *left):
                piece.work.in_flight -= 1
                piece.work.todo.add(piece.index)
            raise
        return had

    async def _read_together(self, session: Session, pieces: list[_Piece]) -> bool:
        first = pieces[0].sector
        count = pieces[-1].sector + pieces[-1].count - first
        try:
            data = memoryview(await session.test(first, count))
        except UnreadableSector:
            return False  # whose sector that is, and who is to blame, is told by each one's own
        for piece in pieces:
            start = (piece.sector - first) * SECTOR
            piece.data = data[start : start + piece.count * SECTOR]
        return True

    async def _read_one(self, queue: VolumeQueue, ahead: Ahead, piece: _Piece) -> bool:
        try:
            piece.data = await ahead.read(piece.sector, piece.count)
        except UnreadableSector as error:
            piece.work.in_flight -= 1
            await self._copy_failed(piece.work, queue, error)
            return False
        return True

    async def _pick_up(self, work: Work, queue: VolumeQueue) -> None:
        """Begin with a file: hold it, see what is missing and reserve the room for it."""
        job = work.job
        await self._catalog.settled()
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
        if self._pressure.must_wait(job, live):
            queue.remove(work)
            self._files.drop(live)
            await trio.lowlevel.checkpoint()
            return
        need = work.plan(live, digest)
        work.began = trio.current_time()
        try:
            error: HsmError | None = await self._room.reserve(live, need, order=not job.waiters)
        except (OSError, HsmError) as fault:
            error = _ours(fault)
        if error is not None:
            if self._pressure.hold(job, live, error):
                queue.remove(work)
                self.put_down(work)
                await trio.lowlevel.checkpoint()
            else:
                await self._end(job, None if job.beside and isinstance(error, PoolFull) else error)
            return
        work.reserved = need
        if not work.todo or job.ended:
            await self._done(work, queue)
            await trio.lowlevel.checkpoint()

    async def _take_in(
        self,
        receive: trio.MemoryReceiveChannel[list[_Piece]],
        queue: VolumeQueue,
        session: Session,
    ) -> None:
        """Check, write and hand out what was read."""
        async with receive:
            async for pieces in receive:
                coming = [_incoming(piece) for piece in pieces]
                wanted = [
                    x for x, piece in zip(coming, pieces, strict=True) if not piece.work.dead
                ]
                await self._files.fill_many(wanted)
                for x, piece in zip(coming, pieces, strict=True):
                    piece.work.in_flight -= 1
                    await self._took(x, piece.work, queue, session)

    async def _took(
        self, piece: Incoming, work: Work, queue: VolumeQueue, session: Session
    ) -> None:
        """A piece was brought in, or not."""
        if isinstance(piece.fault, UnreadableSector):
            await session.accuse(piece.fault)
            await self._copy_failed(work, queue, piece.fault)
            return
        if piece.fault is not None:
            await self._end(work.job, _ours(piece.fault))
            return
        if piece.filled:
            work.read += piece.length
            work.unsaved += piece.length
        else:
            # Overwritten, truncated or unlinked meanwhile: what is left is looked at anew.
            work.todo.clear()
        if work.unsaved >= SAVE_BYTES and work.todo:
            work.unsaved = 0
            try:
                await self._files.save_ranges(piece.live)
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
        await self.finish_beside(work)

    async def finish_beside(self, work: Work) -> None:
        """Make durable what came of a file; those that end meanwhile go together."""
        await take(self._unsaved)
        self._ended.append(work)
        if not self._finishing:
            assert self.nursery is not None
            self._finishing = True
            self.nursery.start_soon(self._finish_all)

    async def _finish_all(self) -> None:
        try:
            while self._ended:
                works, self._ended = self._ended, []
                await self._finish(works)
        finally:
            self._finishing = False
            works, self._ended = self._ended, []
            self._let_go(works)

    def _let_go(self, works: list[Work]) -> None:
        for work in works:
            self.put_down(work)
            self._unsaved.release()

    async def _finish(self, works: list[Work]) -> None:
        lives = [work.live for work in works if work.live is not None]
        failed: list[Job] = []
        barcodes = {volume: self._barcode(volume) for volume in {w.part.volume for w in works}}
        try:
            faults = await self._files.save_many(lives)
            crash.point("recall.file.saved")
            for number, work in enumerate(works):
                fault = faults.get(work.job.ino)
                if fault is not None:
                    failed.append(work.job)
                    await self._end(work.job, _ours(fault))
                elif work.read:
                    self._tell(work, barcodes[work.part.volume])
                if not number % FILES:
                    await trio.lowlevel.checkpoint()
            jobs = [work.job for work in works if work.job not in failed]
            await self._end_all([job for job in jobs if self._has_all(job)], None)
        finally:
            self._let_go(works)
        for job in jobs:
            if not job.ended:
                await self._place(job)

    def _has_all(self, job: Job) -> bool:
        try:
            live = self._files.hold(job.ino)
        except PosixError:
            return True  # it is gone
        try:
            return job.wanted(live) is None
        finally:
            self._files.drop(live)

    async def _end(self, job: Job, error: HsmError | None) -> None:
        await self._end_all([job], error)

    def put_down(self, work: Work) -> None:
        live, work.live = work.live, None
        if live is not None:
            self._room.give_back(live, work.reserved, work.read)
            work.reserved = 0
            self._files.drop(live)

    def _barcode(self, number: VolumeId) -> str | int:
        volume = self._catalog.volumes.get(number)
        return volume.barcode if volume else number

    def _tell(self, work: Work, disc: str | int) -> None:
        fields: dict[str, Any] = {
            "ino": work.job.ino,
            "volume": disc,
            "sector": work.part.sector,
            "sectors": -(-work.part.stored // SECTOR),
            "bytes": work.read,
            "seconds": round(trio.current_time() - work.began, 3),
            "requester": work.job.requester,
        }
        log.info("recalled", **fields)
        self._events.emit("recalled", **fields)


def _incoming(piece: _Piece) -> Incoming:
    work = piece.work
    live, digest = work.live, work.digest
    assert live is not None and digest is not None

    def make() -> Bytes:
        return read_chunk(work.part, piece.index, digest, lambda sector, count: piece.data)

    return Incoming(live, work.version, piece.index * CHUNK, make)


class _SessionBroken(DriveError):
    """The drive failed in the middle: the disc is asked for again, and comes in another drive."""


def _ours(error: OSError | HsmError) -> HsmError:
    """An error of the pool as one of ours."""
    if isinstance(error, HsmError):
        return error
    return PosixError(error.errno or errno.EIO, f"the pool failed: {error}")
