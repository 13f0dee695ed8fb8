"""The migrator: takes queued files, waits until a disc is worth burning, and sees it through.

The queue is in the catalog; whatever is under way can be killed at any moment and is undone or
finished by the next `run`. Staging of one volume overlaps the burning of others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import AsyncExitStack
from pathlib import Path

import trio

from .. import clock, crash, logs
from ..catalog.catalog import Catalog
from ..catalog.queues import Migration
from ..catalog.reports import Reports
from ..catalog.sets import VolumeSet
from ..catalog.studies import Study
from ..config import Config
from ..disc.parity_image import OVERHEAD
from ..errors import Conflict, ForeignDisc, HsmError, PosixError
from ..pool.pools import Pools
from ..states import FileState
from ..types import Attr, InodeNo, VolumeId
from . import group, plan
from .backups import Extra, Snapshots
from .batches import at_leisure, in_batches
from .blanks import Blanks, by_ends
from .burn import Burner
from .burn_faults import AnotherDisc, causes
from .events import Events
from .finish import Finisher
from .integrity.ingest import Ingest
from .mounts import Mounts
from .pauses import Pauses, is_bad
from .plan import Batch, Plan, Target, Targets, Terms
from .policy.match import Ruleset
from .policy.rules import Grouping
from .residency import Residency
from .sets import VolumeSets
from .spool import Spool, burns_at_once
from .stage import ABSENT, GONE, LOST_BYTES, NO_ROOM, UNREADABLE, Staged, Stager, trim
from .verify import SourceMismatch

log = logs.get(__name__)
ATTEMPTS = 3
"""Blank discs that one copy of a batch may spoil before the files are queued again."""
PAUSE = 0.2
"""Seconds for more requests to come in before the queue is looked at."""
CAUTION = 1.05
"""Files are expected to shrink a little less than the last ones did."""
_Key = tuple[str, int, str, Study | None]
"""Of a file: the key of its group, its copies, where one of them is kept, and its DICOM study."""


class Migrator:
    """Archives files.

    Attributes:
        burner: burns volumes; its `progress` says how far each is.
        finisher: marks archived files; `finisher.release` is set by who wires the engine.
        rules: the policies in force, for the copies and the groups of files.
        recall: asks for a file's bytes to be brought in so that it can be archived, or None.
        ingest: compares files with what their clients say of them.
        pauses: files that are left alone for a while.
        blanks, sets: the discs to burn on, and the sets that they join.
    """

    def __init__(
        self,
        catalog: Catalog,
        pools: Pools,
        files: Residency,
        mounts: Mounts,
        events: Events,
        config: Config,
    ) -> None:
        engine = config.engine
        self._catalog, self._files, self._events = catalog, files, events
        self._pools = pools
        self.rules = Ruleset((), copies=engine.copies, head=config.fs.head)
        self._level = engine.compression
        self._disc = config.library.disc - (OVERHEAD if config.parity_discs else 0)
        self._in_sets = config.sets is not None
        self._tests = config.scrub.interval > 0
        self._wake = trio.Event()
        self._settled = trio.Event()
        self.configure(config)
        self.spool = Spool(engine.spool, engine.spool_limit)
        self.spool.full = self._spool_full
        self.finisher = Finisher(catalog, files, events)
        self.blanks = Blanks(catalog, events)
        self.sets = VolumeSets(catalog, mounts, events, self.spool, self.blanks, config)
        self.burner = Burner(
            catalog, pools, mounts, events, self.spool, self.finisher, self.sets
        )
        self.sets.burn = self.burner.make_image
        self.sets.closed = self._set_closed
        needs = config.sets.release_needs if config.sets is not None else "copies"
        self._needs_parity = self.finisher.needs_parity = needs == "parity"
        self._snapshots = Snapshots(catalog, config, self._disc)
        self.ingest = Ingest(catalog, pools, events)
        self._stager = Stager(catalog, pools, files, self.ingest, engine.compression)
        self.recall: Callable[[InodeNo, str], Awaitable[object]] | None = None
        self._shrink = 1.0
        self._active = 0
        self._busy: Counter[int] = Counter()
        self._ended: list[Collection[int]] = []
        self.pauses = Pauses(catalog, self._files_attr)
        self._staging = trio.Lock()

    def configure(self, config: Config) -> None:
        """Other numbers count from now on; what is under way goes on."""
        self._wait_ns = int(config.engine.burn_wait * 1e9)
        units = max(1, config.library.units - config.recall_drives)
        drives = units * config.library.drives // config.library.units
        room = config.engine.spool_limit - config.parity_spool(config.engine.copies)
        self._slots = burns_at_once(drives, room // config.library.disc)
        self.poke()

    # Requests

    async def archive(
        self,
        inos: Iterable[InodeNo],
        copies: int | None = None,
        who: str = "hsmctl",
        release: bool = False,
        grouping: Grouping | None = None,
        vault: str | None = None,
    ) -> int:
        """Queue regular files; how many. Others are passed over: discs carry them anyway.

        copies, grouping, vault: None takes what the policies say of each file. vault: where one of
        two or more copies is to be kept, '' if all stay. who names the rule or the person.
        release: release each as soon as it has its copies.
        """
        found = await at_leisure(self._catalog, inos, self._files_attr)
        attrs = [attr for attr in found if attr is not None and attr.is_file]
        keys = await self._keys(attrs, copies, grouping, vault)
        now = clock.now_ns()

        def put(pair: tuple[Attr, _Key]) -> None:
            attr, (key, wanted, place, study) = pair
            if study is not None:
                self._catalog.studies.put(attr.ino, study)
            self._catalog.queues.put_migration(
                Migration(attr.ino, attr.version, wanted, who, key, now, release, place)
            )
            self.ingest.look_again(attr.ino)
            self.pauses.end(attr.ino)

        await in_batches(self._catalog, zip(attrs, keys, strict=True), put, "migrate.queued")
        self.poke()
        return len(attrs)

    def _files_attr(self, ino: InodeNo) -> Attr | None:
        live = self._files.live(ino)
        return live.attr if live is not None else self._catalog.inodes.get_raw(ino)

    async def _keys(
        self,
        attrs: list[Attr],
        copies: int | None,
        grouping: Grouping | None,
        vault: str | None,
    ) -> list[_Key]:
        rules = self.rules

        def find(reports: Reports) -> list[_Key]:
            keys = []
            paths = reports.path_cache()
            for attr in attrs:
                source = None
                if attr.pool is not None and attr.size:
                    source = Path(self._pools[attr.pool].path_of(attr.ino))
                wishes = rules.wishes(attr, b"/" + (paths.path(attr.ino) or b""))
                parent = reports.names.parent(attr.ino) or InodeNo(0)
                key, study = group.key(grouping or wishes.group, parent, source)
                wanted = wishes.copies if copies is None else copies
                place = (wishes.vault if vault is None else vault) if wanted > 1 else ""
                keys.append((key, wanted, place, study))
            return keys

        return await self._catalog.read(find)

    async def cancel(self, ino: InodeNo) -> None:
        """Take a file out of the queue; one that is being burned stays on that disc.

        Raises Conflict if it is not queued.
        """
        if self._catalog.queues.migration(ino) is None:
            raise Conflict(f"inode {ino} is not queued to be archived", next_step="nothing to do")
        async with self._catalog.write():
            self._catalog.queues.end_migration(ino)
        self._events.emit("migration_cancelled", ino=ino)

    def came_in(self, ino: InodeNo) -> None:
        """The file was recalled: if that is what it waited for, its turn is now."""
        if self.pauses.end(ino):
            self.poke()

    async def flush(self) -> None:
        """Burn what waits now, without waiting for full discs."""
        async with self._catalog.write():
            self._catalog.queues.set_burn_before(clock.now_ns() + 1)
        self.pauses.clear()
        self.poke()

    async def settled(self) -> None:
        """Return when nothing is under way and nothing is due."""
        await self._settled.wait()

    def poke(self) -> None:
        """Look at the queue: something that a file may have waited for has come."""
        if self._settled.is_set():
            self._settled = trio.Event()
        self._wake.set()

    # The loop

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Finish or undo what a crash left, then archive for ever."""
        self._busy.clear()
        self._ended.clear()
        self._active = 0
        async with trio.open_nursery() as nursery:
            for volume in await self.burner.recover():
                inos = await self.burner.files_on(volume)
                self._active += 1
                self._busy.update(inos)
                nursery.start_soon(self._resume, volume, inos)
            task_status.started()
            while True:
                self._wake = trio.Event()
                due = await self._look(nursery)
                with trio.move_on_after(due):
                    await self._wake.wait()
                await trio.sleep(PAUSE)

    async def _look(self, nursery: trio.Nursery) -> float:
        """Start what is worth burning; seconds until the queue is to be looked at again."""
        room = self._slots - self._active
        if room <= 0:
            return float("inf")
        for inos in self._ended:
            self._busy.subtract(inos)
        self._busy = +self._busy
        self._ended.clear()
        await self._catalog.settled()
        now = trio.current_time()
        await self.pauses.look()
        terms = Terms(
            plan.usable(self._disc), clock.now_ns(), self._catalog.queues.burn_before(),
            self._wait_ns, plan.Either(self._busy, self.pauses), room, self._shrink,
            self._needs_parity, self._tests and not self._catalog.health.paused,
        )  # fmt: skip
        found = await self._catalog.read(lambda reports: plan.make(reports, terms))
        await self._tidy(found)
        for batch in found.batches[:room]:
            self._begin(batch, nursery)
        if not self._active and not found.batches and not self._wake.is_set():
            await self.spool.forget_old()
            if not self._wake.is_set():
                self._settled.set()
        due = self.pauses.next - now
        if found.next_ns is not None:
            due = min(due, (found.next_ns - clock.now_ns()) / 1e9)
        return max(due, PAUSE)

    async def _tidy(self, found: Plan) -> None:
        """Files that have their copies, and those whose bytes must come in first."""
        release: list[InodeNo] = []

        def settle(ino: InodeNo) -> None:
            m, attr = self._catalog.queues.migration(ino), self._catalog.inodes.get_raw(ino)
            if m is None:
                return
            if attr is None or attr.nlink == 0:
                self._catalog.queues.end_migration(ino)
            elif self.finisher.settle(attr, m.copies, release=m.release):
                if attr.state == FileState.MIGRATED:
                    self._catalog.queues.end_migration(ino)
                else:
                    release.append(ino)

        await in_batches(self._catalog, found.satisfied, settle, "migrate.satisfied")
        await self.finisher.release_all(release)
        for ino in found.absent:
            self._put_off(ino, ABSENT)
            if self.recall is not None:
                try:
                    await self.recall(ino, "migration")
                except PosixError:
                    continue  # deleted since the plan was made

    def _put_off(self, ino: InodeNo, why: str) -> None:
        self.pauses.put_off(ino, why)
        tell = log.error if is_bad(why) else log.info
        tell("not archived now", ino=ino, reason=why)
        self._events.emit("migration_put_off", ino=ino, reason=why)

    # One batch

    def _begin(self, batch: Batch, nursery: trio.Nursery) -> None:
        self._active += 1
        self._busy.update(item.ino for item in batch.items)
        nursery.start_soon(self._work, batch)

    async def _work(self, batch: Batch) -> None:
        """A batch from its files to its discs; faults are told and the files tried again later."""
        inos = {item.ino for item in batch.items}
        try:
            await self._archive(batch)
        except Exception as fault:
            self._tell(fault, len(inos))
            queued = await at_leisure(self._catalog, inos, self._catalog.queues.migration)
            self.pauses.failed(row.ino for row in queued if row is not None)
        finally:
            # A plan that is being made rests on an older snapshot: it must still see them as busy.
            self._ended.append([item.ino for item in batch.items])
            self._active -= 1
            self._wake.set()

    def _tell(self, fault: Exception, files: int) -> None:
        for cause in causes(fault):
            if not isinstance(cause, HsmError):
                log.exception("migration failed", cause, files=files)
            else:
                log.warning("migration failed", error=cause.message, files=files)
            self._events.emit("migration_failed", error=str(cause), files=files)

    async def _resume(self, volume: VolumeId, inos: set[InodeNo]) -> None:
        try:
            await self.burner.resume(volume)
        except Exception as fault:
            self._tell(fault, len(inos))
        finally:
            self._ended.append(inos)
            self._active -= 1
            self._wake.set()

    async def _archive(self, batch: Batch) -> None:
        volumes = await self._blanks(batch.targets)
        one = int(batch.room * 1.02) + 2 * 1024 * 1024
        packed = one if self._level else 0
        together = one * len(volumes) + packed <= self.spool.limit
        images = one * len(volumes) if together else one
        try:
            async with AsyncExitStack() as stack:
                # One at a time, with all threads: the first disc burns while the second is staged.
                # Room too, as only what is being staged needs any for compressed files.
                async with self._staging:
                    room = await stack.enter_async_context(self.spool.room(images, packed))
                    folder = await stack.enter_async_context(self.spool.batch())
                    staged = await self._stage(batch, folder)
                    self.spool.packed(room, staged.packed)
                await self._burn_staged(batch, volumes, staged, folder, together)
        finally:
            self.blanks.free(volumes)

    async def _stage(self, batch: Batch, folder: Path) -> Staged:
        queued = self._catalog.queues.migration
        wanted = await at_leisure(self._catalog, batch.items, lambda item: queued(item.ino))
        items = [item for item, row in zip(batch.items, wanted, strict=True) if row is not None]
        staged = await self._stager.stage(items, folder)
        if staged.shrink is not None:
            self._shrink = min(1.0, (self._shrink + staged.shrink * CAUTION) / 2)
        return staged

    async def _burn_staged(
        self, batch: Batch, volumes: list[VolumeId], staged: Staged, folder: Path, together: bool
    ) -> None:
        try:
            crash.point("migrate.staged")
            for ino, why in staged.skipped.items():
                if why not in (GONE, NO_ROOM):
                    self._put_off(ino, why)
                    await trio.lowlevel.checkpoint()
            if staged.files:
                extra = await self._snapshots.make(folder, staged)
                await clock.blocking(lambda: trim(staged, self._disc, extra.size), clock.IMAGES)
                await self._burn_copies(batch, volumes, staged, extra, together)
                if extra.snapshot is not None:
                    await self._snapshots.burned()
        finally:
            self._stager.drop(staged)

    async def _burn_copies(
        self,
        batch: Batch,
        volumes: list[VolumeId],
        staged: Staged,
        extra: Extra,
        together: bool,
    ) -> None:
        to_build = len(volumes)

        def built() -> None:
            """Once every copy has its image, the inodes need not be held any more."""
            nonlocal to_build
            to_build -= 1
            if not to_build:
                self._stager.drop(staged)

        faults: list[Exception] = []

        async def copy(target: Target, volume: VolumeId) -> None:
            mine = Staged(list(staged.files), staged.carried, staged.items)
            try:
                await self._one_copy(target, volume, mine, extra, built)
            except Exception as fault:
                # The other copies go on.
                faults.append(fault)
            for ino, why in mine.skipped.items():
                if why.startswith(UNREADABLE):
                    self._put_off(ino, why)

        pairs = list(zip(batch.targets, volumes, strict=True))
        if together:
            async with trio.open_nursery() as nursery:
                for target, volume in pairs:
                    nursery.start_soon(copy, target, volume)
        else:
            for target, volume in pairs:
                await copy(target, volume)
        if faults:
            raise ExceptionGroup("copies failed", faults)

    async def _one_copy(
        self,
        target: Target,
        volume: VolumeId,
        staged: Staged,
        extra: Extra,
        built: Callable[[], None],
    ) -> None:
        """One copy on the first disc that takes it."""
        attempt = 0
        while True:
            try:
                await self.burner.make(volume, staged, target, extra, built)
                if not self._in_sets and (made := self._catalog.volumes.get(volume)) is not None:
                    self._offer(made.barcode, made.vault)
                return
            except AnotherDisc as fault:
                if isinstance(fault.__cause__, SourceMismatch):
                    rotten = fault.__cause__.ino
                    staged.without({rotten}, LOST_BYTES)
                    self._put_off(rotten, LOST_BYTES)
                # One that was not blank before is set aside, and says nothing of the others.
                attempt += not isinstance(fault.__cause__, ForeignDisc)
                if attempt == ATTEMPTS or not staged.files:
                    raise
                log.warning("another disc is taken", copy=target.copy_no, error=fault.message)
            (volume,) = await self._blanks((target,), without=volume)
            built = lambda: None  # noqa: E731 - the first image stands

    # Blank discs

    async def _blanks(
        self, targets: Targets, without: VolumeId | None = None
    ) -> list[VolumeId]:
        """A blank disc of our own for each copy; waits for the operator if there are too few."""
        if self._in_sets:
            return await self.blanks.take(
                lambda blanks: self.sets.choose(targets, blanks), len(targets), without
            )
        return await self.blanks.take(by_ends(targets), len(targets), without)

    async def _set_closed(self, group: VolumeSet) -> None:
        """Files that waited for the set's parity may be released, and it may leave for a vault."""
        self.poke()
        self._offer(group.name, group.vault)

    def _offer(self, name: str, vault: str) -> None:
        """Tell that an operator is asked to take the set, or the disc, to its vault."""
        if vault:
            log.info("operator must take discs to a vault", discs=name, destination=vault)
            self._events.emit(
                "export_wanted", name=name, destination=vault,
                message="operator must take discs to a vault",
            )  # fmt: skip

    def _spool_full(self, reason: str) -> None:
        log.warning("spool full", reason=reason)
        self._events.emit("spool_full", reason=reason)
