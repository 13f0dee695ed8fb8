"""Reading one disc: chunks in a pipeline, each checked before it is filled in.

The next chunk is read while the last one is hashed and written; what fails is marked and sent to
the next copy. Which file comes from which disc is the recaller's choice.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import trio

from .. import clock, crash, logs
from ..catalog.catalog import Catalog
from ..config import Config
from ..disc.reader import read_chunk
from ..errors import Conflict, DriveError, HsmError, PosixError, UnreadableSector
from ..types import CHUNK, SECTOR
from .events import Events
from .files import Files
from .mounts import Mounts
from .recall_queue import Job, VolumeQueue, Work
from .room import Room
from .schedule import Purpose
from .session import Session

log = logs.get(__name__)

SAVE_BYTES = 64 * 1024 * 1024
"""What came in of a large file is made durable this often."""
CHECKERS = 2
"""Chunks of one disc that are checked and written at once, while the next one is read."""
FINISHERS = 16
"""Files whose last bytes are being made durable at once."""


@dataclass(slots=True)
class _Piece:
    work: Work
    index: int
    sector: int
    data: bytes


class DiscReading:
    """Works the queues of discs; one `run` a queue.

    Attributes:
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
        place: Callable[[Job], Awaitable[None]],
        end: Callable[[Job, HsmError | None], Awaitable[None]],
    ) -> None:
        self._catalog, self._files, self._mounts = catalog, files, mounts
        self._events, self._config = events, config
        self._place, self._end = place, end
        self._room = Room(files)
        self._finishers = trio.Semaphore(FINISHERS)
        self.nursery: trio.Nursery | None = None

    async def run(self, queue: VolumeQueue) -> None:
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

    async def _one_session(self, queue: VolumeQueue) -> None:
        async with self._mounts.use(
            queue.volume, Purpose.READ, who="recall", since=queue.since, **queue.demand
        ) as session:
            queue.session = session
            while await self._stream(queue, session) and not session.wanted_elsewhere:
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
        volume = self._catalog.volumes.get(work.part.volume)
        name = volume.barcode if volume else work.part.volume
        text = f"copy {work.copy.copy_no} on disc {name}: {error.message}"
        job.bad.add(work.copy.id)
        job.faults.append(text)
        async with self._catalog.write():
            self._catalog.queues.fail_attempt(job.ino, text)

    async def _stream(self, queue: VolumeQueue, session: Session) -> bool:
        """Read until there is nothing more to read or others want the drive; False if nothing was.

        The next chunk is read while the last ones are checked and written.
        """
        send, receive = trio.open_memory_channel[_Piece](1)
        broken: HsmError | None = None
        did = False
        async with trio.open_nursery() as nursery:
            for _ in range(CHECKERS):
                nursery.start_soon(self._take_in, receive.clone(), queue, session)
            receive.close()
            async with send:
                # At least one chunk a session, so that two who want the drive both get on.
                while not (did and session.wanted_elsewhere):
                    work = queue.next_work()
                    if work is None:
                        break
                    if work.live is None:
                        await self._pick_up(work, queue)
                        continue
                    did = True
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
        await self.finish_beside(work)

    async def finish_beside(self, work: Work) -> None:
        await self._finishers.acquire()
        assert self.nursery is not None
        self.nursery.start_soon(self._finish, work)

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
            self.put_down(work)
            self._finishers.release()
        await self._place(job)

    def put_down(self, work: Work) -> None:
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
            "sectors": -(-work.part.stored // SECTOR),
            "bytes": work.read,
            "seconds": round(trio.current_time() - work.began, 3),
            "requester": work.job.requester,
        }
        log.info("recalled", **fields)
        self._events.emit("recalled", **fields)


class _SessionBroken(DriveError):
    """The drive failed in the middle: the disc is asked for again, and comes in another drive."""


def _ours(error: OSError | HsmError) -> HsmError:
    """An error of the pool as one of ours."""
    if isinstance(error, HsmError):
        return error
    return PosixError(error.errno or errno.EIO, f"the pool failed: {error}")
