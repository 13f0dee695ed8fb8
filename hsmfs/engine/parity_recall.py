"""Recalls of bytes whose own disc does not give them: what is left of it, and the rest by parity.

One queue a disc, as for recalls; each batch asks every other disc of the set once, so a folder on a
lost disc costs as many exchanges as one file. Nothing is filled in before its chunk's checksum
passed, whoever it came from.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import trio

from .. import clock, crash, logs
from ..catalog.catalog import Catalog
from ..catalog.copies import Copy
from ..catalog.queues import RecallClass
from ..catalog.volumes import Volume
from ..config import Config
from ..disc.reader import read_chunk
from ..errors import Conflict, HsmError, PosixError, RecallFailed, UnreadableSector
from ..states import CopyState
from ..types import CHUNK, SECTOR, VolumeId
from .backpressure import Backpressure
from .events import Events
from .files import Files
from .live import Live
from .parity_read import ParityReader, Salvaged
from .recall_queue import Job, Work
from .room import Room
from .syndromes import Run, Syndromes

log = logs.get(__name__)
BATCH_BYTES = 64 * 1024 * 1024
"""Asked of the other discs at once; as much again is held for each parity row."""


@dataclass(slots=True)
class _Piece:
    """One chunk that is wanted: its sectors on the disc, and what the disc itself gave of them."""

    work: Work
    index: int
    sector: int
    count: int
    own: Salvaged | None = None


class ParityRecall:
    """Works what no readable copy is left for.

    Attributes:
        config: of now; nursery: set while the recaller runs.
    """

    def __init__(
        self,
        catalog: Catalog,
        files: Files,
        reader: ParityReader,
        events: Events,
        config: Config,
        *,
        room: Room,
        pressure: Backpressure,
        place: Callable[[Job], Awaitable[None]],
        end: Callable[[Job, HsmError | None], Awaitable[None]],
    ) -> None:
        self._catalog, self._files, self._reader = catalog, files, reader
        self._events, self._place, self._end = events, place, end
        self.config = config
        self._room, self._pressure = room, pressure
        self._queues: dict[VolumeId, list[Work]] = {}
        self.nursery: trio.Nursery | None = None

    def choose(self, job: Job, live: Live, start: int) -> Copy | None:
        """A part with byte `start` on a disc that parity may make up for, not tried for the job."""
        for copy in self._catalog.copies.of(job.ino, live.attr.base_version):
            part = copy.where
            if (
                copy.state in (CopyState.VALID, CopyState.DAMAGED)
                and copy.id not in job.beyond
                and part.offset <= start < part.offset + part.length
                and self._reader.covered(part.volume) is not None
            ):
                return copy
        return None

    def add(self, work: Work) -> None:
        """One more file to be made up for."""
        volume = work.part.volume
        work.job.volume = volume
        queue = self._queues.get(volume)
        if queue is not None:
            queue.append(work)
            return
        self._queues[volume] = [work]
        assert self.nursery is not None
        self.nursery.start_soon(self._run, volume)

    async def _run(self, volume: VolumeId) -> None:
        queue = self._queues[volume]
        try:
            while queue:
                await self._batch(volume, queue)
        finally:
            del self._queues[volume]
            for work in queue:
                self._put_down(work)

    async def _batch(self, volume: VolumeId, queue: list[Work]) -> None:
        works: list[Work] = []
        pieces: list[_Piece] = []
        size = 0
        while queue and size < BATCH_BYTES:
            work = queue.pop(0)
            if not await self._pick_up(work):
                continue
            works.append(work)
            while work.todo and size < BATCH_BYTES:
                index = work.next_in_order()
                sector, count = work.place(index)
                work.take(index)
                pieces.append(_Piece(work, index, sector, count))
                size += count * SECTOR
        try:
            if pieces:
                await self._recall(volume, sorted(pieces, key=lambda piece: piece.sector))
        except Conflict:  # a disc is in the way, or the drives are being stopped: it passes
            await trio.sleep(self.config.engine.recall_retry_wait)
        except HsmError as error:
            for work in works:
                self._fail(work, error)
        finally:
            with trio.CancelScope(shield=True):
                for work in works:
                    await self._finish(work)
        for work in works:
            await self._place(work.job)

    async def _pick_up(self, work: Work) -> bool:
        """Hold the file, see what is missing and reserve room; False if nothing is to be done."""
        job = work.job
        try:
            live = self._files.hold(job.ino)
        except PosixError:
            await self._end(job, None)
            return False
        digest = self._catalog.copies.digest(job.ino, work.version)
        if job.ended or digest is None or live.attr.base_version != work.version:
            self._files.drop(live)
            job.beyond.add(work.copy.id)
            await self._place(job)
            return False
        if self._pressure.must_wait(job, live):
            self._files.drop(live)
            return False
        need = work.plan(live, digest)
        work.began = trio.current_time()
        fault: HsmError | None
        try:
            fault = await self._room.reserve(live, need, order=not job.waiters)
        except (OSError, HsmError) as error:
            fault = error if isinstance(error, HsmError) else _ours(error)
        if fault is not None:
            held = self._pressure.hold(job, live, fault)
            self._put_down(work)
            if not held:
                await self._end(job, fault)
            return False
        work.reserved = need
        return True

    # Reading

    async def _recall(self, volume_id: VolumeId, pieces: list[_Piece]) -> None:
        volume = self._catalog.volumes.get(volume_id)
        assert volume is not None
        urgency = RecallClass(min(piece.work.job.urgency for piece in pieces))
        own = await self._reader.own(volume, [(p.sector, p.count) for p in pieces], urgency)
        left: list[_Piece] = []
        for at, piece in enumerate(pieces):
            piece.own = own[at] if own is not None else None
            whole = piece.own is not None and not piece.own.bad
            if not whole or piece.own is None or not await self._take(piece, piece.own.data):
                left.append(piece)
        holes = [piece for piece in left if piece.own is not None and piece.own.bad]
        if holes:
            wrong = await self._solve(volume, holes, urgency, keep_own=True)
            left = [piece for piece in left if piece not in holes or piece in wrong]
            left.sort(key=lambda piece: piece.sector)
        if left:
            lost = await self._solve(volume, left, urgency, keep_own=False)
            for piece in lost:
                self._fail(piece.work, RecallFailed(
                    f"sectors {piece.sector} to {piece.sector + piece.count - 1} of disc"
                    f" {volume.barcode} are beyond its set's parity"))  # fmt: skip

    async def _solve(
        self, volume: Volume, pieces: list[_Piece], urgency: RecallClass, *, keep_own: bool
    ) -> list[_Piece]:
        """Make up for the pieces, or for their holes; those for which it did not do."""
        runs = _merged([run for piece in pieces for run in _runs(piece, keep_own)])
        sums = await self._reader.syndromes(volume, runs, urgency)
        wrong = [
            piece
            for piece in pieces
            if not await self._try(piece, sums, [(None, None)], keep_own)
        ]
        group = self._catalog.sets.of(volume.id)
        assert group is not None
        if not wrong or group.m < 2:
            return wrong
        # Some disc reads without an error and wrong: with two rows it can be found out.
        await self._reader.complete(group, volume, sums, urgency)
        guesses: list[tuple[int | None, int | None]] = [(None, row) for row in range(group.m)]
        guesses += [(index, None) for index in range(group.k) if index not in sums.lost]
        return [piece for piece in wrong if not await self._try(piece, sums, guesses, keep_own)]

    async def _try(
        self,
        piece: _Piece,
        sums: Syndromes,
        guesses: list[tuple[int | None, int | None]],
        keep_own: bool,
    ) -> bool:
        """Fill the piece in by the first guess whose bytes have the right checksum."""
        for liar, without in guesses:
            data = bytearray(piece.own.data) if keep_own and piece.own else bytearray(
                piece.count * SECTOR
            )  # fmt: skip
            for sector, count in _runs(piece, keep_own):
                got = await clock.blocking(
                    lambda s=sector, n=count, li=liar, w=without: sums.solve(  # type: ignore[misc]
                        s, n, liar=li, without=w
                    ),
                    clock.HASH,
                )
                if got is None:
                    break
                at = (sector - piece.sector) * SECTOR
                data[at : at + len(got)] = got
            else:
                if await self._take(piece, bytes(data)):
                    return True
        return False

    async def _take(self, piece: _Piece, data: bytes) -> bool:
        """Check the bytes and fill them in; False if they are not the right ones."""
        work = piece.work
        live, digest = work.live, work.digest
        assert live is not None and digest is not None
        try:
            plain = await clock.blocking(
                lambda: read_chunk(work.part, piece.index, digest, lambda sector, count: data),
                clock.HASH,
            )
        except UnreadableSector:
            return False
        crash.point("parity.chunk.verified")
        if await self._files.fill(live, work.version, piece.index * CHUNK, plain):
            work.read += len(plain)
        else:
            work.todo.clear()
        return True

    # Ends

    def _fail(self, work: Work, error: HsmError) -> None:
        job = work.job
        if work.copy.id not in job.beyond:
            job.beyond.add(work.copy.id)
            job.faults.append(f"copy {work.copy.copy_no} by parity: {error.message}")
        work.todo.clear()

    async def _finish(self, work: Work) -> None:
        live = work.live
        assert live is not None
        try:
            await self._files.save_ranges(live)
            if work.read:
                self._tell(work)
        except (OSError, HsmError) as error:
            fault = error if isinstance(error, HsmError) else _ours(error)
            await self._end(work.job, fault)
        finally:
            self._put_down(work)

    def _put_down(self, work: Work) -> None:
        live, work.live = work.live, None
        if live is not None:
            self._room.give_back(live, work.reserved, work.read)
            work.reserved = 0
            self._files.drop(live)

    def _tell(self, work: Work) -> None:
        volume = self._catalog.volumes.get(work.part.volume)
        name = volume.barcode if volume else str(work.part.volume)
        seconds = round(trio.current_time() - work.began, 3)
        log.info(
            "recalled by parity", ino=work.job.ino, volume=name, bytes=work.read,
            seconds=seconds, requester=work.job.requester,
        )  # fmt: skip
        self._events.emit(
            "recalled_by_parity", ino=work.job.ino, volume=name, bytes=work.read, seconds=seconds
        )


def _runs(piece: _Piece, holes_alone: bool) -> list[Run]:
    """The sectors of the piece that are wanted from the others."""
    if not holes_alone or piece.own is None:
        return [(piece.sector, piece.count)]
    return _merged([(sector, 1) for sector in piece.own.bad])


def _merged(runs: list[Run]) -> list[Run]:
    """The same sectors, in order, each once."""
    return list(_joined(sorted(runs)))


def _joined(runs: list[Run]) -> Iterator[Run]:
    current: Run | None = None
    for at, count in runs:
        if current is not None and at <= current[0] + current[1]:
            current = current[0], max(current[1], at + count - current[0])
            continue
        if current is not None:
            yield current
        current = at, count
    if current is not None:
        yield current


def _ours(error: OSError) -> HsmError:
    return PosixError(error.errno or errno.EIO, f"the pool failed: {error}")

