"""What a recall would cost before it is ordered: discs, exchanges, bytes and time; and the budget.

Copies are chosen as the recaller chooses them, file by file, from a snapshot of the catalog and
from where the discs are now. The time is the outlook of eta.py with this order in the queue: it
knows who waits now, and not who comes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from ..catalog.copies import READABLE, Copy
from ..catalog.queues import RecallClass
from ..catalog.reports import Reports
from ..catalog.volumes import Volume
from ..config import RecallConfig
from ..errors import OverBudget
from ..limits import QUEUE_ROWS_SHOWN
from ..states import STUBS, CopyState, SetState, VolumeState
from ..types import Attr, InodeNo, Range, VolumeId
from ..units import format_duration, format_size
from .acts import batches
from .copy_choice import best
from .parity_recall import BATCH_BYTES
from .ranges import subtract, total
from .schedule import Effort

if TYPE_CHECKING:
    from .service import Engine


@dataclass(frozen=True, slots=True)
class DiscCost:
    """What is to be read of one disc.

    place: in a drive or a unit of drives, queued (for others, too), to be fetched, outside, or
    parity: the disc itself can't be had, and others of its set are read instead.
    """

    barcode: str
    place: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Preview:
    """What a recall would cost.

    Attributes:
        files, bytes: to be brought in; on_disk: files of which nothing is missing.
        discs: in the library, that give something. exchanges: discs that the robot fetches for
            this order alone, those for parity among them.
        outside: files on discs that an operator would have to bring; unreadable: files of which no
            copy is left; by_parity: files whose bytes the other discs of a set make up for.
        seconds: until all has come from the discs in the library; None if no drive is up.
        over: why it is over the budget; '' if it is not.
    """

    files: int
    bytes: int
    on_disk: int
    discs: int
    exchanges: int
    outside: int
    unreadable: int
    by_parity: int
    seconds: float | None
    over: str
    of_discs: list[DiscCost] = field(default_factory=list)


async def preview(engine: Engine, roots: Sequence[Attr], urgency: RecallClass) -> Preview:
    """What recalling all files at and below the roots would cost now."""
    volumes = await engine.catalog.read(lambda r: {v.id: v for v in r.volumes.all()})
    mounts, left = engine.mounts, engine.recaller.left()
    units = mounts.units
    costs = _Costs(volumes, mounts.in_drives(), left, units.carriers(), units.near())
    async for batch in batches(engine, roots):
        wanted = [a.ino for a in batch if a.state in STUBS]
        costs.on_disk += len(batch) - len(wanted)
        await engine.catalog.read(partial(costs.add, inos=wanted))
    more = {v: (costs.bytes_of[v], costs.files_of[v]) for v in costs.bytes_of}
    outlook = await mounts.outlook(more, urgency, left)
    speeds = mounts.pace.of("")
    seconds = max((outlook[v].done for v in more if v in outlook), default=0.0)
    seconds += costs.parity_fetches * 2 * speeds.exchange + costs.parity_loads * speeds.load
    seconds += speeds.reading(costs.parity_bytes, 0)
    exchanges = costs.fetches() + costs.parity_fetches
    return Preview(
        costs.files, costs.bytes, costs.on_disk, len(more), exchanges, costs.outside,
        costs.unreadable, costs.by_parity, seconds if mounts.drives_up else None,
        _over(engine.config.recall, exchanges, costs.bytes), costs.views(),
    )  # fmt: skip


async def check_budget(engine: Engine, roots: Sequence[Attr], urgency: RecallClass) -> None:
    """Raise OverBudget, saying what it would cost, if an order needs more than it may."""
    budget = engine.config.recall
    if not budget.budget_exchanges and not budget.budget_bytes:
        return
    found = await preview(engine, roots, urgency)
    if found.over:
        took = "" if found.seconds is None else f", about {format_duration(round(found.seconds))}"
        raise OverBudget(
            f"{found.over}: {found.files:,} files, {format_size(found.bytes)} from"
            f" {found.discs:,} discs, {found.exchanges:,} exchanges{took}"
        )


def _over(budget: RecallConfig, exchanges: int, size: int) -> str:
    if budget.budget_exchanges and exchanges > budget.budget_exchanges:
        return f"more than the {budget.budget_exchanges:,} exchanges of [recall] budget_exchanges"
    if budget.budget_bytes and size > budget.budget_bytes:
        return f"more than the {format_size(budget.budget_bytes)} of [recall] budget_bytes"
    return ""


class _Costs:
    """Adds up, in a thread; volumes as they are now, those in drives, and those that are queued.

    carriers: of discs that magazines carry; near: carriers that are within reach of drives.

    Attributes:
        files, bytes, on_disk, outside, unreadable, by_parity: as in Preview.
        files_of, bytes_of: to be read of each disc in the library.
    """

    def __init__(
        self,
        volumes: dict[VolumeId, Volume],
        in_drives: Container[VolumeId],
        queued: Collection[VolumeId],
        carriers: Mapping[VolumeId, int],
        near: Container[int],
    ) -> None:
        self._volumes, self._in_drives, self._queued = volumes, in_drives, queued
        self._carriers, self._near = carriers, near
        self._coming = {self._carrier(volume) for volume in queued}
        self.files = self.bytes = self.on_disk = 0
        self.outside = self.unreadable = self.by_parity = 0
        self.files_of: Counter[VolumeId] = Counter()
        self.bytes_of: Counter[VolumeId] = Counter()
        self._away: dict[VolumeId, tuple[int, int]] = {}
        self._lost: dict[VolumeId, tuple[int, int]] = {}
        self._others: dict[VolumeId, int] = {}
        self._trips: dict[VolumeId, int] = {}
        self._fetched: set[int] = set()

    @property
    def parity_loads(self) -> int:
        """Each batch of a disc that is made up for asks so many others once."""
        return sum(self._others[v] * -(-size // BATCH_BYTES) for v, (_, size) in self._lost.items())

    @property
    def parity_fetches(self) -> int:
        """How often the robot brings something for that."""
        return sum(self._trips[v] * -(-size // BATCH_BYTES) for v, (_, size) in self._lost.items())

    @property
    def parity_bytes(self) -> int:
        """Read of the other discs for them."""
        return sum(self._others[v] * size for v, (_, size) in self._lost.items())

    def add(self, reports: Reports, inos: Sequence[InodeNo]) -> None:
        """Some more files that are not whole on disk."""
        absent, copies = reports.inodes.absent_of(inos), reports.copies.standing(inos)
        for volume in {c.where.volume for some in copies.values() for c in some}:
            if volume not in self._volumes and (new := reports.volumes.get(volume)) is not None:
                self._volumes[volume] = new  # burned since the estimate began
        for ino in inos:
            missing = absent.get(ino, [])
            if not missing:
                self.on_disk += 1
                continue
            self.files += 1
            self.bytes += total(missing)
            how = self._one(reports, missing, copies.get(ino, []))
            self.outside += "outside" in how
            self.unreadable += "unreadable" in how
            self.by_parity += "parity" in how

    def _one(self, reports: Reports, missing: list[Range], copies: list[Copy]) -> set[str]:
        """Part by part, as the recaller goes on from the first missing byte; in what ways."""
        how = set()
        while missing:
            start = missing[0].start
            found = [c for c in copies if c.where.offset <= start < c.where.offset + c.where.length]
            way, copy = self._way(reports, found)
            how.add(way)
            if copy is None:
                break
            part = copy.where
            table = {"outside": self._away, "parity": self._lost}.get(way)
            if table is not None:
                files, size = table.get(part.volume, (0, 0))
                table[part.volume] = files + 1, size + part.stored
            else:
                self.files_of[part.volume] += 1
                self.bytes_of[part.volume] += part.stored
                if not self._reached(part.volume):
                    self._fetched.add(self._carrier(part.volume))
            missing = subtract(missing, Range(part.offset, part.offset + part.length))
        return how

    def _way(self, reports: Reports, found: list[Copy]) -> tuple[str, Copy | None]:
        """A copy in the library, else parity, else one outside."""
        good = [
            copy
            for copy in found
            if copy.state is CopyState.VALID and self._volumes[copy.where.volume].state in READABLE
        ]
        chosen = best(good, self._volumes.__getitem__, self._effort)
        outside = chosen is not None and (
            self._volumes[chosen.where.volume].state is VolumeState.EXPORTED
        )
        if chosen is not None and not outside:
            return "library", chosen
        for copy in found:
            if self._made_up_for(reports, copy.where.volume):
                return "parity", copy
        return ("outside", chosen) if chosen is not None else ("unreadable", None)

    def _made_up_for(self, reports: Reports, volume: VolumeId) -> bool:
        if volume not in self._others:
            group, index = reports.sets.of(volume), self._volumes[volume].set_index
            closed = group is not None and group.state is SetState.CLOSED and group.m > 0
            covers = closed and group is not None and index is not None and index < group.k
            self._others[volume] = self._trips[volume] = 0
            if covers and group is not None:
                self._others[volume] = self._trips[volume] = group.k
                if self._carriers:
                    discs = reports.sets.discs(group.id)
                    carriers = {self._carrier(disc.id) for disc in discs}
                    self._trips[volume] = min(group.k, len(carriers))
        return self._others[volume] > 0

    def _effort(self, volume: VolumeId) -> Effort:
        if self._reached(volume):
            return Effort.NONE
        carrier = self._carrier(volume)
        shared = carrier in self._coming or carrier in self._fetched
        return Effort.SHARED if shared else Effort.EXCHANGE

    def _carrier(self, volume: VolumeId) -> int:
        return self._carriers.get(volume, volume)

    def _reached(self, volume: VolumeId) -> bool:
        return volume in self._in_drives or self._carrier(volume) in self._near

    def fetches(self) -> int:
        """Discs, or magazines of them, that are fetched for this alone."""
        return len(self._fetched - self._coming)

    def views(self) -> list[DiscCost]:
        """By disc, those of which most is wanted first."""
        here = {v: (self.files_of[v], self.bytes_of[v]) for v in self.bytes_of}
        rows = [(v, self._place(v), *amount) for v, amount in here.items()]
        rows += [(v, "outside", *amount) for v, amount in self._away.items()]
        rows += [(v, "parity", *amount) for v, amount in self._lost.items()]
        rows.sort(key=lambda row: -row[3])
        return [
            DiscCost(self._volumes[v].barcode, place, files, size)
            for v, place, files, size in rows[:QUEUE_ROWS_SHOWN]
        ]

    def _place(self, volume: VolumeId) -> str:
        if volume in self._in_drives:
            return "in a drive"
        if self._reached(volume):
            return "in a unit of drives"
        return "queued" if volume in self._queued else "to be fetched"
