"""Data discs that nobody can visit, read by the parity of their sets while a catalog is rebuilt.

A parity disc names the members of its set. One that is neither in the library nor in the snapshot
holds files that nobody else tells of: its folders and manifest are worked out from the other discs,
block by block, each block from every disc that is needed. That is many exchanges, but few blocks:
what describes a disc lies together.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from ... import clock, logs
from ...disc.parity_image import Member, ParityFacts, read_facts
from ...disc.reader import DiscReader
from ...errors import MediaError, UnreadableSector
from ...types import SECTOR
from ..syndromes import Syndromes
from .harvest import Harvest

log = logs.get(__name__)
BLOCK = 16_384
"""Sectors that are asked of the other discs at once."""
_KEPT = 4
"""Blocks kept in memory."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Sectors of a disc in the library, by its barcode."""

    barcode: str
    sector: int
    count: int


@dataclass(frozen=True, slots=True)
class Got:
    """Their bytes, with zeros for those that do not read, and which these are; () for all is well.

    fault: the disc cannot be had at all.
    """

    data: bytes = b""
    bad: tuple[int, ...] = ()
    fault: str = ""


Fetch = Callable[[Sequence[Wanted]], Awaitable[dict[str, Got]]]
"""Reads each, in any order and on any drive; by barcode."""


async def take_unseen(harvest: Harvest, fetch: Fetch, told: Callable[[str], None]) -> None:
    """Take the description of every member that no disc and no snapshot knows into the harvest.

    Those that parity does not bear are left in `harvest.unknown`, with the reason. told gets the
    barcode of each before it is begun. Raises what the robot raises.
    """
    for facts, rows in _sets(harvest):
        known = harvest.known()
        for member in facts.members:
            if member.uuid in known:
                continue
            told(member.barcode)
            disc = _Unseen(facts, rows, known, member, fetch)
            try:
                await clock.blocking(lambda d=disc, m=member: _take(harvest, d, m), clock.MEDIA)  # type: ignore[misc]
                log.info("manifest made by parity", volume=member.barcode)
            except MediaError as fault:
                harvest.note_unknown(member.barcode, fault)


def _take(harvest: Harvest, disc: _Unseen, member: Member) -> None:
    reader = DiscReader(disc.read_at, member.size // SECTOR)
    name = harvest.free_name(member.barcode, member.uuid)
    # A snapshot on it would be read by parity as a whole: manifests tell the same.
    harvest.take(reader, name, member.size, snapshot=False)


Rows = dict[int, tuple[str, int]]
"""Parity rows: number to barcode and first sector."""


def _sets(harvest: Harvest) -> list[tuple[ParityFacts, Rows]]:
    """Each set of which a parity disc was visited, with the rows that there are."""
    found: dict[str, tuple[ParityFacts, Rows]] = {}
    for record in harvest.records():
        facts = read_facts({"parity": record.parity}) if record.parity else None
        if facts is None or record.parity_sector is None:
            continue
        _, rows = found.setdefault(record.disc.set_uuid, (facts, {}))
        rows[facts.row] = (record.disc.barcode, record.parity_sector)
    return list(found.values())


class _Unseen:
    """One such disc, as far as the others tell."""

    def __init__(
        self,
        facts: ParityFacts,
        rows: Rows,
        known: dict[str, str],
        member: Member,
        fetch: Fetch,
    ) -> None:
        self._member, self._rows, self._fetch = member, rows, fetch
        self._others = [(m, known.get(m.uuid)) for m in facts.members if m.uuid != member.uuid]
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def read_at(self, sector: int, count: int) -> bytes:
        """Sectors of the disc; in a thread. Raises UnreadableSector if parity does not bear it."""
        pieces = []
        at, end = sector, min(sector + count, self._member.size // SECTOR)
        while at < end:
            block = at - at % BLOCK
            upto = min(end, block + BLOCK)
            pieces.append(self._block(block)[(at - block) * SECTOR : (upto - block) * SECTOR])
            at = upto
        return b"".join(pieces)

    def _block(self, sector: int) -> bytes:
        if sector not in self._blocks:
            self._blocks[sector] = trio.from_thread.run(self._make, sector)
            if len(self._blocks) > _KEPT:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(sector)
        return self._blocks[sector]

    async def _make(self, sector: int) -> bytes:
        count = min(BLOCK, self._member.size // SECTOR - sector)
        sums = Syndromes(self._member.index, sorted(self._rows), [(sector, count)])
        got = await self._fetch(self._wanted(sector, count))
        faults = [f"{name}: {one.fault}" for name, one in got.items() if one.fault]
        for other, barcode in self._others:
            one = got.get(barcode) if barcode else Got(fault="gone")
            if one is None:
                continue  # it ends before these sectors
            if one.fault:
                sums.lost.add(other.index)
                continue
            sums.add_data(other.index, sector, one.data, one.bad)
        for row, (barcode, base) in self._rows.items():
            if not (one := got[barcode]).fault:
                sums.add_row(row, sector, one.data, [place - base for place in one.bad])
                sums.rows_read.add(row)
        data = await clock.blocking(lambda: sums.solve(sector, count), clock.HASH)
        if data is None:
            gone = [m.barcode for m, barcode in self._others if barcode is None]
            raise UnreadableSector(
                f"disc {self._member.barcode} is gone, and its set's parity does not make up for"
                f" it: {'; '.join([*faults, *(f'{name} is gone, too' for name in gone)])}",
                sector,
            )
        return data

    def _wanted(self, sector: int, count: int) -> list[Wanted]:
        """What is to be read of the others: each as far as it goes."""
        wanted = []
        for other, barcode in self._others:
            upto = min(count, other.size // SECTOR - sector)
            if barcode is not None and upto > 0:
                wanted.append(Wanted(barcode, sector, upto))
        wanted += [Wanted(code, base + sector, count) for code, base in self._rows.values()]
        return wanted
