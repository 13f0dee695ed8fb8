"""A rebuild from the first disc to the catalog in its place, each step resumable after a crash.

Needs no daemon and no catalog: only the configuration, the discs, and the pools if they still are.
The catalog appears under its name only when it is complete, durable and has passed fsck.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ... import clock, crash, durable, logs
from ...catalog import check
from ...catalog.catalog import FILE, Catalog
from ...catalog.check import Severity
from ...catalog.draft import Draft
from ...catalog.draft_end import Ending, flatten
from ...catalog.lock import locked
from ...config import Config
from ...disc.apart import Manifests
from ...disc.parity_image import read_facts
from ...errors import Conflict, PoolUnavailable
from ...pool.pools import Pools
from ...pool.store import MARKER, Pool
from ..parity_disc import learn
from . import pools as resident
from .harvest import DRAFT, Harvest, Record
from .outlook import PACKED_INODE, Outlook
from .sources import Source

log = logs.get(__name__)
FOLDER = "rebuild"
LOST = "rebuild.lost.jsonl"
FOREIGN = "'hsmctl volume adopt' takes it over; it is of archive"
CHECKS_AT_ONCE = 3
"""Checks of fsck side by side: nobody uses the catalog yet."""


@dataclass(slots=True)
class Progress:
    """How far a rebuild is: phase is a word, done and total are of it.

    seconds_left: until all phases are over; None while nobody can tell.
    """

    phase: str = "discs"
    disc: str = ""
    done: int = 0
    total: int = 0
    seconds_left: float | None = None


@dataclass(slots=True)
class Report:
    """What a rebuild came to; counts of inodes, times in seconds."""

    files: int = 0
    inodes: int = 0
    snapshot: str | None = None
    """Barcode of the disc that the snapshot was on, or the backup."""
    snapshot_ns: int | None = None
    discs: int = 0
    """Whose manifests were laid on the snapshot."""
    lines: int = 0
    known: int = 0
    """Discs in the catalog that hold something."""
    missing: list[str] = field(default_factory=list)
    """Barcodes of discs that hold something and are not in the library."""
    unread: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    """Discs that are gone and held files that nothing else tells of; barcode and why."""
    drives: dict[str, str] = field(default_factory=dict)
    """Drives that were used no more, and why."""
    foreign: dict[str, str] = field(default_factory=dict)
    """Discs of other archives, and which."""
    kept_in_pools: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    """What does not come back as it was, by kind."""
    list: str | None = None
    """Where each of these is named."""
    repaired: int = 0
    findings: int = 0
    """What fsck found and could not put right; losses are among `lost`."""
    visit_seconds: float = 0.0
    build_seconds: float = 0.0


Told = Callable[[Progress], None]


class Rebuild:
    """One rebuild into the state directory of a configuration."""

    def __init__(
        self,
        config: Config,
        source: Source,
        told: Told,
        *,
        new_pools: bool,
        backup: Path | None = None,
        archive: str | None = None,
    ) -> None:
        """archive: whose catalog it is; None: the backup's, or that of all discs there."""
        self._config, self._source, self._told = config, source, told
        self._new_pools, self._backup, self._archive = new_pools, backup, archive
        self._state = config.daemon.state
        self._work = self._state / FOLDER
        self._report = Report()
        self._progress = Progress()
        self._outlook = Outlook()
        self._began, self._before = time.monotonic(), 0

    async def run(self) -> Report:
        """Make the catalog. Raises Conflict if there is one or discs are of several archives,
        NotFound if none is of the one that was named, PoolUnavailable, MediaError, DriveError.
        """
        if (self._state / FILE).exists():
            raise Conflict(
                f"{self._state} holds a catalog already",
                next_step="move it away first if it is not good any more; nothing was changed",
            )
        self._state.mkdir(parents=True, exist_ok=True)
        with locked(self._state):
            opened = await clock.blocking(self._pools)
            harvest = await clock.blocking(lambda: Harvest(self._work, self._archive))
            started = time.monotonic()
            if (dest := self._backup) is not None:
                await clock.blocking(lambda: harvest.take_backup(dest))
            places = await self._visit(harvest)
            self._report.visit_seconds = time.monotonic() - started
            await clock.blocking(lambda: self._build(harvest, opened, places))
            await self._check()
            await clock.blocking(self._into_place)
        self._report.build_seconds = time.monotonic() - started - self._report.visit_seconds
        return self._report

    # Discs

    async def _visit(self, harvest: Harvest) -> dict[str, int] | None:
        self._begin("discs", 0)

        def told(barcode: str, visited: int, total: int) -> None:
            self._progress.disc, self._progress.total = barcode, total
            self._expect(harvest, total / visited if visited else 1.0)
            self._step(visited)

        places = await self._source.visit(harvest, told)
        self._report.unknown, self._report.drives = harvest.unknown, harvest.broken
        self._report.foreign = {code: whose for code, (_, whose) in harvest.foreign.items()}
        self._report.unread = {code: why for code, (_, why) in harvest.unread.items()}
        return places

    def _expect(self, harvest: Harvest, share: float = 1.0) -> None:
        """What the discs that were visited say of the phases to come.

        share: of all discs to those.
        """
        path = harvest.snapshot_path
        packed = path.stat().st_size if path is not None else 0
        lines = share * harvest.lines
        inodes = packed / PACKED_INODE + lines
        self._outlook.expect(
            snapshot=packed, manifests=lines, names=inodes, pools=0, fsck=inodes
        )

    def _pools(self) -> list[Pool]:
        opened = []
        for pool in self._config.pool:
            if not (pool.path / MARKER).exists():
                if not self._new_pools:
                    raise PoolUnavailable(
                        f"pool {pool.name}: there is none at {pool.path}",
                        next_step="mount it, or begin with empty pools: --new-pools",
                    )
                Pool.create(pool.path)
            opened.append(
                Pool(pool.name, pool.path, pool.tier, pool.capacity, pool.high, pool.low)
            )
            opened[-1].check()
        return opened

    # The draft

    def _build(self, harvest: Harvest, opened: list[Pool], places: dict[str, int] | None) -> None:
        if (self._work / FILE).exists():
            return  # sealed by a run that was killed after it
        self._expect(harvest)
        self._begin("snapshot", 0)
        draft = Draft.begin(
            self._work / DRAFT, harvest.snapshot_path, clock.now_ns(), (os.getuid(), os.getgid()),
            harvest.archive,
        )
        if (begun := draft.fact("archive")) and harvest.archive not in (None, begun):
            raise Conflict(
                f"{self._work} was begun for archive {begun}",
                next_step="name that one, or remove the folder and begin anew",
            )
        crash.point("rebuild.draft.begun")
        self._lay_on(draft, harvest)
        for barcode, capacity in harvest.blank.items():
            draft.add_blank(barcode, capacity, clock.now_ns())
        for barcode, (capacity, reason) in harvest.unread.items():
            if places is not None:
                draft.add_unread(barcode, capacity, reason, clock.now_ns())
        for barcode, (capacity, whose) in harvest.foreign.items():
            if places is not None:
                draft.add_unread(barcode, capacity, f"{FOREIGN} {whose}", clock.now_ns())
        if places is not None:
            self._report.missing = draft.see(places)
        self._end(Ending(draft), harvest, opened)
        os.rename(self._work / DRAFT, self._work / FILE)
        durable.sync(self._work)
        crash.point("rebuild.draft.sealed")

    def _lay_on(self, draft: Draft, harvest: Harvest) -> None:
        records = harvest.records()
        self._report.discs = len(records)
        applied = draft.applied()
        todo = [record for record in records if applied.get(record.disc.barcode, 0) >= 0]
        before = sum(record.files for record in records) - sum(record.files for record in todo)
        self._begin("manifests", sum(record.files for record in records), before)
        with Manifests([harvest.manifest(record.disc) for record in todo]) as manifests:
            for record, (folders, lines) in zip(todo, manifests, strict=True):
                self._progress.disc = record.disc.barcode
                done = 0
                places = harvest.places(record.disc)
                for done in draft.apply(record.disc, folders, lines, places):
                    self._step(min(before + done, self._progress.total))
                    crash.point("rebuild.batch.committed")
                self._report.lines += done
                before += record.files
        _learn(draft, records)

    def _end(self, ending: Ending, harvest: Harvest, opened: list[Pool]) -> None:
        inodes, in_pools = ending.count_inodes()[0], ending.count_in_pools()
        self._outlook.expect(names=inodes, fsck=inodes, pools=in_pools)
        self._begin("names", 0)
        ending.settle()
        crash.point("rebuild.settled")
        for pool in opened:
            pool.id = ending.register(pool.name, pool.tier, pool.uuid)
        self._begin("pools", in_pools)
        self._report.kept_in_pools = resident.match(ending, Pools(opened), self._step)
        ending.drop_lost()
        ending.audit(harvest.audit())
        crash.point("rebuild.pools.matched")
        self._write_lost(ending)
        report = self._report
        if harvest.snapshot is not None:
            report.snapshot, report.snapshot_ns = harvest.snapshot.barcode, ending.snapshot_ns
        report.known = ending.count_volumes()
        report.inodes, report.files = ending.count_inodes()
        ending.seal()

    def _write_lost(self, ending: Ending) -> None:
        dest = self._state / LOST
        counts: dict[str, int] = {}
        with dest.open("w") as out:
            for lost in ending.lost():
                counts[lost.kind] = counts.get(lost.kind, 0) + 1
                path = os.fsdecode(lost.path) if lost.path is not None else None
                shown = path.encode("utf-8", "backslashreplace").decode() if path else None
                line = {"kind": lost.kind, "inode": lost.ino, "path": shown, "note": lost.note}
                out.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._report.lost = counts
        self._report.list = str(dest) if counts else None
        if not counts:
            dest.unlink()

    # The end

    async def _check(self) -> None:
        """fsck of the catalog, before it is in its place."""
        self._begin("fsck", len(check.CHECKS))
        catalog = await clock.blocking(lambda: Catalog.open(self._work))
        try:
            number = 0

            def begun(name: str) -> None:
                nonlocal number
                number += 1
                self._progress.disc = name
                self._step(max(0, number - CHECKS_AT_ONCE))  # so many have ended

            found = await check.run(catalog, begun, at_once=CHECKS_AT_ONCE)
            self._report.repaired = await check.repair(catalog, found)
            if self._report.repaired:
                found = await check.run(catalog, at_once=CHECKS_AT_ONCE)
            self._report.findings = sum(one.severity is not Severity.NOTE for one in found)
            await catalog.sync()
            await catalog.checkpoint()
        finally:
            catalog.close()

    def _into_place(self) -> None:
        flatten(self._work / FILE)
        os.rename(self._work / FILE, self._state / FILE)
        durable.sync(self._state)
        crash.point("rebuild.in_place")
        shutil.rmtree(self._work)
        self._config.engine.spool.mkdir(parents=True, exist_ok=True)

    # How far it is

    def _begin(self, phase: str, total: int, done: int = 0) -> None:
        """done: by runs that were cut off."""
        now = time.monotonic()
        self._outlook.begin(phase, now - self._began)
        self._progress = Progress(phase, total=total)
        self._began, self._before = now, done
        self._step(done)

    def _step(self, done: int) -> None:
        progress = self._progress
        progress.done = done
        before = self._before
        progress.seconds_left = self._outlook.left(
            done - before, progress.total - before, time.monotonic() - self._began
        )
        self._told(progress)


def _learn(draft: Draft, records: Sequence[Record]) -> None:
    """What parity discs tell of their sets, also of members that nobody has seen."""
    with draft.db:
        for record in records:
            facts = read_facts({"parity": record.parity}) if record.parity else None
            group = draft.sets.by_uuid(record.disc.set_uuid)
            if facts is not None and group is not None:
                learn(draft, group, facts, ours=True)
