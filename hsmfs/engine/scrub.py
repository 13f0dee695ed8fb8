"""The scrubber: reads discs again before they are needed, while nobody else wants the drive.

How far a disc is, is a row of the catalog, so a recall may take the drive at any piece and a kill
costs at most SAVE bytes of reading, or all of a disc that has only a checksum of the whole
(scrub_sum.py). What does not read, or reads wrong, is read again in another drive before disc or
drive is blamed. Relies on Mounts for discs; what becomes of a bad disc is told by `failed`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import trio

from .. import clock, crash, logs
from ..catalog.catalog import Catalog
from ..catalog.health import Bad, Scrub
from ..catalog.queues import RecallClass
from ..catalog.volumes import Volume
from ..config import Config
from ..errors import (
    ChecksumMismatch,
    Conflict,
    DriveError,
    ForeignDisc,
    HsmError,
    NotFound,
    UnreadableSector,
)
from ..limits import SHORTEST_WAIT
from ..states import VolumeState
from ..types import VolumeId
from . import scrub_sum
from .events import Events
from .mounts import Mounts
from .schedule import Purpose
from .scrub_due import TESTABLE, due_times, in_doubt, wants_all
from .scrub_plan import Piece, chosen, pieces
from .scrub_sum import Sum, is_parity
from .session import Session

log = logs.get(__name__)
SAVE = 256 * 1024 * 1024
"""Bytes read between two notes of how far a disc is."""
ENOUGH = 20
"""Pieces that do not read after which the rest of the disc is not tried first."""
AGAIN = 600.0
"""Seconds after which a disc that could not be had is tried again."""
NOT_REPLACED = 7 * 86_400.0
"""Seconds after which a bad disc that could not be replaced is tried again: what did not read is
read once more, and its set may be closed by then."""
LOOK = 86_400.0
"""Seconds between looks for discs that are due, at most."""
SCHEDULE = "schedule"
NOT_COMPARED = ", compared with nothing: only a whole test compares parity"


@dataclass(slots=True)
class Progress:
    """How far the disc in hand is; sizes in bytes, speed bytes a second."""

    barcode: str
    phase: str = "waiting for a drive"
    drive: str = ""
    done: int = 0
    size: int = 0
    speed: float = 0.0


class Scrubber:
    """Reads one disc after the other.

    Attributes:
        progress: of the disc in hand.
        failed: told of a disc that failed its test in two drives, with the reason. Raises Conflict
            if nothing can be done now.
        passed: told of a disc that was read without a fault.
    """

    def __init__(self, catalog: Catalog, mounts: Mounts, events: Events, config: Config) -> None:
        self._catalog, self._mounts, self._events = catalog, mounts, events
        self._config = config.scrub
        self.progress: dict[VolumeId, Progress] = {}
        self.failed: Callable[[Volume, str], Awaitable[None]] = _nobody
        self.passed: Callable[[Volume], Awaitable[None]] = _nobody_cares
        self._later: dict[VolumeId, float] = {}
        self._sums: dict[VolumeId, Sum] = {}
        self._wake = trio.Event()
        self._scopes: dict[VolumeId, trio.CancelScope] = {}

    def configure(self, config: Config) -> None:
        """Other numbers count from now on; discs that are being tested go on."""
        self._config = config.scrub
        self.look()

    # Orders

    async def ask(self, volumes: Sequence[Volume], who: str, share: int | None = None) -> int:
        """Have the discs read; how many are new in the queue. Raises Conflict for one without
        bytes that count.
        """
        for volume in volumes:
            if volume.state not in TESTABLE:
                raise Conflict(
                    f"disc {volume.barcode} is {volume.state.name.lower()}: there is nothing"
                    " to test on it",
                    next_step="see 'hsmctl volume list --state full'",
                )
        new = 0
        async with self._catalog.write():
            for volume in volumes:
                known = self._catalog.health.scrub(volume.id)
                new += known is None
                self._catalog.health.put_scrub(
                    replace(known, requester=who, paused=False)
                    if known
                    else Scrub(volume.id, clock.now_ns(), who, share or self._config.share)
                )
        crash.point("scrub.queued")
        self._poke(volumes)
        return new

    async def pause(self, volumes: Sequence[Volume] = ()) -> None:
        """Stop scrubbing these discs, or all; it stays so over restarts. Raises NotFound."""
        await self._set_paused(volumes, True)
        for volume, scope in self._scopes.items():
            if not volumes or volume in {v.id for v in volumes}:
                scope.cancel()

    async def resume(self, volumes: Sequence[Volume] = ()) -> None:
        """Go on where it was. Raises NotFound."""
        await self._set_paused(volumes, False)
        self._poke(volumes)

    async def _set_paused(self, volumes: Sequence[Volume], paused: bool) -> None:
        rows = [(v, self._catalog.health.scrub(v.id)) for v in volumes]
        for volume, row in rows:
            if row is None:
                raise NotFound(f"disc {volume.barcode} is not in the scrub's queue")
        async with self._catalog.write():
            if not volumes:
                self._catalog.health.pause(paused)
            for _, row in rows:
                assert row is not None
                self._catalog.health.put_scrub(replace(row, paused=paused))

    def look(self) -> None:
        """See what is due: a disc may have become suspect."""
        self._wake.set()

    def _poke(self, volumes: Sequence[Volume]) -> None:
        for volume in volumes:
            self._later.pop(volume.id, None)
        self._wake.set()

    # The loop

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read what is due or was asked for, for ever."""
        self.progress.clear()
        self._later.clear()
        self._sums.clear()
        self._scopes.clear()
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                self._wake = trio.Event()
                wait = await self._queue_due()
                if not self._catalog.health.paused:
                    wait = min(wait, self._begin(nursery))
                with trio.move_on_after(max(wait, SHORTEST_WAIT)):
                    await self._wake.wait()

    def _begin(self, nursery: trio.Nursery) -> float:
        """Start what is ripe while there are drives for it; seconds until something else is."""
        now = trio.current_time()
        rows = [
            row for row in self._catalog.health.scrubs()
            if not row.paused and row.volume not in self._scopes
        ]  # fmt: skip
        ripe = [row for row in rows if self._later.get(row.volume, 0.0) <= now]
        for row in ripe[: max(0, self._config.drives - len(self._scopes))]:
            self._scopes[row.volume] = trio.CancelScope()
            nursery.start_soon(self._work, row)
        return min((at - now for at in (self._later.get(r.volume, 0.0) for r in rows) if at > now),
                   default=LOOK)  # fmt: skip

    async def _queue_due(self) -> float:
        """Queue the discs that are due; seconds until the next one is."""
        if not self._config.interval:
            return LOOK
        now = clock.now_ns()
        doubted = in_doubt(self._catalog)
        dues = due_times(self._catalog, self._config.interval, doubted)
        queued = {row.volume for row in self._catalog.health.scrubs()}
        late = [v for v, due in dues.items() if due <= now and v not in queued]
        if late:
            async with self._catalog.write():
                for volume in late:
                    whole = volume in doubted or wants_all(self._catalog, volume)
                    share = 100 if whole else self._config.share
                    self._catalog.health.put_scrub(Scrub(volume, now, SCHEDULE, share))
            crash.point("scrub.due")
        coming = [due for due in dues.values() if due > now]
        return min(LOOK, (min(coming) - now) / 1e9) if coming else LOOK

    async def _work(self, row: Scrub) -> None:
        """The disc's next session; what goes wrong puts it off."""
        try:
            with self._scopes[row.volume]:
                await self._one_session(row)
        finally:
            self._scopes.pop(row.volume, None)
            self._wake.set()

    async def _one_session(self, row: Scrub) -> None:
        volume = self._catalog.volumes.get(row.volume)
        if volume is None or volume.state not in TESTABLE:
            self._sums.pop(row.volume, None)
            async with self._catalog.write():
                self._catalog.health.end_scrub(row.volume)
            return
        self.progress[volume.id] = Progress(
            volume.barcode, done=row.position, size=volume.used
        )
        try:
            await self._session(row, volume)
        except HsmError as fault:
            if isinstance(fault, ForeignDisc) or self._no_drive_takes(volume, fault):
                await self._mounts.ledger.tested(None, volume, fault.message, good=False)
                await self._failed(row, volume, fault.message)
                return
            log.warning("scrub put off", volume=volume.barcode, error=fault.message)
            self._later[volume.id] = trio.current_time() + AGAIN
            async with self._catalog.write():
                now = self._catalog.health.scrub(volume.id)
                if now is not None:
                    self._catalog.health.put_scrub(replace(now, error=fault.message))
        finally:
            self.progress.pop(volume.id, None)

    def _no_drive_takes(self, volume: Volume, fault: HsmError) -> bool:
        failed = self._mounts.ledger.failed_in(volume.barcode)
        return isinstance(fault, DriveError) and len(failed) > 1

    async def _session(self, row: Scrub, volume: Volume) -> None:
        verdict: str | None = None
        async with self._mounts.use(
            volume.id, Purpose.READ, urgency=RecallClass.IDLE, bytes=volume.used, who="scrub"
        ) as session:
            self.progress[volume.id].drive = session.drive.name
            if row.started_ns is None:
                row = replace(row, started_ns=clock.now_ns())
            row = await self._begin_sum(session, row, volume)
            if row.position < volume.used and len(row.bad) < ENOUGH:
                row = await self._pass(session, row, volume)
                good = row.position >= volume.used and not row.places
                if good and self._sum_is_wrong(volume):
                    good, verdict = False, await self._wrong(session, row, volume)
            else:
                verdict = await self._second_opinion(session, row, volume) if row.bad else None
                good = verdict is None
                if good and self._needs_sum(row, volume):
                    row, good = await self._save(_anew(row)), False
            if good:
                await self._passed(session, row, volume)
            elif row.bad:
                # Until all is read again here, that this drive works accuses no other one.
                session.doubted = True
        if verdict is not None:
            await self._failed(row, volume, verdict)

    # The checksum of the whole

    def _needs_sum(self, row: Scrub, volume: Volume) -> bool:
        """Whether the test says nothing without the sum, and a restart or a fault took it."""
        wanted = row.wrong_in or is_parity(self._catalog, volume)
        return row.share >= 100 and volume.id not in self._sums and bool(wanted)

    async def _begin_sum(self, session: Session, row: Scrub, volume: Volume) -> Scrub:
        """Have a sum if the disc is read from its start; else go on with the one that is there."""
        if row.position and not row.places and self._needs_sum(row, volume):
            row = _anew(row, *row.bad)
        if row.position == 0 and row.share >= 100:
            self._sums.pop(volume.id, None)
            if (begun := await scrub_sum.begin(self._catalog, session, volume)) is not None:
                self._sums[volume.id] = begun
        return row

    def _sum_is_wrong(self, volume: Volume) -> bool:
        found = self._sums.get(volume.id)
        return found is not None and found.wrong

    async def _wrong(self, session: Session, row: Scrub, volume: Volume) -> str | None:
        """The whole is not what was written. Why the disc failed, if another drive said so too."""
        found = self._sums.pop(volume.id)
        session.doubted = True
        text = "what is on it does not have the SHA-256 of what was written"
        error = ChecksumMismatch(text, found.sector)
        if row.wrong_in:
            await session.accuse(error)
            text += f"; tried in {' and '.join(sorted({*row.wrong_in, *found.drives}))}"
            await session.tested(text, good=False)
            return text
        if len(found.drives) == 1:  # else nobody can tell which drive it was
            await session.doubt(error)
        await self._save(_anew(row, *(Bad(0, 0, serial) for serial in sorted(found.drives))))
        crash.point("scrub.wrong.noted")
        return None

    # The pass over the disc

    async def _pass(self, session: Session, row: Scrub, volume: Volume) -> Scrub:
        """Read on from the row's position until the end, until somebody wants the drive, or until
        too much does not read. Returns the row as it was written down.
        """
        show = self.progress[volume.id]
        show.phase = "reading"
        saved = row.position
        while row.position < volume.used and len(row.bad) < ENOUGH:
            todo = await self._catalog.read(
                partial(pieces, volume=volume.id, used=volume.used, position=row.position)
            )
            for piece in todo:
                if session.wanted_elsewhere:
                    return await self._save(row)
                if chosen(piece, row.asked_ns, row.share):
                    row = await self._one(session, row, piece)
                row = replace(row, position=piece.end)
                show.done, show.speed = piece.end, _speed(session)
                if row.position - saved >= SAVE:
                    row, saved = await self._save(row), row.position
                if len(row.bad) >= ENOUGH:
                    break
        return await self._save(row)

    async def _one(self, session: Session, row: Scrub, piece: Piece) -> Scrub:
        begun = trio.current_time()
        try:
            await self._test(session, piece, self._sums.get(row.volume))
        except UnreadableSector as error:
            self._sums.pop(row.volume, None)
            await session.doubt(error)
            bad = Bad(piece.start, piece.end, session.drive.serial)
            row = await self._save(replace(row, bad=(*row.bad, bad)))
            crash.point("scrub.bad.noted")
        size = piece.end - piece.start
        if self._config.rate:
            await trio.sleep(max(0.0, begun + size / self._config.rate - trio.current_time()))
        return replace(row, checked=row.checked + size)

    async def _test(self, session: Session, piece: Piece, whole: Sum | None = None) -> None:
        """Raises UnreadableSector, or ChecksumMismatch, with the sector."""
        first, count = piece.sectors
        data = await session.test(first, count)

        def compare() -> None:
            if piece.sha256 is not None:
                piece.check(data)
            if whole is not None:
                whole.drives.add(session.drive.serial)
                whole.feed(piece, data)

        if piece.sha256 is not None or whole is not None:
            await clock.blocking(compare, clock.HASH)

    async def _save(self, row: Scrub) -> Scrub:
        """Write down how far the disc is. What an admin changed meanwhile stays."""
        async with self._catalog.write():
            now = self._catalog.health.scrub(row.volume)
            if now is not None:
                row = replace(row, paused=now.paused, requester=now.requester, error="")
                self._catalog.health.put_scrub(row)
        crash.point("scrub.saved")
        return row

    # The verdict

    async def _second_opinion(self, session: Session, row: Scrub, volume: Volume) -> str | None:
        """Read again what did not read; why the disc failed, or None if it reads here."""
        self.progress[volume.id].phase = "reading again what did not read"
        still: list[UnreadableSector] = []
        known = {
            piece.start: piece
            for bad in row.places
            for piece in await self._pieces_at(volume, bad.start)
        }
        for bad in row.places:
            piece = known.get(bad.start, Piece(bad.start, bad.end))
            try:
                await self._test(session, piece)
            except UnreadableSector as error:
                still.append(error)
        if not still:
            return None
        session.doubted = True
        await session.accuse(still[0])
        where = ", ".join(str(error.sector) for error in still[:5])
        drives = sorted({bad.serial for bad in row.places} | {session.drive.serial})
        text = (
            f"{len(still)} places do not read, first sectors {where};"
            f" tried in {' and '.join(drives)}"
        )
        await session.tested(text, good=False)
        return text

    async def _pieces_at(self, volume: Volume, start: int) -> list[Piece]:
        found = await self._catalog.read(
            lambda reports: pieces(reports, volume.id, volume.used, start)
        )
        return found[:1]

    async def _passed(self, session: Session, row: Scrub, volume: Volume) -> None:
        whole = row.share >= 100
        await session.tested(
            f"{row.checked} of {volume.used} bytes read"
            + (f"; {len(row.places)} places did not read in another drive" if row.places else "")
            + ("; it read wrong in another drive" if row.wrong_in else "")
            + ("" if whole or not is_parity(self._catalog, volume) else NOT_COMPARED),
            good=True,
        )
        async with self._catalog.write():
            now = self._catalog.volumes.get(volume.id)
            assert now is not None
            if whole:
                self._catalog.volumes.verified(volume.id, clock.now_ns())
                if now.state is VolumeState.SUSPECT:
                    self._catalog.volumes.set_state(volume.id, VolumeState.FULL)
            self._catalog.health.end_scrub(volume.id)
        self._sums.pop(volume.id, None)
        crash.point("scrub.done")
        log.info("disc tested", volume=volume.barcode, bytes=row.checked, share=row.share)
        self._events.emit("disc_tested", volume=volume.barcode, good=True, bytes=row.checked)
        await self.passed(volume)

    async def _failed(self, row: Scrub, volume: Volume, why: str) -> None:
        await self._mounts.ledger.flag(volume.id, f"scrub: {why}")
        crash.point("scrub.verdict")
        not_now = await self._replaced(volume, why)
        async with self._catalog.write():
            now = self._catalog.health.scrub(volume.id) or row
            if not_now:
                self._catalog.health.put_scrub(replace(now, error=f"not replaced: {not_now}"))
            else:
                self._catalog.health.end_scrub(volume.id)
        self._sums.pop(volume.id, None)
        crash.point("scrub.given_up")
        log.warning("disc failed its test", volume=volume.barcode, error=why)
        self._events.emit("disc_tested", volume=volume.barcode, good=False, error=why)

    async def _replaced(self, volume: Volume, why: str) -> str:
        """Have somebody see to the disc; '' or why that cannot be done now: it is tried again."""
        try:
            await self.failed(volume, why)
        except Conflict as fault:
            log.warning("not replaced", volume=volume.barcode, error=fault.message)
            self._later[volume.id] = trio.current_time() + NOT_REPLACED
            return str(fault)
        return ""


def _anew(row: Scrub, *bad: Bad) -> Scrub:
    """The disc is read from its start."""
    return replace(row, position=0, checked=0, bad=bad)


def _speed(session: Session) -> float:
    return session.read_bytes / session.read_seconds if session.read_seconds else 0.0


async def _nobody(volume: Volume, why: str) -> None:
    pass


async def _nobody_cares(volume: Volume) -> None:
    pass
