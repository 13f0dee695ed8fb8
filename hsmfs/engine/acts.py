"""Orders about many files: archive, recall, release, pin, cancel, and waiting for their end.

Folders stand for the files below them, taken in batches, so that an order about a million files
neither stops the loop nor fills the memory. A file that is refused is reported, not the whole.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import trio

from .. import crash
from ..catalog.queues import Queues, RecallClass
from ..catalog.reports import Reports
from ..errors import HsmError
from ..limits import BATCH_ROWS, QUEUE_ROWS_SHOWN
from ..states import STUBS, FileState
from ..types import Attr, InodeNo
from .integrity.ingest import refusal
from .overview import failures
from .paths import files_below
from .views import Outcome, Progress

if TYPE_CHECKING:
    from .service import Engine

LOOK_EVERY_S = 0.25
LOOK_SHARE = 5
"""A look at what is pending may take one part in this many of the time."""


@dataclass(slots=True)
class Tally:
    """What was done so far, and what was refused."""

    files: int = 0
    bytes: int = 0
    failed: int = 0
    faults: dict[InodeNo, Exception] = field(default_factory=dict)
    pending: dict[InodeNo, int] = field(default_factory=dict)
    """Accepted files that somebody waits for, with their sizes."""

    def refuse(self, ino: InodeNo, fault: Exception) -> None:
        self.failed += 1
        if len(self.faults) < QUEUE_ROWS_SHOWN:
            self.faults[ino] = fault


async def batches(engine: Engine, roots: Sequence[Attr]) -> AsyncIterator[list[Attr]]:
    """The regular files at and below the roots."""
    for root in roots:
        async for batch in files_below(engine.catalog, root):
            yield [engine.files.overlay(attr) for attr in batch]


async def each(
    engine: Engine, roots: Sequence[Attr], act: Callable[[Attr], Awaitable[int]]
) -> Outcome:
    """Do act to each file; it returns bytes, or raises HsmError for this file alone."""
    tally = Tally()
    async for batch in batches(engine, roots):
        for attr in batch:
            try:
                tally.bytes += await act(attr)
                tally.files += 1
            except HsmError as fault:
                tally.refuse(attr.ino, fault)
            await trio.lowlevel.checkpoint()
    return outcome(engine, tally)


def outcome(engine: Engine, tally: Tally) -> Outcome:
    """The tally as the API shows it."""
    return Outcome(tally.files, tally.bytes, tally.failed, failures(engine, tally.faults))


async def release(
    engine: Engine, roots: Sequence[Attr], who: str, *, even_open: bool = False
) -> Outcome:
    """Give up the bytes on disk of what is on enough discs; open files only with even_open."""

    async def act(attr: Attr) -> int:
        if attr.state == FileState.MIGRATED:
            return 0
        return await engine.releaser.release(attr.ino, who, even_open=even_open)

    return await each(engine, roots, act)


async def pin(engine: Engine, roots: Sequence[Attr], pinned: bool) -> Outcome:
    """Keep files on disk whatever the policies say, or no longer."""
    tally = Tally()
    async for batch in batches(engine, roots):
        async with engine.catalog.write():
            for attr in batch:
                engine.set_pinned(attr.ino, pinned)
        crash.point("pin.committed")
        tally.files += len(batch)
        tally.bytes += sum(attr.size for attr in batch)
    await engine.catalog.sync()
    crash.point("pin.durable")
    return outcome(engine, tally)


async def cancel(engine: Engine, roots: Sequence[Attr]) -> Outcome:
    """Take files out of the queues; what is on its way to a disc just now still gets there."""

    async def act(attr: Attr) -> int:
        queues = engine.catalog.queues
        if queues.recall(attr.ino) is not None:
            await engine.recaller.cancel(attr.ino)
        if queues.migration(attr.ino) is not None:
            await engine.migrator.cancel(attr.ino)
        return attr.size

    return await each(engine, roots, act)


async def archive(
    engine: Engine,
    roots: Sequence[Attr],
    *,
    copies: int | None,
    now: bool,
    release: bool,
    wait: bool,
    who: str,
    vault: str | None = None,
    accept: bool = False,
) -> AsyncIterator[Progress]:
    """Ask for files to be put on discs; with wait, tell how far it has come until all are.

    vault: where one of two or more copies is to be kept; None: as the policies say.
    accept: those that are not what their client's checksum says are right as they are.
    """
    tally = Tally()
    async for batch in batches(engine, roots):
        if accept:
            async with engine.catalog.write():
                for attr in batch:
                    engine.migrator.ingest.accept(attr.ino, who)
        await engine.migrator.archive(
            [attr.ino for attr in batch], copies=copies, who=who, release=release, vault=vault
        )
        _accept(tally, batch, wait)
        yield _progress("queued", tally)
    crash.point("archive.order.queued")
    if now:
        await engine.migrator.flush()
    if wait:
        inos = list(tally.pending) if release else []
        async for step in _until(engine, tally, Queues.going, _archived):
            yield step
        for ino in inos:
            await _release_archived(engine, tally, ino, who)
    yield _end(engine, tally)


async def _release_archived(engine: Engine, tally: Tally, ino: InodeNo, who: str) -> None:
    """Release a file that was archived, unless the migrator has done it by now."""
    attr = engine.files.attr(ino)
    if attr is None or attr.state != FileState.PREMIGRATED:
        return
    if engine.catalog.queues.migration(ino) is not None:
        return
    try:
        await engine.releaser.release(ino, who)
    except HsmError as fault:
        tally.refuse(ino, fault)


async def recall(
    engine: Engine, roots: Sequence[Attr], *, urgency: RecallClass, wait: bool, who: str
) -> AsyncIterator[Progress]:
    """Ask for files to be brought in; with wait, tell how far it has come until all are."""
    tally = Tally()
    async for batch in batches(engine, roots):
        wanted = [attr for attr in batch if attr.state in STUBS]
        gone = await engine.recaller.request_all([attr.ino for attr in wanted], urgency, who)
        for ino, fault in gone.items():
            tally.refuse(ino, fault)
        _accept(tally, [attr for attr in wanted if attr.ino not in gone], wait)
        yield _progress("queued", tally)
    crash.point("recall.order.queued")
    if wait:
        async for step in _until(engine, tally, Queues.coming, _recalled):
            yield step
        for ino in tally.faults:
            tally.faults[ino] = engine.recaller.failure(ino) or tally.faults[ino]
    yield _end(engine, tally)


def _accept(tally: Tally, batch: Sequence[Attr], wait: bool) -> None:
    tally.files += len(batch)
    tally.bytes += sum(attr.size for attr in batch)
    if wait:
        tally.pending.update((attr.ino, attr.size) for attr in batch)


def _progress(kind: str, tally: Tally, note: str = "") -> Progress:
    return Progress(
        kind, tally.files, tally.files - len(tally.pending), tally.bytes,
        tally.bytes - sum(tally.pending.values()), tally.failed, note,
    )  # fmt: skip


def _end(engine: Engine, tally: Tally) -> Progress:
    done = tally.files - len(tally.pending)
    return Progress(
        "end", tally.files, done, tally.bytes, tally.bytes - sum(tally.pending.values()),
        tally.failed, "", failures(engine, tally.faults),
    )  # fmt: skip


Settled = Callable[[Reports, InodeNo], Exception | bool]
"""Whether a file's order has ended: True, False, or why it failed."""
Waiting = Callable[[Queues, Sequence[InodeNo]], set[InodeNo]]
"""Files whose order has not ended for sure: one query for many, as there may be a million."""


def _archived(reports: Reports, ino: InodeNo) -> Exception | bool:
    attr = reports.inodes.get_raw(ino)
    if attr is None or attr.nlink == 0:
        return HsmError("was deleted meanwhile", next_step="nothing is left to do")
    if (refused := refusal(reports, ino)) is not None:
        return refused
    migration = reports.queues.migration(ino)
    if migration is not None:
        # What waits for its set's parity is on disc: it is released later, by itself.
        return (
            migration.release
            and attr.state == FileState.PREMIGRATED
            and reports.copies.protected(ino, attr.version) < migration.copies
        )
    if attr.state == FileState.RESIDENT:
        return HsmError(
            "is not on disc: cancelled, or written to meanwhile", next_step="archive it again"
        )
    return True


def _recalled(reports: Reports, ino: InodeNo) -> Exception | bool:
    attr = reports.inodes.get_raw(ino)
    if attr is None or attr.nlink == 0:
        return HsmError("was deleted meanwhile", next_step="nothing is left to do")
    if attr.state in (FileState.RESIDENT, FileState.PREMIGRATED):
        return True
    if reports.queues.recall(ino) is not None:
        return False
    return HsmError("could not be recalled", next_step="'hsmctl why' says what failed")


async def _until(
    engine: Engine, tally: Tally, waiting: Waiting, settled: Settled
) -> AsyncIterator[Progress]:
    """Look at what is pending again and again until nothing is."""

    def look(reports: Reports, inos: Sequence[InodeNo]) -> list[tuple[InodeNo, Exception | bool]]:
        still = waiting(reports.queues, inos)
        return [(ino, settled(reports, ino)) for ino in inos if ino not in still]

    while tally.pending:
        begun = trio.current_time()
        todo = list(tally.pending)
        for start in range(0, len(todo), BATCH_ROWS):
            part = todo[start : start + BATCH_ROWS]
            for ino, verdict in await engine.catalog.read(partial(look, inos=part)):
                if verdict is False:
                    continue
                size = tally.pending.pop(ino)
                if isinstance(verdict, Exception):
                    tally.files -= 1
                    tally.bytes -= size
                    tally.refuse(ino, verdict)
        yield _progress("progress", tally, engine.doing())
        if tally.pending:
            took = trio.current_time() - begun
            await trio.sleep(max(LOOK_EVERY_S, LOOK_SHARE * took))
