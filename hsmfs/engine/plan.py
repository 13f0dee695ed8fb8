"""Plans volumes: which queued files go on the next discs, in what order, for which copies.

Pure over one snapshot of the catalog, so run in a thread through `Catalog.read`. Files of a group
stay together where they can; a file larger than a disc is cut at multiples of CHUNK.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import NamedTuple

from ..catalog.queues import Migration, Queued
from ..catalog.reports import Reports
from ..catalog.volumes import Volume
from ..limits import VOLUME_FILES
from ..states import STUBS, CopyState
from ..types import CHUNK, SECTOR, DataVersion, InodeNo, VolumeId

FULL_ENOUGH = 0.8
"""A volume this full is closed rather than that a group is torn apart."""
_PAGE = 2000
_NAMES = 1500
"""Bytes a file takes besides its data: directory records, manifest, sums."""


def usable(disc: int) -> int:
    """Bytes of a disc that files may be planned for; the rest is for its own description."""
    return disc - disc // 100 - min(512 * 1024, disc // 16)


class Target(NamedTuple):
    """Which copy of its files a disc holds, and where the disc is to be kept.

    Discs of one set have the same target, so copies of a file never share a set.
    """

    copy_no: int
    vault: str = ""
    """In the operator's words; '': in the library."""


Targets = tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """A file, or one part of it, that is to be put on a disc."""

    ino: InodeNo
    version: DataVersion
    """As queued; the version that is archived is the one found when its bytes are read."""
    size: int
    copies: int
    policy: str
    group_key: str
    queued_ns: int
    release: bool
    part: int = 0
    parts: int = 1
    offset: int = 0
    length: int = 0

    def room(self, shrink: float = 1.0) -> int:
        """Bytes it takes on a disc, about, if its own shrink to that part of them."""
        chunks = -(-self.length // CHUNK)
        sums = 67 * chunks if chunks > 1 else 0
        return -(-int(self.length * shrink) // SECTOR) * SECTOR + _NAMES + sums


@dataclass(slots=True)
class Batch:
    """What goes together on one disc for each of the targets."""

    targets: Targets
    items: list[Item] = field(default_factory=list)
    room: int = 0
    full: bool = False

    def add(self, item: Item, room: int) -> None:
        self.items.append(item)
        self.room += room

    @property
    def oldest_ns(self) -> int:
        return min(item.queued_ns for item in self.items)


@dataclass(slots=True)
class Plan:
    """What to burn now, and what was found on the way."""

    batches: list[Batch] = field(default_factory=list)
    satisfied: list[InodeNo] = field(default_factory=list)
    """Have their copies already, or lost their last name: not to be queued any more."""
    absent: list[InodeNo] = field(default_factory=list)
    """Must be recalled before they can be archived."""
    waiting: int = 0
    """Files that wait for a full disc or their time."""
    waiting_bytes: int = 0
    next_ns: int | None = None
    """When the oldest of those has waited long enough."""
    complete: bool = True
    """False: the plan was cut off when it had enough volumes."""


class Either:
    """Inodes that a plan must leave alone."""

    def __init__(self, *sets: Container[int]) -> None:
        self._sets = sets

    def __contains__(self, ino: object) -> bool:
        return any(ino in some for some in self._sets)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a plan is made for."""

    capacity: int
    """Usable bytes of a disc."""
    now_ns: int
    burn_before_ns: int
    """What was queued before does not wait for a full disc."""
    wait_ns: int
    busy: Container[int]
    """Inodes that are being worked on, or were skipped a moment ago."""
    most: int
    """Volumes to plan at once."""
    shrink: float = 1.0
    """Stored bytes for each byte, as lately seen: what shrinks more fills a disc with more files.
    What shrinks less than expected is left for the next disc when it is staged."""
    needs_parity: bool = False
    """A release waits for the parity of a file's sets."""
    tests: bool = False
    """Discs that nobody has read back yet are tested by themselves: a copy on one is waited for."""


def make(reports: Reports, terms: Terms) -> Plan:
    """Plan the next volumes."""
    plan = Plan()
    open_: dict[Targets, Batch] = {}
    discs = _Discs(
        _Known(reports), {row.volume for row in reports.refreshes.open()},
        reports.health.tested() if terms.tests else None,
    )  # fmt: skip

    def need(queued: Queued) -> list[tuple[Targets, Item]]:
        return _needs(reports, queued, discs, terms, plan)

    for _, rows in groupby(_queue(reports), key=lambda q: q.migration.group_key):
        _place_group(rows, need, open_, plan, terms)
        if len(plan.batches) >= terms.most:
            plan.complete = False
            break
    _close_ripe(open_, plan, terms)
    return plan


def _queue(reports: Reports) -> Iterator[Queued]:
    after = ("", 0)
    while rows := reports.queues.queued(after, _PAGE):
        yield from rows
        after = (rows[-1].migration.group_key, rows[-1].migration.ino)


def _place_group(
    rows: Iterator[Queued],
    need: Callable[[Queued], list[tuple[Targets, Item]]],
    open_: dict[Targets, Batch],
    plan: Plan,
    terms: Terms,
) -> None:
    """Put a group's files on the open volumes, by the copies that they lack."""
    lacking: dict[Targets, list[Item]] = {}
    for queued in rows:
        if queued.migration.ino not in terms.busy:
            for targets, item in need(queued):
                lacking.setdefault(targets, []).append(item)
    for targets, items in lacking.items():
        rooms = [item.room(terms.shrink) for item in items]
        room = sum(rooms)
        batch = open_.setdefault(targets, Batch(targets))
        fits = batch.room + room <= terms.capacity
        if not fits and room <= terms.capacity and batch.room > FULL_ENOUGH * terms.capacity:
            batch = _close(batch, open_, plan)
        for item, room in zip(items, rooms, strict=True):
            over = batch.room + room > terms.capacity
            if batch.items and (over or len(batch.items) >= VOLUME_FILES):
                batch = _close(batch, open_, plan)
            batch.add(item, room)


def _close(batch: Batch, open_: dict[Targets, Batch], plan: Plan) -> Batch:
    batch.full = True
    plan.batches.append(batch)
    open_[batch.targets] = Batch(batch.targets)
    return open_[batch.targets]


def _close_ripe(open_: dict[Targets, Batch], plan: Plan, terms: Terms) -> None:
    """What is not full is burned when something on it has waited long enough."""
    for batch in open_.values():
        if not batch.items:
            continue
        oldest = batch.oldest_ns
        if oldest < terms.burn_before_ns or terms.now_ns - oldest >= terms.wait_ns:
            if plan.complete:
                plan.batches.append(batch)
            continue
        plan.waiting += len(batch.items)
        plan.waiting_bytes += sum(item.length for item in batch.items)
        due = oldest + terms.wait_ns
        plan.next_ns = due if plan.next_ns is None else min(plan.next_ns, due)


def _needs(
    reports: Reports, queued: Queued, discs: _Discs, terms: Terms, plan: Plan
) -> list[tuple[Targets, Item]]:
    """The parts that a file lacks, each with the targets it lacks them for."""
    m = queued.migration
    whole = Item(
        m.ino, queued.version, queued.size, m.copies, m.policy, m.group_key, m.queued_ns,
        m.release, length=queued.size,
    )  # fmt: skip
    if queued.nlink == 0:
        plan.satisfied.append(m.ino)
        return []
    fresh, begun = _copies(reports, m, queued.version, discs)
    if not fresh and not begun:
        if any(_copies(reports, m, queued.version, discs._replace(tested=None))):
            return []  # its copies are on discs that are going to be tested
        waits = m.release and terms.needs_parity
        if not waits or reports.copies.protected(m.ino, queued.version) >= m.copies:
            plan.satisfied.append(m.ino)
        return []
    if queued.state in STUBS:
        plan.absent.append(m.ino)
        return []
    found: list[tuple[Targets, Item]] = [
        ((target,), part)
        for target, have in begun.items()
        for part in _rest(whole, have)
    ]
    if fresh:
        found += [(tuple(fresh), part) for part in cut(whole, terms.capacity)]
    return found


class _Known(dict[VolumeId, Volume]):
    """Discs as they are asked for: a library may have thousands, most of them blank."""

    def __init__(self, reports: Reports) -> None:
        super().__init__()
        self._volumes = reports.volumes

    def __missing__(self, volume: VolumeId) -> Volume:
        found = self._volumes.get(volume)
        assert found is not None, "a copy lies on a disc that the catalog knows"
        self[volume] = found
        return found


class _Discs(NamedTuple):
    """All discs, and those that are being replaced: what lies on these is to be had elsewhere."""

    all: _Known
    leaving: set[VolumeId]
    tested: Container[VolumeId] | None
    """Discs with a test on record; None: no others are tested, and only what is proven counts."""

    def count(self, disc: Volume) -> bool:
        """Whether a copy on the disc counts, or will if its test ends well."""
        if self.tested is None or disc.proven:
            return disc.proven
        return disc.unverified and disc.id not in self.tested and disc.id not in self.leaving


Have = dict[int, tuple[int, int, int]]
"""Parts that stand: number to (parts, offset, length)."""


def _copies(
    reports: Reports, wanted: Migration, version: DataVersion, discs: _Discs
) -> tuple[list[Target], dict[Target, Have]]:
    """Copies that are to be made anew, and those of which some parts stand.

    If one is wanted in a vault and none is there or on its way, it is the last of the new ones.
    """
    standing: dict[int, Have] = {}
    place: dict[int, str] = {}
    used = 0
    kept = not wanted.vault
    for copy in reports.copies.of(wanted.ino, version):
        used = max(used, copy.copy_no)
        part = copy.where
        disc = discs.all[part.volume]
        if copy.state is CopyState.VALID and discs.count(disc):
            have = standing.setdefault(copy.copy_no, {})
            have[part.part] = (part.parts, part.offset, part.length)
            place[copy.copy_no] = disc.vault
            kept = kept or (disc.vault == wanted.vault and disc.id not in discs.leaving)
    begun = {
        Target(number, place[number]): have
        for number, have in standing.items()
        if len(have) < next(iter(have.values()))[0]
    }
    lacking = max(wanted.copies - len(standing), 0 if kept else 1)
    fresh = [Target(number) for number in range(used + 1, used + 1 + lacking)]
    if not kept:
        fresh[-1] = Target(fresh[-1].copy_no, wanted.vault)
    return fresh, begun


def cut(whole: Item, capacity: int) -> list[Item]:
    """The file as parts that each fit on a disc; itself if it does."""
    if whole.room() <= capacity:
        return [whole]
    step = (capacity - _NAMES - capacity // 500) // CHUNK * CHUNK
    return _parts(whole, max(step, CHUNK))


def _parts(whole: Item, step: int) -> list[Item]:
    parts = -(-whole.size // step)
    return [
        replace(
            whole, part=n, parts=parts, offset=n * step, length=min(step, whole.size - n * step)
        )
        for n in range(parts)
    ]


def _rest(whole: Item, have: Have) -> list[Item]:
    """The parts that a copy lacks, cut as those that stand."""
    number, (_, offset, length) = next(iter(have.items()))
    step = offset // number if number else length
    return [part for part in _parts(whole, step) if part.part not in have]
