"""Reads what a disc should hold from the other discs of its set, one disc after the other.

Of n discs any k will do: those are asked that cost the fewest exchanges, the ones in drives first.

At most one drive is held at a time, so any number of drives will do and nobody waits in a circle;
the memory is that of the places asked for, times the parity rows. Discs that cannot be had count as
lost, sectors that do not read as holes, as long as parity makes up for them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import trio

from .. import clock, logs
from ..catalog.catalog import Catalog
from ..catalog.queues import RecallClass
from ..catalog.sets import SpooledRow, VolumeSet
from ..catalog.volumes import Volume
from ..disc.iso9660 import Iso
from ..disc.parity_image import ParityFacts, parity_place, read_facts
from ..disc.reader import DiscReader
from ..errors import (
    ChangerError,
    Conflict,
    DriveError,
    HsmError,
    RecallFailed,
    UnreadableSector,
)
from ..states import SetState, VolumeState
from ..types import SECTOR, VolumeId
from .mounts import Mounts
from .schedule import Effort, Purpose, fewest_exchanges
from .session import Session
from .syndromes import Run, Sums, Syndromes

log = logs.get(__name__)
PIECE = 4096
"""Sectors read at a time."""
TRIES = 3
"""Sessions that a drive may break before the disc counts as lost."""
Take = Callable[[int, bytes, tuple[int, ...]], Awaitable[None]]
"""Given the first sector, its bytes and those that follow, and which sectors did not read."""
_GOOD = (VolumeState.FULL, VolumeState.SUSPECT)


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What a disc gave of some sectors: zeros where it gave nothing."""

    data: bytes
    bad: tuple[int, ...]


@dataclass(slots=True)
class _Ask:
    """What is asked of a set: sums over its discs in the place of one of them.

    Attributes:
        progress: told the bytes that were read.
        faults: what was wrong with discs that could not be had.
    """

    group: VolumeSet
    volume: Volume
    sums: Syndromes
    urgency: RecallClass
    progress: Callable[[int], None] = lambda count: None
    faults: list[str] = field(default_factory=list)


class ParityReader:
    """Reads through parity for recalls and for discs that are made anew."""

    def __init__(
        self, catalog: Catalog, mounts: Mounts, effort: Callable[[VolumeId], Effort]
    ) -> None:
        self._catalog, self._mounts, self._effort = catalog, mounts, effort
        self._places: dict[str, int] = {}

    def covered(self, volume: VolumeId) -> VolumeSet | None:
        """The set by whose parity the data disc can be made up for, if there is one."""
        group, found = self._catalog.sets.of(volume), self._catalog.volumes.get(volume)
        if group is None or found is None or found.set_index is None:
            return None
        closed = group.state is SetState.CLOSED and group.m > 0
        return group if closed and found.set_index < group.k else None

    def parity_row(self, volume: VolumeId) -> tuple[VolumeSet, SpooledRow] | None:
        """The set and the row that a parity disc of a closed set holds; None for other discs."""
        group, found = self._catalog.sets.of(volume), self._catalog.volumes.get(volume)
        if group is None or found is None or found.set_index is None:
            return None
        row = self._catalog.sets.parity(group.id).get(found.set_index - group.k)
        return (group, row) if group.state is SetState.CLOSED and row is not None else None

    async def facts(self, group: VolumeSet) -> ParityFacts:
        """What the set's parity discs tell of it. Raises RecallFailed if none of them reads."""
        faults: list[str] = []
        for disc in self._catalog.sets.discs(group.id):
            if (disc.set_index or 0) < group.k:
                continue
            try:
                async with self._mounts.use(
                    disc.id, Purpose.READ, urgency=RecallClass.BULK, who="what is in a set"
                ) as session:
                    found = await _facts(session)
                if found is not None:
                    return found
            except (ChangerError, Conflict):
                raise
            except HsmError as error:
                faults.append(f"disc {disc.barcode}: {error.message}")
        raise RecallFailed(
            f"no parity disc of set {group.name} can be read: {'; '.join(faults)}",
            next_step="bring one back, then run 'hsmctl library inventory'",
        )

    async def row_sums(
        self,
        volume: Volume,
        row: int,
        runs: Sequence[Run],
        progress: Callable[[int], None],
        make: Callable[[int], Sums],
    ) -> Syndromes:
        """A parity row from all data discs of its set. Raises RecallFailed if one is missing."""
        group = self._catalog.sets.of(volume.id)
        assert group is not None
        sums = Syndromes(None, [row], runs, make)
        ask = _Ask(group, volume, sums, RecallClass.BULK, progress)
        await self._add_data(ask)
        if not sums.complete:
            raise RecallFailed(
                f"parity disc {volume.barcode} needs every data disc of set {group.name}:"
                f" {'; '.join(ask.faults) or 'some have sectors that do not read'}",
                next_step="rebuild those first: 'hsmctl volume rebuild'",
            )
        return sums

    async def own(
        self, volume: Volume, runs: Sequence[Run], urgency: RecallClass
    ) -> list[Salvaged] | None:
        """What the disc itself still gives; None if it cannot be had."""
        if volume.state not in _GOOD:
            return None
        found: list[Salvaged] = []

        async def take(sector: int, data: bytes, bad: tuple[int, ...]) -> None:
            found.append(Salvaged(data, bad))

        try:
            await self._each(volume, runs, urgency, take, whole=True)
        except (ChangerError, Conflict):
            raise
        except HsmError as error:
            log.info("disc cannot be had", volume=volume.barcode, error=error.message)
            return None
        return found

    async def syndromes(
        self,
        volume: Volume,
        runs: Sequence[Run],
        urgency: RecallClass,
        progress: Callable[[int], None] = lambda count: None,
        make: Callable[[int], Sums] = bytearray,
    ) -> Syndromes:
        """Sums over the other discs of the set for runs of the disc, in ascending order.

        Raises RecallFailed naming the discs that are missing if they are too many; ChangerError.
        """
        group = self._catalog.sets.of(volume.id)
        assert group is not None and volume.set_index is not None
        sums = Syndromes(volume.set_index, range(group.m), runs, make)
        sums.spare(self._spared(group, volume))
        ask = _Ask(group, volume, sums, urgency, progress)
        rows = sorted(range(group.m), key=lambda row: self._row_rank(group, row))
        for row in rows[: len(sums.lost)]:
            if self._row_rank(group, row)[1] is Effort.NONE:  # before a fetch puts it away
                await self._add_row(ask, row)
        await self._add_data(ask)
        for row in (row for row in rows if row not in sums.rows_read):
            if sums.short(len(sums.rows_read)):
                await self._add_row(ask, row)
        if sums.spared and sums.short(len(sums.rows_read)):
            await self._add_spared(ask)
        if len(sums.rows_read) < len(sums.lost):
            raise _hopeless(ask)
        return sums

    async def complete(
        self, group: VolumeSet, volume: Volume, sums: Syndromes, urgency: RecallClass
    ) -> None:
        """Read what was not needed so far, too: then one disc that reads wrong can be found out."""
        ask = _Ask(group, volume, sums, urgency)
        await self._add_spared(ask)
        for row in set(range(group.m)) - sums.rows_read:
            await self._add_row(ask, row)

    def _spared(self, group: VolumeSet, volume: Volume) -> set[int]:
        """Data discs that are not asked, because parity discs cost fewer exchanges."""
        others = [disc for disc in self._catalog.sets.discs(group.id) if disc.id != volume.id]
        data = {disc.id: disc.set_index or 0 for disc in others if (disc.set_index or 0) < group.k}
        usable = sorted(
            (disc for disc in others if disc.state in _GOOD), key=lambda disc: disc.set_index or 0
        )
        need = len(data) + 1
        if len(usable) < need:
            return set()
        sound = [disc for disc in usable if disc.proven]
        usable = sound if len(sound) >= need else usable
        chosen = fewest_exchanges([tuple(disc.id for disc in usable)], self._effort, need=need)
        return {index for disc, index in data.items() if disc not in chosen}

    def _row_disc(self, group: VolumeSet, row: int) -> Volume | None:
        discs = self._catalog.sets.discs(group.id)
        return next((disc for disc in discs if disc.set_index == group.k + row), None)

    def _row_rank(self, group: VolumeSet, row: int) -> tuple[bool, Effort]:
        """The smaller, the better: a sound disc before a suspect one, then fewer exchanges."""
        disc = self._row_disc(group, row)
        return (True, Effort.EXCHANGE) if disc is None else (
            not disc.proven, self._effort(disc.id)
        )  # fmt: skip

    async def _add_spared(self, ask: _Ask) -> None:
        """Ask the data discs that were spared after all."""
        again = set(ask.sums.spared)
        for index in again:
            ask.sums.found(index)
        await self._add_data(ask, only=again)

    async def _add_data(self, ask: _Ask, *, only: set[int] | None = None) -> None:
        """Read the data discs but the one that is wanted. only: these; None: all not spared."""
        group, sums = ask.group, ask.sums
        data = [
            disc
            for disc in self._catalog.sets.discs(group.id)
            if disc.id != ask.volume.id and (disc.set_index or 0) < group.k
            and disc.set_index not in sums.spared and (only is None or disc.set_index in only)
        ]
        for disc in sorted(data, key=lambda disc: self._effort(disc.id)):
            index = disc.set_index or 0

            async def take(
                sector: int, got: bytes, bad: tuple[int, ...], index: int = index
            ) -> None:
                await clock.blocking(lambda: sums.add_data(index, sector, got, bad), clock.HASH)
                ask.progress(len(got))

            error = await self._read_member(ask, disc, disc.used // SECTOR, take)
            if error is not None:
                sums.lost.add(index)
                ask.faults.append(f"disc {disc.barcode}: {error.message}")
                if len(sums.lost - sums.spared) > group.m:
                    raise _hopeless(ask)

    async def _add_row(self, ask: _Ask, row: int) -> None:
        """Read one more parity row, or tell why its disc cannot be had."""
        group, sums = ask.group, ask.sums
        disc = self._row_disc(group, row)
        if disc is None:
            ask.faults.append(f"parity disc {row + 1} of set {group.name} is gone")
            return

        async def take(sector: int, got: bytes, bad: tuple[int, ...]) -> None:
            await clock.blocking(lambda: sums.add_row(row, sector, got, bad), clock.HASH)

        discs = self._catalog.sets.discs(group.id)
        longest = max((d.used for d in discs if (d.set_index or 0) < group.k), default=0)
        error = await self._read_member(ask, disc, longest // SECTOR, take, parity=True)
        if error is not None:
            ask.faults.append(f"disc {disc.barcode}: {error.message}")
            return
        sums.rows_read.add(row)

    async def _read_member(
        self, ask: _Ask, disc: Volume, sectors: int, take: Take, *, parity: bool = False
    ) -> HsmError | None:
        """Read what is asked of a member as far as it goes; its fault if it cannot be had."""
        cut = [(at, min(count, sectors - at)) for at, count in ask.sums.runs if at < sectors]
        if not cut:
            return None
        try:
            await self._each(disc, cut, ask.urgency, take, parity=parity)
        except (ChangerError, Conflict):
            raise
        except HsmError as error:
            return error
        return None

    async def _each(
        self,
        disc: Volume,
        runs: Sequence[Run],
        urgency: RecallClass,
        take: Take,
        *,
        whole: bool = False,
        parity: bool = False,
    ) -> None:
        """Give every run of the disc to take, in pieces unless whole; over several sessions."""
        todo = [
            piece
            for at, count in runs
            for piece in ([(at, count)] if whole else _pieces(at, count))
        ]
        tries = 0
        while todo:
            try:
                async with self._mounts.use(
                    disc.id, Purpose.READ, urgency=urgency, who="parity",
                    bytes=sum(count for _, count in todo) * SECTOR,
                ) as session:
                    base = await self._base(session) if parity else 0
                    while True:
                        at, count = todo[0]
                        data, bad = await salvage(session, base + at, count)
                        todo.pop(0)
                        await take(at, data, tuple(place - base for place in bad))
                        if not todo or session.wanted_elsewhere:
                            break
            except DriveError:
                tries += 1
                if tries >= TRIES:
                    raise

    async def _base(self, session: Session) -> int:
        """The first sector of the parity on the disc in the drive."""
        if session.volume.parity_sector is not None:
            return session.volume.parity_sector
        key = session.volume.uuid or ""
        if key not in self._places:

            def read_at(sector: int, count: int) -> bytes:
                return trio.from_thread.run(session.read, sector, count)

            self._places[key] = await clock.blocking(
                lambda: parity_place(Iso(read_at)), clock.MEDIA
            )
        return self._places[key]


def _hopeless(ask: _Ask) -> RecallFailed:
    group = ask.group
    return RecallFailed(
        f"disc {ask.volume.barcode} cannot be made up for by set {group.name}"
        f" ({group.k}+{group.m}): {'; '.join(ask.faults)}",
        next_step="bring discs of the set back (see 'hsmctl volume set info')",
    )


async def _facts(session: Session) -> ParityFacts | None:
    def read_at(sector: int, count: int) -> bytes:
        return trio.from_thread.run(session.read, sector, count)

    return await clock.blocking(lambda: read_facts(DiscReader(read_at).volume), clock.MEDIA)


def _pieces(at: int, count: int) -> list[Run]:
    return [(n, min(PIECE, at + count - n)) for n in range(at, at + count, PIECE)]


class _Reads(Protocol):
    """A session, or a drive."""

    async def read(self, sector: int, count: int) -> bytes: ...


async def salvage(session: _Reads, sector: int, count: int) -> tuple[bytes, list[int]]:
    """The sectors with zeros for those that do not read, and which these are.

    Raises DriveError. A disc on which sector after sector fails is still read to the end.
    """
    pieces: list[bytes] = []
    bad: list[int] = []
    end = sector + count
    at = sector
    while at < end:
        try:
            pieces.append(await session.read(at, end - at))
            break
        except UnreadableSector as error:
            good = error.sector - at
            if not 0 <= good < end - at:
                raise
            if good:
                # What lies before the bad sector reads.
                pieces.append(await session.read(at, good))
            pieces.append(bytes(SECTOR))
            bad.append(error.sector)
            at = error.sector + 1
    return b"".join(pieces), bad
