"""Rehearses a rebuild on a running system: reads some discs and compares them with the catalog.

Nothing is changed, and the discs are asked for at the lowest urgency. Tells what a rebuild would
bring back, what it could not, and how long it would take (estimate.py).
"""

from __future__ import annotations

import random
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from ... import clock, logs
from ...catalog.places import write_places
from ...catalog.queues import RecallClass
from ...catalog.rehearse import archived_files, compare_disc
from ...catalog.volumes import Volume
from ...disc import described
from ...disc.lines import lines
from ...disc.reader import DiscReader
from ...errors import HsmError
from ...states import VolumeState
from ...types import SECTOR, VolumeId
from ..adopt_discs import ELSEWHERE
from ..jobs import Job
from ..schedule import Purpose
from .estimate import Parts, catalog_parts, visits

if TYPE_CHECKING:
    from ..service import Engine

log = logs.get(__name__)
FOLDER = "rehearsal"
_READABLE = (VolumeState.FULL, VolumeState.SUSPECT)


@dataclass(slots=True)
class Rehearsal:
    """What a rehearsal found; counts of files and lines, times in seconds."""

    discs: list[str] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)
    adopted: int = 0
    """Discs of other archives: their manifests do not say what this catalog calls their files."""
    lines: int = 0
    same: int = 0
    """Lines that say what the catalog says of that version and where it lies."""
    different: list[str] = field(default_factory=list)
    """The first of the others, in words."""
    snapshot: str | None = None
    """The newest of these discs that carries a snapshot."""
    files: int = 0
    archived: int = 0
    """Of them, those that lie on discs whole: what discs alone can bring back."""
    disc_seconds: float = 0.0
    """Reading what is needed of one disc that was loaded."""
    line_seconds: float = 0.0
    full_discs: int = 0
    """Discs that a rebuild visits at most: since the last snapshot, or all; and blank ones."""
    drives: int = 0
    parts: Parts = field(default_factory=Parts)
    """Of the whole rebuild."""
    full_seconds: float = 0.0
    unmeasured: str | None = None
    """Why snapshot, names, pools and fsck are missing from it, if they are."""

    @property
    def coverage(self) -> float:
        """Share of the files that discs alone bring back, in percent."""
        return round(100.0 * self.archived / self.files, 3) if self.files else 100.0


def order(engine: Engine, discs: int) -> Job:
    """Rehearse with so many discs, as a job. Raises Conflict if one goes on."""

    async def work(job: Job) -> dict[str, Any]:
        folder = engine.config.daemon.state / FOLDER
        await clock.blocking(lambda: _empty(folder))
        try:
            found = await _Sample(engine, discs, job, folder).run()
        finally:
            with trio.CancelScope(shield=True):
                await clock.blocking(lambda: shutil.rmtree(folder))
        return {**asdict(found), "coverage": found.coverage}

    return engine.jobs.start("rehearsal", work)


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


class _Sample:
    """One rehearsal."""

    def __init__(self, engine: Engine, discs: int, job: Job, folder: Path) -> None:
        self._engine, self._wanted, self._job, self._folder = engine, discs, job, folder
        self._found = Rehearsal()
        self._snapshot_ns = 0

    async def run(self) -> Rehearsal:
        found = self._found
        volumes = [v for v in self._engine.catalog.volumes.all() if self._can_be_read(v)]
        volumes.sort(key=lambda v: v.burned_ns or 0, reverse=True)
        own = [v for v in volumes if v.written_by != ELSEWHERE]
        found.adopted = len(volumes) - len(own)
        data = [v for v in own if not self._is_parity(v)]
        others = data[1:]
        chosen = data[:1] + random.sample(others, min(len(others), self._wanted - 1))
        for number, volume in enumerate(chosen):
            self._job.progress = {
                "disc": volume.barcode, "discs_done": number, "discs": len(chosen)
            }
            try:
                await self._one(volume)
                found.discs.append(volume.barcode)
            except HsmError as fault:
                found.unread[volume.barcode] = fault.message
        found.files, found.archived = await self._engine.catalog.read(
            lambda reports: archived_files(reports.db)
        )
        self._job.progress = {"phase": "the catalog's part"}
        found.unmeasured = await catalog_parts(
            self._engine, self._folder, self._snapshot_ns, found.parts
        )
        self._estimate(volumes, data)
        return found

    def _can_be_read(self, volume: Volume) -> bool:
        return volume.state in _READABLE and volume.element is not None

    def _is_parity(self, volume: Volume) -> bool:
        """There is no file on it, so it says nothing that could be compared."""
        group = self._engine.catalog.sets.of(volume.id)
        return group is not None and (volume.set_index or 0) >= group.k

    async def _one(self, volume: Volume) -> None:
        manifest, places = self._folder / "manifest.jsonl", self._folder / "places"
        await self._fetch(volume, manifest, places)
        started = time.monotonic()
        done, same, odd = await self._engine.catalog.read(
            lambda reports: compare_disc(reports.db, volume.id, lines(manifest), places)
        )
        self._found.line_seconds += time.monotonic() - started
        self._found.lines += done
        self._found.same += same
        self._found.different += [f"{volume.barcode}: {text}" for text in odd]
        del self._found.different[100:]

    async def _fetch(self, volume: Volume, manifest: Path, places: Path) -> None:
        async with self._engine.mounts.use(
            VolumeId(volume.id), Purpose.READ, bytes=volume.used // 1000,
            who="rehearsal of a rebuild", urgency=RecallClass.BULK,
        ) as session:  # fmt: skip

            def read_at(sector: int, count: int) -> bytes:
                return trio.from_thread.run(session.read, sector, count)

            def take() -> tuple[bool, int]:
                reader = DiscReader(read_at, session.medium.written_bytes // SECTOR)
                described.copy_manifest(reader, manifest)
                write_places(places, described.places(reader.iso))
                return described.has_snapshot(reader), reader.label.created_ns

            started = time.monotonic()
            snapshot, created_ns = await clock.blocking(take, clock.MEDIA)
            self._found.disc_seconds += time.monotonic() - started
        if snapshot and created_ns > self._snapshot_ns:
            self._found.snapshot, self._snapshot_ns = volume.barcode, created_ns

    def _estimate(self, volumes: list[Volume], data: list[Volume]) -> None:
        """What a rebuild would take: visits with all drives, and lines at the pace seen here.

        A rebuild visits all volumes; lines of files are on those of data.
        """
        found, engine = self._found, self._engine
        read = len(found.discs)
        if not read:
            return
        found.disc_seconds = round(found.disc_seconds / read, 3)
        written, with_lines = (
            sum((v.burned_ns or 0) >= self._snapshot_ns for v in some) for some in (volumes, data)
        )
        blank = sum(v.element is not None for v in engine.catalog.volumes.all(VolumeState.BLANK))
        found.full_discs, found.drives = written + blank, len(engine.library.drives)
        found.parts.discs = visits(
            written, blank, found.drives, engine.mounts.pace.of(""), found.disc_seconds
        )
        per_line = found.line_seconds / max(1, found.lines)
        found.parts.manifests = with_lines * found.lines / read * per_line
        found.line_seconds = round(found.line_seconds, 3)
        found.full_seconds = round(found.parts.total, 1)
        found.parts = found.parts.rounded()
