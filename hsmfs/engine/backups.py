"""Copies of the catalog that outlive it: snapshots for discs, and backups by schedule or order.

All of it reads the catalog through a reader's connection in a thread: the event loop never waits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from .. import clock, crash, logs
from ..catalog import audit_extract, backup, backup_file, snapshot
from ..catalog.audit import Head
from ..catalog.catalog import Catalog
from ..catalog.reports import Reports
from ..config import CatalogConfig, Config
from ..errors import HsmError
from .events import Events
from .jobs import Job
from .stage import Staged, spare

log = logs.get(__name__)
SNAPSHOT_SHARE = 20
"""Snapshots take less than 1/20 of what is burned: a large one waits for so many more discs."""
SNAPSHOT_DISC = 2
"""And one takes less than half of its disc."""
SMALL_SHARE = 2000
"""A catalog of less than 1/2000 of a disc goes on every disc."""
AGAIN_S = 600.0
"""Until a backup that failed is tried again."""
SCRATCH = "backup.plain"


@dataclass(frozen=True, slots=True)
class Extra:
    """What a disc carries besides its files.

    Attributes:
        snapshot: of the catalog, or None. audit: the records that no disc bears yet.
        head: of the audit chain, behind them. size: bytes of both.
    """

    snapshot: Path | None
    audit: Path
    head: Head
    size: int


class Snapshots:
    """Makes what the next disc carries, and decides whether that includes a snapshot.

    disc: bytes that an image may have at most.
    """

    def __init__(self, catalog: Catalog, config: Config, disc: int) -> None:
        self._catalog = catalog
        self._disc, self._every = disc, config.catalog.snapshot_every

    async def make(self, folder: Path, staged: Staged) -> Extra:
        """What the next disc carries, in folder, besides what is staged for it.

        Files may have to wait for another disc, but not all of them. Raises OSError,
        CatalogDamaged.
        """
        room = await clock.blocking(lambda: spare(staged, self._disc), clock.IMAGES)
        audit = folder / "audit.zst"
        head, bytes_ = await self._catalog.read(lambda reports: audit_extract.write(reports, audit))
        snapshot_, size = await self._snapshot(folder, room - bytes_)
        return Extra(snapshot_, audit, head, size + bytes_)

    async def _snapshot(self, folder: Path, room: int) -> tuple[Path | None, int]:
        """A snapshot in folder for the next disc, and its bytes; None if it is not its turn, or
        would take too much.
        """
        dest, plain = folder / "catalog.zst", folder / "catalog.plain"
        next_ino, now = self._catalog.inodes.next_ino, clock.now_ns()

        def work(reports: Reports) -> tuple[int, int] | None:
            """The most bytes that it may have, and about what it has."""
            since = snapshot.due(reports, self._every, self._disc // SMALL_SHARE)
            if since is None:
                return None
            share = self._disc * (since + 1) // SNAPSHOT_SHARE
            most = min(share, self._disc // SNAPSHOT_DISC, room)
            # Catalogs shrink by more than three; a larger one is not worth trying.
            about = snapshot.pages_bytes(reports) // 3
            if about <= most:
                snapshot.copy(reports, plain, next_ino=next_ino, now_ns=now)
            return most, about

        found = await self._catalog.read(work)
        if found is None:
            return None, 0
        most, size = found
        if size <= most:
            size = await clock.blocking(lambda: snapshot.pack(plain, dest), clock.IMAGES)
        if size < most:
            return dest, size
        if size >= self._disc // SNAPSHOT_DISC:
            log.warning("catalog too large for a disc", bytes=size, disc=self._disc)
        else:
            log.info("a later disc carries the snapshot", bytes=size, most=most)
        return None, 0

    async def burned(self) -> None:
        """A disc with a snapshot is full and verified."""
        async with self._catalog.write():
            snapshot.note(self._catalog.db, clock.now_ns())
        crash.point("snapshot.noted")


class Backups:
    """Makes backups of the catalog, by schedule and when asked.

    Attributes:
        last: what the newest one came to, or None since the start.
    """

    def __init__(self, catalog: Catalog, config: Config, events: Events) -> None:
        self._catalog, self._events = catalog, events
        self._settings: CatalogConfig = config.catalog
        self._scratch = config.daemon.state / SCRATCH
        self._one = trio.Lock()
        self.last: backup.Made | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Back up by schedule for ever; a failure is told and tried again."""
        task_status.started()
        dest = self._settings.backup
        if dest is None:
            await trio.sleep_forever()
        assert dest is not None
        await trio.sleep(await self._first(dest))
        while True:
            wait = self._settings.backup_interval
            try:
                await self.make(dest)
            except (HsmError, OSError) as fault:
                log.warning("catalog not backed up", to=dest, error=str(fault))
                self._events.emit("catalog_backup_failed", to=str(dest), error=str(fault))
                wait = min(wait, AGAIN_S)
            await trio.sleep(wait)

    async def _first(self, dest: Path) -> float:
        """Seconds until the first is due, by the newest that is there."""
        try:
            newest = await clock.blocking(lambda: backup.find(dest, None))
        except (HsmError, OSError):
            return 0.0
        # One of a clock that was ahead puts nothing off for longer.
        age = max(0.0, (clock.now_ns() - newest.created_ns) / 1e9)
        return max(0.0, self._settings.backup_interval - age)

    async def make(
        self, dest: Path, keep: int | None = None, job: Job | None = None, *, new: bool = False
    ) -> backup.Made:
        """Back the catalog up to a folder.

        new: it may be empty although backups went there before. Raises Conflict, ConfigError,
        NotFound if it is empty, OSError.
        """
        known = await self._catalog.read(lambda reports: backup.went_to(reports, dest))
        made = await self._make(
            dest,
            lambda now: backup.store(
                self._scratch, dest, now_ns=now, told=_told(job), begin=new or not known,
                keep=self._settings.backup_keep if keep is None else keep,
            ),
        )  # fmt: skip
        if not known:
            async with self._catalog.write():
                backup.note(self._catalog.db, dest, clock.now_ns())
        self.last = made
        return made

    async def make_file(self, dest: Path, job: Job | None = None) -> backup.Made:
        """Back the catalog up to a single file. Raises ConfigError, OSError."""
        return await self._make(
            dest,
            lambda now: backup.store_file(self._scratch, dest, now_ns=now, told=_told(job)),
        )

    async def _make(self, dest: Path, store: Callable[[int], backup.Made]) -> backup.Made:
        """Copy the catalog, and store the copy; store gets the time of the copy."""
        async with self._one:
            next_ino, now = self._catalog.inodes.next_ino, clock.now_ns()
            await self._catalog.read(
                lambda reports: snapshot.copy(
                    reports, self._scratch, next_ino=next_ino, now_ns=now
                )
            )
            crash.point("backup.copied")
            # Outside the read, which would keep the WAL from starting anew.
            made = await clock.blocking(lambda: store(now))
        log.info(
            "catalog backed up", to=dest, name=made.name, bytes=made.size,
            written=made.new_bytes, pieces=made.new_pieces,
        )  # fmt: skip
        self._events.emit("catalog_backed_up", to=str(dest), name=made.name, bytes=made.size)
        return made

    def order(
        self, jobs: Any, dest: Path, keep: int | None, *, file: bool = False, new: bool = False
    ) -> Job:
        """Back up now, as a job; file: to a single one. Raises Conflict if one goes on."""

        async def work(job: Job) -> dict[str, Any]:
            making = self.make_file(dest, job) if file else self.make(dest, keep, job, new=new)
            return told_of(await making)

        job: Job = jobs.start("catalog backup", work)
        return job


def told_of(made: backup.Made) -> dict[str, Any]:
    """A backup that was made, as the API tells of it."""
    return {
        "name": made.name, "bytes": made.size, "pieces": made.pieces,
        "new_pieces": made.new_pieces, "written": made.new_bytes, "removed": list(made.removed),
    }  # fmt: skip


def _told(job: Job | None) -> backup_file.Told:
    """Tells a job of the progress, and ends the work with it; called in the thread."""

    def told(done: int, total: int) -> None:
        trio.from_thread.check_cancelled()
        if job is not None:
            job.progress = {"bytes_done": done, "bytes": total}

    return told


async def offline(
    config: Config, dest: Path, keep: int | None, *, file: bool = False, new: bool = False
) -> backup.Made:
    """A backup of a catalog that no daemon holds. Raises CatalogInUse, NotFound, OSError."""
    catalog = await clock.blocking(lambda: Catalog.open(config.daemon.state))
    try:
        backups = Backups(catalog, config, Events())
        return await (backups.make_file(dest) if file else backups.make(dest, keep, new=new))
    finally:
        catalog.close()
