"""Volume sets: which discs stand up for each other, and their parity from the spool to the discs.

A burned image stays in the spool until it is folded into its set's parity rows; when the set is
full, old enough or closed by hand, the rows go on discs of their own. What is folded and burned is
in the catalog, so every step may be cut off and is taken up again. Discs are read back for parity
only if the spool has lost an image that was not folded yet.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from .. import clock, crash, logs
from ..catalog.catalog import Catalog
from ..catalog.sets import SpooledRow, VolumeSet
from ..catalog.volumes import Volume
from ..config import Config
from ..disc.image import sha256_of
from ..disc.layout import VolumeLabel
from ..disc.parity_image import OVERHEAD, ParityFacts
from ..errors import HsmError, MediaError, SameLabel, VolumeMissing
from ..limits import SHORTEST_WAIT
from ..states import SetState, VolumeState
from ..types import SECTOR, SetId, VolumeId
from .blanks import Blanks, Labels
from .events import Events
from .fold import Folded, RowJob, Source, WrongImages, fold
from .mounts import Mounts
from .parity_disc import BurnImage, burn_parity, facts_of, label_in
from .plan import Target, Targets
from .schedule import Purpose
from .spool import Spool
from .spooled import append, data_discs, holds, needed, pending, unknown

log = logs.get(__name__)
AGAIN = 120.0
"""Seconds after which a set whose parity failed is tried again."""
ATTEMPTS = 3
"""Blank discs that one parity row may spoil in a row."""
REFETCH_SECTORS = 4096


class VolumeSets:
    """The sets that are being filled, and their end.

    Attributes:
        burn: burns an image that holds no files; set by who wires the engine.
        closed: called with each set whose parity is verified; set by who wires the engine.
    """

    def __init__(
        self,
        catalog: Catalog,
        mounts: Mounts,
        events: Events,
        spool: Spool,
        blanks: Blanks,
        config: Config,
    ) -> None:
        self._catalog, self._mounts, self._events = catalog, mounts, events
        self._spool, self._blanks = spool, blanks
        self._config, self._settings = config, config.sets
        self.expect(config.engine.copies)
        self.burn: BurnImage | None = None
        self.closed: Callable[[VolumeSet], Awaitable[None]] | None = None
        self._kept: dict[VolumeId, int] = {}
        self._working: set[SetId] = set()
        self._writing: set[str] = set()
        self._folding = trio.Lock()
        self._pressed = False
        self._wake = trio.Event()
        spool.pressed = self._press

    # Membership: for who burns data discs

    def choose(self, targets: Targets, blanks: Labels) -> list[VolumeId]:
        """A blank disc for each target, from the magazine of the set that it will join."""
        assert self._settings is not None
        taken: Counter[int] = Counter()
        open_ = {}
        for group in self._catalog.sets.unfinished():
            if group.magazine is not None:
                taken[group.magazine] += 1
            if self._place(group) is not None:
                open_[target_of(group)] = group
        chosen: list[VolumeId] = []
        for target in targets:
            magazine = open_[target].magazine if target in open_ else None
            disc = self._blanks.for_set(blanks, magazine, self._settings.discs, taken)
            chosen.append(disc)
            lies = self._blanks.magazines().get(blanks.pop(disc))
            if target not in open_ and lies is not None:
                taken[lies] += 1
        return chosen

    def join(self, volume: VolumeId, target: Target) -> None:
        """The disc gets the next place of the set that is open for the target; in a transaction."""
        if self._settings is None:
            self._catalog.volumes.set_vault(volume, target.vault)
            return
        sets = self._catalog.sets
        for group in sets.unfinished():
            place = self._place(group) if target_of(group) == target else None
            if place is not None:
                sets.join(volume, group.id, place)
                return
        found = self._catalog.volumes.get(volume)
        assert found is not None
        magazine = self._blanks.magazines().get(found.barcode)
        group = sets.add(
            self._settings.k, self._settings.m, target.copy_no, magazine, clock.now_ns(),
            target.vault,
        )  # fmt: skip
        sets.join(volume, group.id, 0)

    def _place(self, group: VolumeSet) -> int | None:
        """The first free index of an open set for data."""
        if group.state is not SetState.OPEN:
            return None
        have = {volume.set_index for volume in self._catalog.sets.discs(group.id)}
        return next((index for index in range(group.k) if index not in have), None)

    def label(self, volume: Volume, copy_no: int | None) -> VolumeLabel:
        """Who the disc is: one of its set, or a set of its own."""
        group = self._catalog.sets.of(volume.id)
        if group is not None and volume.set_index is not None:
            return label_in(self._catalog, group, volume.barcode, volume.set_index, copy_no)
        own = str(uuid.uuid4())
        return VolumeLabel(
            uuid=own, barcode=volume.barcode, set_name=volume.barcode, set_uuid=own, index=1,
            k=1, m=0, created_ns=clock.now_ns(), copy_no=copy_no,
            archive=self._catalog.sets.archive,
        )  # fmt: skip

    def has_parity(self, volume: VolumeId) -> bool:
        """Whether the disc is a data disc of a set with parity, whose image will be folded."""
        group, found = self._catalog.sets.of(volume), self._catalog.volumes.get(volume)
        if group is None or found is None or found.set_index is None:
            return False
        return group.m > 0 and found.set_index < group.k

    def room_on(self, volume: Volume) -> int:
        """Bytes that the image of a data disc may have: its parity must fit on such a disc too."""
        return volume.capacity - (OVERHEAD if self.has_parity(volume.id) else 0)

    def gave_up(self, volume: VolumeId) -> None:
        """The burn failed: the disc's place is free for another one; in a transaction."""
        self._catalog.sets.leave(volume)
        self._poke()

    def keep(self, volume: VolumeId, size: int) -> bool:
        """The disc is verified: True if its image must stay in the spool until it is folded."""
        self._poke()
        if not self.has_parity(volume):
            return False
        self._kept[volume] = size
        self._spool.hold(size)
        return True

    def expect(self, sets: int) -> None:
        """So many sets may be filled at once: room for their parity is kept in the spool."""
        self._reserved = self._config.parity_spool(sets)
        self._keep_room()

    def _keep_room(self) -> None:
        """What was expected, or more if there are more rows: of sets that orders began, or closing.

        What images have is never less than a disc: else nothing would be burned any more, and the
        rows would stay for ever.
        """
        rows = sum(
            bool(row.file)
            for group in self._catalog.sets.unfinished()
            for row in self._catalog.sets.parity(group.id).values()
        )
        disc, whole = self._config.library.disc, self._config.engine.spool_limit
        wanted = max(self._reserved, (rows + 1) * disc) if rows else self._reserved
        self._spool.for_parity = min(wanted, max(0, whole - disc))

    def spooled(self) -> set[str]:
        """Names in the spool that a restart must not delete."""
        return needed(self._catalog) | self._writing

    # Orders

    async def close(self, group: VolumeSet) -> bool:
        """Let the set be closed with the discs that it has; False if it is closed already."""
        if group.state is not SetState.OPEN:
            return False
        async with self._catalog.write():
            self._catalog.sets.set_state(group.id, SetState.CLOSING)
        await self._catalog.sync()
        crash.point("sets.close.asked")
        log.info("set is being closed", set=group.name)
        self._poke()
        return True

    def _press(self) -> None:
        """Somebody waits for room in the spool."""
        self._pressed = True
        self._poke()

    def _poke(self) -> None:
        self._wake.set()

    # The loop

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Fold, close and burn parity for ever; what a crash left is taken up."""
        self._working.clear()
        for size in self._kept.values():
            self._spool.let_go(size)
        self._kept.clear()
        for group in self._catalog.sets.unfinished():
            for volume in pending(self._catalog, group):
                self._kept[volume.id] = volume.used
                self._spool.hold(volume.used)
        self._keep_room()
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                await self._catalog.settled()
                self._wake = trio.Event()
                due = float("inf")
                for group in self._catalog.sets.unfinished():
                    if group.id not in self._working:
                        due = min(due, self._look(group, nursery))
                self._pressed = False
                with trio.move_on_after(max(due, SHORTEST_WAIT)):
                    await self._wake.wait()

    def _look(self, group: VolumeSet, nursery: trio.Nursery) -> float:
        """Start what the set needs; seconds until it is to be looked at again."""
        discs = data_discs(self._catalog, group)
        wait = self._settings.close_wait if self._settings is not None else 0.0
        age = (clock.now_ns() - group.created_ns) / 1e9
        # Parity discs too: after a crash the reading back of one may go on elsewhere.
        members = self._catalog.sets.discs(group.id)
        burning = any(self._catalog.queues.burn(volume.id) is not None for volume in members)
        full = len(discs) >= group.k and not burning
        closing = group.state is SetState.CLOSING or full or age >= wait
        size = sum(volume.used for volume in pending(self._catalog, group))
        full_spool = self._pressed or size >= self._spool.limit // 2
        fold_now = size > 0 and group.m > 0 and full_spool
        if fold_now or (closing and not burning) or (closing and group.state is SetState.OPEN):
            self._working.add(group.id)
            nursery.start_soon(self._work, group, closing, burning)
        return max(0.0, wait - age) if not closing else float("inf")

    async def _work(self, group: VolumeSet, closing: bool, burning: bool) -> None:
        again = 0.0
        try:
            if closing and group.state is SetState.OPEN:
                async with self._catalog.write():
                    self._catalog.sets.set_state(group.id, SetState.CLOSING)
                crash.point("sets.closing")
            if closing:
                await self._know(group)
            await self._fold(group)
            if closing and not burning:
                await self._finish(group)
        except (HsmError, OSError) as fault:
            why = fault.message if isinstance(fault, HsmError) else str(fault)
            log.warning("parity put off", set=group.name, error=why)
            self._events.emit("parity_put_off", set=group.name, error=why)
            again = AGAIN
        if again:
            await trio.sleep(again)
        self._working.discard(group.id)
        self._poke()

    # Folding

    async def _know(self, group: VolumeSet) -> None:
        """Read discs of which a catalog made from discs knows no checksum, after their test."""
        for volume in unknown(self._catalog, group):
            if volume.state in (VolumeState.LOST, VolumeState.DAMAGED):
                await self._drop(group, volume, MediaError(f"it is {volume.state.name.lower()}"))
                continue
            if volume.state is not VolumeState.FULL:
                raise HsmError(f"disc {volume.barcode} was not tested since the rebuild")
            await self._fetch(volume)
            path = self._spool.path / self._spool.image(volume.id)
            sha = await clock.blocking(lambda path=path: sha256_of(path).hex(), clock.IMAGES)  # type: ignore[misc]
            async with self._catalog.write():
                self._catalog.volumes.set_image(volume.id, volume.used, sha, volume.root_hash or "")

    async def _fold(self, group: VolumeSet) -> None:
        """Bring all verified discs into the rows, and let their images go."""
        async with self._folding:
            while fresh := pending(self._catalog, group):
                try:
                    await self._fold_once(group, fresh)
                except WrongImages as fault:
                    await self._mend(group, fault)

    async def _fold_once(self, group: VolumeSet, fresh: list[Volume]) -> None:
        rows = self._catalog.sets.parity(group.id)
        if not any(row.file for row in rows.values()):
            await self._make_rows(group, fresh, list(range(group.m)), rows)
        else:
            # One row after the other: there is room for one more row than there are.
            for row in range(group.m):
                await self._make_rows(group, fresh, [row], rows)
        for volume in fresh:
            size = self._kept.pop(volume.id, None)
            if size is not None:
                self._spool.let_go(size)
            await self._spool.retire(self._spool.image(volume.id))
        crash.point("sets.images.retired")

    async def _make_rows(
        self,
        group: VolumeSet,
        discs: list[Volume],
        numbers: list[int],
        rows: dict[int, SpooledRow],
    ) -> None:
        old = {number: rows.get(number, SpooledRow(number, "", 0, "", 0)) for number in numbers}
        before = old[numbers[0]].folded
        fresh = [v for v in discs if v.set_index is not None and not before >> v.set_index & 1]
        if not fresh:
            return
        images = [
            Source(self._spool.path / self._spool.image(v.id), v.used, v.image_sha256 or "",
                   v.set_index)
            for v in fresh
        ]  # fmt: skip
        folded = before
        for v in fresh:
            folded |= 1 << (v.set_index or 0)
        jobs = [
            RowJob(n, self._spool.path / self._spool.parity(group.id, n, folded), _old(
                self._spool.path, old[n]))
            for n in numbers
        ]  # fmt: skip
        self._writing = {job.dest.name for job in jobs}
        try:
            made: list[Folded] = await clock.blocking(lambda: fold(images, jobs), clock.IMAGES)
        finally:
            self._writing = set()
        crash.point("sets.rows.written")
        async with self._catalog.write():
            for row, job in zip(made, jobs, strict=True):
                self._catalog.sets.set_parity(
                    group.id, SpooledRow(row.row, job.dest.name, row.size, row.sha256, folded)
                )
        await self._catalog.sync()
        self._keep_room()
        crash.point("sets.rows.recorded")
        gone = [row.file for row in old.values() if row.file]
        await self._spool.remove(*gone)
        log.info("parity computed", set=group.name, rows=len(made), discs=len(fresh))

    async def _mend(self, group: VolumeSet, fault: WrongImages) -> None:
        """The spool lost something: rows are begun anew, images are read from their discs."""
        log.warning("spool does not hold what it should", set=group.name, error=fault.message)
        by_index = {volume.set_index: volume for volume in data_discs(self._catalog, group)}
        if None in fault.wrong:
            await self._forget_rows(group)
            return
        for index in fault.wrong:
            volume = by_index[index]
            try:
                await self._fetch(volume)
            except SameLabel:
                raise  # the disc is there, and people can tell which it is
            except (VolumeMissing, MediaError) as error:
                await self._drop(group, volume, error)

    async def _forget_rows(self, group: VolumeSet) -> None:
        files = [row.file for row in self._catalog.sets.parity(group.id).values() if row.file]
        async with self._catalog.write():
            self._catalog.sets.forget_parity(group.id)
        await self._spool.remove(*files)
        self._keep_room()

    async def _doubt_rows(self, group: VolumeSet) -> None:
        """Parity could not be burned: if the spool has lost it, it is begun anew."""
        rows = [row for row in self._catalog.sets.parity(group.id).values() if row.file]
        path = self._spool.path
        if not await clock.blocking(lambda: all(holds(path, row) for row in rows), clock.IMAGES):
            await self._mend(group, WrongImages([None]))

    async def _drop(self, group: VolumeSet, volume: Volume, error: HsmError) -> None:
        """A disc cannot be read before it was in the parity: the set goes on without it."""
        rows = self._catalog.sets.parity(group.id).values()
        if any(row.folded >> (volume.set_index or 0) & 1 for row in rows):
            await self._forget_rows(group)
        async with self._catalog.write():
            self._catalog.sets.leave(volume.id)
        log.error("disc has left its set", volume=volume.barcode, set=group.name,
                  error=error.message)  # fmt: skip
        self._events.emit("set_left", volume=volume.barcode, set=group.name, error=error.message)

    async def _fetch(self, volume: Volume) -> None:
        """Copy the image of a disc into the spool again."""
        path = self._spool.path / self._spool.image(volume.id)
        await self._spool.remove(path.name)
        async with self._mounts.use(
            volume.id, Purpose.READ, bytes=volume.used, who=f"parity of {volume.barcode}"
        ) as session:
            for sector in range(0, volume.used // SECTOR, REFETCH_SECTORS):
                count = min(REFETCH_SECTORS, volume.used // SECTOR - sector)
                data = await session.read(sector, count)
                await clock.blocking(lambda data=data: append(path, data))  # type: ignore[misc]
        if volume.id not in self._kept:
            self._kept[volume.id] = volume.used
            self._spool.hold(volume.used)

    # Parity discs

    async def _finish(self, group: VolumeSet) -> None:
        """All data discs are in the rows: burn those that are not on discs, then close the set."""
        data = data_discs(self._catalog, group)
        if data and group.m:
            facts = facts_of(self._catalog, group)
            have = {v.set_index for v in self._catalog.sets.discs(group.id)
                    if v.state is VolumeState.FULL}  # fmt: skip
            async with trio.open_nursery() as nursery:
                for row in range(group.m):
                    if group.k + row not in have:
                        nursery.start_soon(self._burn_row, group, row, facts)
            have = {v.set_index for v in self._catalog.sets.discs(group.id)}
            if any(group.k + row not in have for row in range(group.m)):
                await self._doubt_rows(group)
                raise HsmError(f"set {group.name} lacks parity discs")
        files = [row.file for row in self._catalog.sets.parity(group.id).values() if row.file]
        discs = self._catalog.sets.discs(group.id)
        async with self._catalog.write():
            if data:
                root = discs[-1].root_hash
                self._catalog.sets.close(group.id, root, clock.now_ns())
            else:
                self._catalog.sets.remove(group.id)
        await self._catalog.sync()
        crash.point("sets.closed")
        await self._spool.remove(*files)
        self._keep_room()
        if data:
            log.info("set closed", set=group.name, data=len(data), parity=group.m)
            self._events.emit("set_closed", set=group.name, data=len(data), parity=group.m)
            if self.closed is not None:
                await self.closed(group)

    async def _burn_row(
        self, group: VolumeSet, row: int, facts: Callable[[int], ParityFacts]
    ) -> None:
        """One parity disc, on the first blank that takes it; faults are told and tried again."""
        source = self._spool.path / self._catalog.sets.parity(group.id)[row].file
        size = facts(row).rows[row].size + OVERHEAD
        without: VolumeId | None = None
        for _ in range(ATTEMPTS):
            (blank,) = await self._blanks.take(
                lambda blanks: [
                    self._blanks.for_set(blanks, group.magazine, group.k + group.m, Counter())
                ],
                1, without,
            )  # fmt: skip
            try:
                async with self._spool.room(size):
                    await self._burn_on(blank, group, row, facts(row), source)
                return
            except (HsmError, OSError) as fault:
                log.warning("parity disc failed", set=group.name, row=row, error=str(fault))
                without = blank
            finally:
                self._blanks.free([blank])

    async def _burn_on(
        self, blank: VolumeId, group: VolumeSet, row: int, facts: ParityFacts, source: Path
    ) -> None:
        async with self._catalog.write():
            for disc in self._catalog.sets.discs(group.id):
                # A start that was cut off here had chosen another blank disc.
                if disc.set_index == group.k + row and disc.state is VolumeState.BLANK:
                    self._catalog.sets.leave(disc.id)
            self._catalog.sets.join(blank, group.id, group.k + row)
        crash.point("sets.parity.joined")
        volume = self._catalog.volumes.get(blank)
        assert volume is not None
        assert self.burn is not None
        label = self.label(volume, None)
        await burn_parity(self._catalog, self.burn, blank, label, facts, source)


def target_of(group: VolumeSet) -> Target:
    """What the discs of a set are burned for."""
    return Target(group.copy_no, group.vault)


def _old(folder: Path, row: SpooledRow) -> Source | None:
    return Source(folder / row.file, row.size, row.sha256, None) if row.file else None
