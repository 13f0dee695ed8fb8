"""Compares a tree with the checksums of its ingest: bytes on disk, and with `deep` each copy.

A file may be written, released or recalled meanwhile: what does not agree is believed only if the
file stood still. Nothing is mended here; a disc that does not read is given to the scrubber.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import trio

from ... import clock
from ...catalog.catalog import Catalog
from ...catalog.copies import Copy
from ...catalog.mismatches import Mismatch
from ...catalog.reports import Reports
from ...disc.digest import digest_file, read_full
from ...errors import PosixError
from ...logs import printable
from ...states import STUBS, CopyState, VolumeState
from ...types import CHUNK, Attr, Digest, InodeNo, PoolId, Range, VolumeId
from ..events import Events
from ..files import Files
from ..jobs import Job
from ..live import Live
from ..paths import files_below, path_of
from ..ranges import overlap, total
from ..trust.audit import Note, unheard
from ..views import b64, text
from .claims import Above, Claim
from .discs import DiscPass, Reading, Tell
from .ingest import Ingest, compare
from .report import Disc, Report
from .resume import Resume

FILES, BYTES = 128, 48 * 1024 * 1024
"""One thread call handles so much, or one larger file."""


@dataclass(slots=True)
class _Row:
    """What the catalog says of a file: its checksums in the present version, what its client says,
    and what was found against that before."""

    attr: Attr
    digest: Digest | None
    claim: Claim | None
    before: Mismatch | None


@dataclass(slots=True)
class _Look:
    """A file being read in a thread: chunks that are all on disk, and which of them are wrong.

    Attributes:
        sha256: of the whole, if that is known.
    """

    row: _Row
    live: Live
    gen: int
    pool: PoolId | None
    path: str
    sha256: bytes | None
    chunks: list[int] = field(default_factory=list)
    bad: list[int] = field(default_factory=list)
    error: str = ""


class Verifier:
    """Wired by the engine. note: puts what is found on record."""

    def __init__(
        self, catalog: Catalog, files: Files, ingest: Ingest, events: Events, reading: Reading
    ) -> None:
        self._catalog, self._files, self._ingest = catalog, files, ingest
        self._events, self._reading = events, reading
        self.note: Note = unheard

    async def run(
        self, job: Job, roots: Sequence[Attr], who: str, *, deep: bool, anew: bool = False
    ) -> Report:
        """Compare all files at and below roots; on record and durable when this returns.

        The same order that was cut off goes on where it stood, unless it is to begin anew.
        """
        notes = Resume(self._catalog)
        course = await notes.begin([root.ino for root in roots], deep=deep, anew=anew)
        found, discs = course.found, course.discs
        inos = await self._walk(roots, found)
        progress = _Progress(job, found)
        left = [ino for ino in inos if ino > course.after]
        progress.files(len(inos) - len(left), 0)
        for part in _parts(sorted(left), FILES):
            await self._catalog.settled()
            attrs = [attr for ino in part if (attr := self._files.attr(ino)) is not None]
            found.changed += len(part) - len(attrs)
            look = partial(self._rows, attrs=attrs, discs=discs, found=found)
            rows = await self._catalog.read(look)
            for some in _slices(rows):
                await self._files_on_disk(some, found)
                progress.files(len(some), sum(row.attr.size for row in some))
            course.after = part[-1]
            await notes.note(course)
        if deep:
            await notes.note(course, now=True)
            passes = DiscPass(self._reading, self._files, inos, self._tell(found), course.read)
            for volume, disc in sorted(discs.items(), key=lambda item: item[1].barcode):
                if not disc.not_here and volume not in course.read:
                    await passes.run(volume, disc, found, progress.disc, who)
                    course.read.add(volume)
                    await notes.note(course, now=True)
        found.discs = sorted(discs.values(), key=lambda disc: disc.barcode)
        await self._on_record(found, roots, who, notes)
        return found

    async def _walk(self, roots: Sequence[Attr], found: Report) -> dict[InodeNo, None]:
        """Every file once, and the totals for the bar."""
        inos = dict[InodeNo, None]()
        for root in roots:
            async for batch in files_below(self._catalog, root):
                new = [attr for attr in batch if attr.ino not in inos]
                inos.update((attr.ino, None) for attr in new)
                found.files += len(new)
                found.bytes += sum(attr.size for attr in new)
        return inos

    # What the catalog says

    def _rows(
        self, reports: Reports, attrs: Sequence[Attr], discs: dict[VolumeId, Disc], found: Report
    ) -> list[_Row]:
        rows, above = list[_Row](), Above()
        for attr in attrs:
            digest = reports.copies.digest(attr.ino, attr.version)
            rows.append(_Row(attr, digest, *self._ingest.said(reports, attr, above)))
            if digest is not None:
                copies = reports.copies.of(attr.ino, attr.version)
                found.copies += len({c.copy_no for c in copies if c.state is CopyState.VALID})
                _place(reports, copies, discs)
                found.away += attr.state in STUBS and not _within_reach(copies, discs)
        return rows

    # Bytes on disk

    async def _files_on_disk(self, rows: Sequence[_Row], found: Report) -> None:
        looks = list[_Look]()
        try:
            for row in rows:
                if row.digest is None:
                    found.unarchived += 1
                look = self._begin(row, found)
                if look is not None:
                    looks.append(look)
            await clock.blocking(lambda: _read(looks), clock.HASH)
            for look in looks:
                await self._judge(look, found)
        finally:
            for look in looks:
                self._files.drop(look.live)

    def _begin(self, row: _Row, found: Report) -> _Look | None:
        """Hold the file; what of it can be compared."""
        try:
            live = self._files.hold(row.attr.ino)
        except PosixError:
            found.changed += 1
            return None
        attr = live.attr
        path = ""
        if attr.pool is not None:
            path = self._files.pools[attr.pool].path_of(attr.ino)
        sha256 = row.digest.sha256 if row.digest is not None else None
        look = _Look(row, live, live.gen, attr.pool, path, sha256)
        size = attr.size
        if row.digest is not None and attr.version == row.attr.version:
            for index in range(len(row.digest.chunks)):
                here = Range(index * CHUNK, min((index + 1) * CHUNK, size))
                absent = total(overlap(live.absent, here))
                if not absent:
                    look.chunks.append(index)
                else:
                    found.heads += here.length - absent
        return look

    async def _judge(self, look: _Look, found: Report) -> None:
        """Believe what was read if the file stood still."""
        live, row = look.live, look.row
        same = (live.gen, live.attr.version, live.attr.pool) == (
            look.gen, row.attr.version, look.pool
        )  # fmt: skip
        if not same or live.writing:
            found.changed += 1
            return
        if row.claim is not None and look.sha256 is not None:
            await self._against_client(row, look.sha256, found)
        here = [Range(index * CHUNK, (index + 1) * CHUNK) for index in look.bad]
        bad = [at for at in here if not overlap(live.absent, at)]  # else it was released meanwhile
        if look.error or bad:
            why = f"bytes on disk from {bad[0].start if bad else 0} on are not those of ingest"
            await self._tell(found)("disk", live.ino, look.error or why)
        elif look.chunks:
            found.on_disk += 1
            sizes = (min(CHUNK, live.attr.size - index * CHUNK) for index in look.chunks)
            found.bytes_on_disk += sum(sizes)

    async def _against_client(self, row: _Row, sha256: bytes, found: Report) -> None:
        attr, found.claimed = row.attr, found.claimed + 1
        wrong = compare(attr.ino, attr.version, sha256, row.claim, row.before)
        if wrong is not None and wrong.accepted_by:
            found.accepted += 1
            return
        if wrong is not None:
            found.find(
                "client", attr.ino, path_of(self._catalog, attr.ino),
                f"its SHA-256 is not what {wrong.source} says",
                expected=wrong.expected.hex(), found=wrong.sha256.hex(),
            )  # fmt: skip
        if wrong is not None or row.before is not None:
            async with self._catalog.write():
                self._ingest.settle(attr.ino, wrong)

    # On record

    def _tell(self, found: Report) -> Tell:
        async def tell(what: str, ino: InodeNo, error: str, **where: Any) -> None:
            await self._catalog.settled()
            path = path_of(self._catalog, ino)
            if not found.find(what, ino, path, error, **where):
                return
            shown = printable(path)
            self._events.emit("mismatch", ino=ino, path=shown, what=what, error=error, **where)
            async with self._catalog.write():
                self.note(
                    "integrity.mismatch", "hsmfsd", shown, outcome="failed", ino=ino, what=what,
                    error=error, **where,
                )  # fmt: skip

        return tell

    async def _on_record(
        self, found: Report, roots: Sequence[Attr], who: str, notes: Resume
    ) -> None:
        found.ended_ns = clock.now_ns()
        paths = [path_of(self._catalog, root.ino) for root in roots]
        found.paths = [{"path": text(path), "path_b64": b64(path)} for path in paths]
        shown = printable(paths[0])
        async with self._catalog.write():
            head = self.note(
                "integrity.verified", who, shown, paths=len(paths),
                outcome="failed" if found.failed else "done", **found.counts(),
            )  # fmt: skip
            found.record = str(head or "")
            notes.end()
        await self._catalog.sync()
        self._events.emit("verified", path=shown, **found.counts())


class _Progress:
    """What the one who follows is shown."""

    def __init__(self, job: Job, found: Report) -> None:
        self._job, self._found = job, found
        self._done = self._bytes = 0
        self._note = "files on disk"
        self._show()

    def files(self, count: int, size: int) -> None:
        self._done += count
        self._bytes += size
        self._show()

    def disc(self, barcode: str, done: int, size: int) -> None:
        """Bytes of a disc that are read, and in all."""
        self._note = f"disc {barcode} {100 * done // max(size, 1)} %"
        self._show()

    def _show(self) -> None:
        self._job.progress = {
            "files": self._found.files, "files_done": self._done, "bytes": self._found.bytes,
            "bytes_done": self._bytes, "failed": self._found.failed, "note": self._note,
        }  # fmt: skip


def _place(reports: Reports, copies: Iterable[Copy], discs: dict[VolumeId, Disc]) -> None:
    """Count the parts that lie on each disc."""
    for copy in copies:
        part = copy.where
        volume = reports.volumes.get(part.volume)
        if volume is None or copy.state is not CopyState.VALID or not part.stored:
            continue
        disc = discs.get(volume.id)
        if disc is None:
            disc = discs[volume.id] = Disc.of(volume)
            if volume.state not in (VolumeState.FULL, VolumeState.SUSPECT):
                disc.not_here = f"{disc.state}: {volume.reason or volume.location}"
            elif volume.element is None:
                disc.not_here = f"outside the library: {volume.location}"
        disc.parts += 1
        disc.bytes += part.stored


def _within_reach(copies: Iterable[Copy], discs: Mapping[VolumeId, Disc]) -> bool:
    """Whether some copy lies whole on discs that can be read now."""
    whole = dict[int, bool]()
    for copy in copies:
        disc = discs.get(copy.where.volume)
        here = copy.state is CopyState.VALID and (disc is None or not disc.not_here)
        whole[copy.copy_no] = whole.get(copy.copy_no, True) and here
    return any(whole.values())


def _parts(inos: Iterable[InodeNo], count: int) -> Iterator[list[InodeNo]]:
    todo = iter(inos)
    while part := list(islice(todo, count)):
        yield part


def _slices(rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    part, room = list[_Row](), 0
    for row in rows:
        if part and room + row.attr.size > BYTES:
            yield part
            part, room = [], 0
        part.append(row)
        room += row.attr.size
    if part:
        yield part


def _read(looks: Iterable[_Look]) -> None:
    """Hash what is on disk; blocking."""
    buffer = bytearray(CHUNK)
    for look in looks:
        digest = look.row.digest
        try:
            if digest is not None and look.chunks:
                with open(look.path, "rb", buffering=0) as file:
                    for index in look.chunks:
                        trio.from_thread.check_cancelled()
                        if _chunk(file.fileno(), index, look, buffer) != digest.chunks[index]:
                            look.bad.append(index)
            elif digest is None and look.row.claim is not None and not look.live.absent:
                look.sha256 = digest_file(Path(look.path), buffer).sha256
        except FileNotFoundError:
            look.error = "its file in the pool is missing"
        except OSError as fault:
            look.error = f"it does not read on disk: {fault.strerror}"


def _chunk(fd: int, index: int, look: _Look, buffer: bytearray) -> bytes:
    at = index * CHUNK
    view = memoryview(buffer)[: min(CHUNK, look.row.attr.size - at)]
    return hashlib.sha256(read_full(fd, view, at)).digest()
