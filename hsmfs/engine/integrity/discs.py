"""Reads the copies that files have on one disc, in the order of sectors, and compares them.

Bulk work: whoever reads a file goes first, and the pass goes on where it was. What does not read is
not blamed on the disc yet: the scrubber is asked to test it, in another drive too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ... import clock
from ...catalog.catalog import Catalog
from ...catalog.copies import Copy
from ...catalog.queues import RecallClass
from ...catalog.reports import Reports
from ...catalog.volumes import Volume
from ...errors import DriveError, HsmError, PosixError, UnreadableSector
from ...states import CopyState
from ...types import CHUNK, SECTOR, CopyId, InodeNo, Range, VolumeId
from ..ahead import GAP, MOST
from ..files import Files
from ..mounts import Mounts
from ..ranges import overlap, subtract
from ..schedule import Purpose
from ..scrub_plan import Piece, chunks_of
from ..session import Session
from .report import Disc, Report

PAGE = 500
"""Parts of files looked up at once."""
DRIVES = 2
"""Drives that may fail under the pass."""
ENOUGH = 20
"""Places of one disc that do not read, after which the rest of it is not tried."""


class Tell(Protocol):
    """Told of what is not as it should be."""

    def __call__(
        self, what: str, ino: InodeNo, error: str, **where: object
    ) -> Awaitable[None]: ...


Shown = Callable[[str, int, int], None]
"""Told how far a disc is: barcode, bytes read, bytes in all."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a pass needs of the engine. doubted: told of a disc that did not read, and who asked."""

    catalog: Catalog
    mounts: Mounts
    doubted: Callable[[Volume, str], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class _Spot:
    """One chunk of a file on the disc."""

    copy: Copy
    index: int
    piece: Piece
    last: bool


class DiscPass:
    """Passes over discs, for the same files."""

    def __init__(
        self, reading: Reading, files: Files, inos: Collection[InodeNo], tell: Tell,
        read: Collection[VolumeId],
    ) -> None:
        """read: discs that were read, some perhaps before a restart."""
        self._reading, self._files, self._tell = reading, files, tell
        self._inos, self._before = inos, frozenset(read)
        self._bad = set[CopyId]()
        self._heads = set[tuple[InodeNo, int]]()
        self._done = self._at = 0

    async def run(
        self, volume: VolumeId, disc: Disc, found: Report, shown: Shown, who: str
    ) -> None:
        """Read what the disc has of the files. A disc that cannot be had says so in its row."""
        self._bad.clear()
        self._done = self._at = broken = 0
        while self._at >= 0:
            try:
                async with self._reading.mounts.use(
                    volume, Purpose.READ, urgency=RecallClass.BULK, who="verify",
                    bytes=max(disc.bytes - self._done, 0),
                ) as session:  # fmt: skip
                    await self._session(session, disc, found, shown)
            except HsmError as fault:
                broken += 1
                if not isinstance(fault, DriveError) or broken > DRIVES:
                    disc.not_here = fault.message
                    break
        if self._bad:
            known = self._reading.catalog.volumes.get(volume)
            assert known is not None
            await self._reading.doubted(known, who)

    async def _session(
        self, session: Session, disc: Disc, found: Report, shown: Shown
    ) -> None:
        """Read on until others want the drive, or the end, which is -1."""
        volume = session.volume.id
        while spots := await self._reading.catalog.read(
            lambda reports: self._page(reports, volume, self._at)
        ):
            for group in _groups(spots):
                if len(self._bad) >= ENOUGH:
                    disc.not_here = f"{ENOUGH} places did not read: the rest was not tried"
                    self._at = -1
                    return
                await self._group(session, group, disc, found)
                self._at = group[-1].piece.end
                shown(disc.barcode, self._done, disc.bytes)
                if session.wanted_elsewhere:
                    return
        self._at = -1

    def _page(self, reports: Reports, volume: VolumeId, at: int) -> list[_Spot]:
        """The next chunks of our files from a byte on."""
        found = list[_Spot]()
        sector = at // SECTOR
        while not found:
            parts = reports.copies.laid(volume, sector, PAGE)
            for copy in parts:
                if copy.ino in self._inos and copy.state is CopyState.VALID:
                    found += [s for s in _spots(reports, copy) if s.piece.start >= at]
            if len(parts) < PAGE:
                return found
            sector = parts[-1].where.sector
        return found

    async def _group(
        self, session: Session, group: Sequence[_Spot], disc: Disc, found: Report
    ) -> None:
        """Read chunks that lie together, at once if that goes."""
        datas: list[bytes | None] = await _together(session, group)
        for spot, data in zip(group, datas, strict=True):
            fault: UnreadableSector | None = None
            try:
                if data is None:
                    data = await session.test(*spot.piece.sectors)
                await self._compare(spot, data, found)
            except UnreadableSector as error:
                fault = error
            self._done += spot.piece.end - spot.piece.start
            if fault is not None and spot.copy.id not in self._bad:
                self._bad.add(spot.copy.id)
                disc.parts_bad += 1
                await session.doubt(fault)
                await self._tell(
                    "disc", spot.copy.ino, fault.message, disc=disc.barcode,
                    copy=spot.copy.copy_no, drive=session.drive.name,
                )  # fmt: skip
            elif spot.last and spot.copy.id not in self._bad:
                disc.parts_read += 1

    async def _compare(self, spot: _Spot, data: bytes, found: Report) -> None:
        """The chunk, and with it what is on disk of a chunk that is not all there."""
        plain = await clock.blocking(lambda: spot.piece.check(data), clock.HASH)
        ino, start = spot.copy.ino, spot.index * CHUNK
        try:
            live = self._files.hold(ino)
        except PosixError:
            return  # deleted meanwhile
        try:
            here = Range(start, start + len(plain))
            if live.attr.version != spot.copy.version or not overlap(live.absent, here):
                return
            present = [here]
            for absent in live.absent:
                present = subtract(present, absent)
            if not present or live.attr.pool is None:
                return
            pool = live.attr.pool
            path = self._files.pools[pool].path_of(ino)
            wrong = await clock.blocking(lambda: _differs(path, present, plain, start))
            still = (live.attr.version, live.attr.pool) == (spot.copy.version, pool)
            if (ino, spot.index) not in self._heads and not self._was_read(spot):
                self._heads.add((ino, spot.index))
                found.heads -= sum(part.length for part in present)
            if wrong is not None and still and not overlap(live.absent, wrong):
                await self._tell(
                    "disk", ino, f"bytes on disk from {wrong.start} on are not those of ingest"
                )
        finally:
            self._files.drop(live)

    def _was_read(self, spot: _Spot) -> bool:
        """Whether another disc told of the same bytes before a restart."""
        at, where = spot.index * CHUNK, self._reading.catalog.copies
        return bool(self._before) and any(
            copy.where.volume in self._before
            and copy.state is CopyState.VALID
            and copy.where.offset <= at < copy.where.offset + copy.where.length
            for copy in where.of(spot.copy.ino, spot.copy.version)
        )


def _spots(reports: Reports, copy: Copy) -> Iterator[_Spot]:
    """The chunks of a part, if it is of the file's present version."""
    attr = reports.inodes.get_raw(copy.ino)
    digest = reports.copies.digest(copy.ino, copy.version)
    if attr is None or digest is None or attr.version != copy.version:
        return
    pieces = list(chunks_of(copy, digest.chunks))
    first = copy.where.offset // CHUNK
    for number, piece in enumerate(pieces):
        yield _Spot(copy, first + number, piece, number == len(pieces) - 1)


def _groups(spots: Sequence[_Spot]) -> Iterator[list[_Spot]]:
    """Chunks that are worth one read."""
    group = list[_Spot]()
    for spot in spots:
        sector, count = spot.piece.sectors
        if group:
            first, (start, length) = group[0].piece.sectors[0], group[-1].piece.sectors
            if sector - (start + length) > GAP or sector + count - first > MOST:
                yield group
                group = []
        group.append(spot)
    if group:
        yield group


async def _together(session: Session, group: Sequence[_Spot]) -> list[bytes | None]:
    """What each chunk's sectors hold; None for each that is to be read alone."""
    first = group[0].piece.sectors[0]
    start, length = group[-1].piece.sectors
    if len(group) == 1:
        return [None]
    try:
        data = await session.test(first, start + length - first)
    except UnreadableSector:
        return [None] * len(group)
    cut = list[bytes | None]()
    for spot in group:
        sector, count = spot.piece.sectors
        cut.append(data[(sector - first) * SECTOR : (sector - first + count) * SECTOR])
    return cut


def _differs(
    path: str, present: Sequence[Range], plain: bytes | memoryview, start: int
) -> Range | None:
    """The first range of a pool file that is not as on the disc, or does not read; blocking."""
    part = present[0]
    try:
        with open(path, "rb", buffering=0) as file:
            for part in present:
                file.seek(part.start)
                if file.read(part.length) != bytes(plain[part.start - start : part.end - start]):
                    return part
    except OSError:
        return part
    return None
