"""The engine: makes and wires its parts, starts and stops them in order, and keeps them running.

What the filesystem and the API ask for goes through here; what each answer is made of is the job
of overview.py (questions), acts.py (orders) and control.py (the mount's control xattrs).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from .. import __version__, clock, crash, logs
from ..catalog.catalog import Catalog
from ..catalog.queues import RecallClass
from ..catalog.volumes import Volume
from ..config import Config
from ..disc.layout import VolumeLabel
from ..errors import Conflict
from ..library.labels import labelled
from ..library.ports import Library
from ..library.robot import Robot
from ..pool.pools import Pools
from ..types import InodeNo, VolumeId
from ..watchdog import LoopWatch
from . import overview
from .access import Access
from .adopt import Adopter
from .adopt_discs import DiscAdopter
from .backups import Backups
from .burst import Burst
from .control import Control
from .demote import Demoter
from .events import Events
from .files import Files
from .guard import Guard, Mode
from .housekeeping import Housekeeper
from .integrity.discs import Reading
from .integrity.tree import Verifier
from .jobs import Jobs
from .journal import CatalogJournal
from .keeping import Keeping
from .migrate import Migrator
from .mounts import Mounts
from .policies import Policies
from .policy.match import Ruleset
from .prefetch import Prefetcher
from .recall import Recaller
from .recorder import Recorder
from .refresh import REFRESH, Refresher
from .release import Releaser
from .renew import Renewer
from .rollback import Rollback
from .scrub import Scrubber
from .supervise import Worker, supervise
from .transfer import Transfer
from .trash import TrashCan
from .trust import Trust
from .trust.syslog import Forwarder
from .versions import Versions
from .views import WorkerView
from .waiters import WaiterView

log = logs.get(__name__)


class Engine:
    """All of hsmfs but the mount and the API.

    Attributes:
        config, catalog, pools, library: what it was given; the caller closes them after it.
        robot, files, events, mounts, guard, recaller, migrator, renewer, releaser, demoter,
            policies, keeping, housekeeper, adopter, scrubber, refresher, verifier, trash, rollback,
            versions, burst, backups, jobs, recorder, prefetcher:
            the parts; each is the job of the module that it comes from.
        access: who may ask the API for what.
        control: what the mount may ask beside bytes.
        stopping: a clean stop has begun.
        config_file: where the configuration came from; set by the daemon.
        stop_asked: set by the API's order to stop; the daemon waits for it.
    """

    version = __version__

    def __init__(
        self,
        config: Config,
        catalog: Catalog,
        pools: Pools,
        library: Library,
        watch: LoopWatch | None = None,
    ) -> None:
        self.config, self.catalog, self.pools, self.library = config, catalog, pools, library
        self.watch = watch
        self.config_file: Path | None = None
        self.pid = os.getpid()
        self.started_ns = clock.now_ns()
        self.stopping = False
        self.stop_asked = trio.Event()
        self.events = events = Events()
        self.files = files = Files(catalog, pools)
        self.trust = trust = Trust(catalog, files)
        self.access = Access(config, catalog, trust.audit)
        journal = CatalogJournal(catalog)
        self.robot = Robot(library, journal, config.library.arms)
        self.mounts = mounts = Mounts(catalog, library, self.robot, events, config)
        self.guard = Guard(catalog, events, Mode(config.guard.mode))
        self.recaller = Recaller(catalog, files, mounts, events, config, guard=self.guard)
        self.migrator = Migrator(catalog, pools, files, mounts, events, config)
        self.renewer = Renewer(
            catalog, events, self.migrator.spool, self.migrator.blanks,
            self.recaller.parity_reader, self.migrator.burner,
        )  # fmt: skip
        self.scrubber = Scrubber(catalog, mounts, events, config)
        self.refresher = Refresher(catalog, events, config)
        self.verifier = Verifier(
            catalog, files, self.migrator.ingest, events, Reading(catalog, mounts, self._doubted)
        )
        rules = Ruleset((), copies=config.engine.copies, head=config.fs.head)
        self.releaser = Releaser(catalog, pools, files, rules, events, config)
        self.prefetcher = Prefetcher(
            catalog, pools, self.recaller, self.releaser, events, config
        )
        self.demoter = Demoter(catalog, pools, files, events)
        self.policies = Policies(
            catalog, pools, self.migrator, self.releaser, self.demoter, events, config
        )
        self.keeping = files.keeping = Keeping(
            catalog, files, events, config.versions, config.trash.keep
        )
        self.housekeeper = Housekeeper(catalog, pools, files, self.keeping, events, config)
        self.adopter = Adopter(catalog, pools, files)
        self.backups = Backups(catalog, config, events)
        self.jobs = Jobs()
        self.recorder = Recorder(catalog, self.robot, config.trace)
        self.vault = Transfer(catalog, self.robot, mounts, self.recaller, events)
        self.disc_adopter = DiscAdopter(
            catalog, files, self.robot, mounts, self.migrator.blanks, config
        )
        self.trash = TrashCan(catalog, files, self.events)
        self.rollback = Rollback(
            catalog, files, self.keeping, trust.retention, config.trash.keep
        )
        self.versions = Versions(catalog, files, self.keeping, config.trash.keep)
        self.burst = Burst(catalog, events, config.trash)
        self.control = Control(self)
        journal.note = trust.audit.note
        self._mounts_worker = Worker("mounts", mounts.run)
        self._others = [
            Worker("recaller", self.recaller.run),
            Worker("guard", self.guard.run),
            Worker("migrator", self.migrator.run),
            Worker("sets", self.migrator.sets.run),
            Worker("renewer", self.renewer.run),
            Worker("scrubber", self.scrubber.run),
            Worker("refresher", self.refresher.run),
            Worker("releaser", self.releaser.run),
            Worker("prefetcher", self.prefetcher.run),
            Worker("demoter", self.demoter.run),
            Worker("policies", self.policies.run),
            Worker("housekeeper", self.housekeeper.run),
            Worker("backups", self.backups.run),
            Worker("burst", self.burst.run),
            Worker("recorder", self.recorder.run),
            Worker("vault", self.vault.run),
            Worker("trust", trust.run),
            Worker("autocommit", trust.autocommit.run),
            Worker("syslog", Forwarder(catalog, trust.audit, config.audit.syslog).run),
        ]

        self._wire()

    def _wire(self) -> None:
        """Who asks whom: each part knows only what it needs, and nobody knows the engine."""

        async def bring_in(ino: InodeNo, who: str) -> None:
            if not await self.recaller.request(ino, RecallClass.BULK, who):
                self.migrator.came_in(ino)

        async def archive(
            inos: Sequence[InodeNo], copies: int, who: str, release: bool, vault: str
        ) -> None:
            await self.migrator.archive(inos, copies, who, release, vault=vault)

        async def complete(ino: InodeNo, who: str) -> None:
            await self.recaller.request(ino, RecallClass.BULK, who)

        async def tested(volume: Volume) -> None:
            self.migrator.poke()

        async def replace(volume: Volume, why: str) -> None:
            self.migrator.poke()
            if config.scrub.replace:
                await self.replace_disc(volume, f"failed its test: {why}")

        def came_back(volume: VolumeId) -> None:
            self.vault.came_back(volume)
            self.renewer.came_back(volume)

        def called(label: VolumeLabel) -> str:
            volume = self.catalog.volumes.by_uuid(label.uuid)
            return volume.barcode if volume is not None else label.barcode

        if (changer := labelled(self.library)) is not None:
            changer.called = called
        config, note = self.config, self.trust.audit.note
        self.rollback.note = self.versions.note = self.burst.note = note
        self.verifier.note = note
        self.refresher.note = self.releaser.note = self.recaller.note = note
        self.migrator.burner.note = self.policies.note = self.migrator.ingest.note = note
        self.recaller.beside.note = note
        self.refresher.may_retire = self.trust.holds.refuse_to_retire
        self.renewer.may_retire = self.trust.holds.refuse_to_retire
        self.refresher.archive, self.refresher.complete = archive, complete
        self.scrubber.failed, self.scrubber.passed = replace, tested
        self.mounts.ledger.flagged = self.scrubber.look
        self.migrator.blanks.magazines = self.robot.magazines
        self.files.make_room = self.releaser.make_room
        self.migrator.finisher.release = self.releaser.release
        self.migrator.recall = bring_in
        self.recaller.came_in = self.migrator.came_in
        self.recaller.asked = self.recorder.recall
        self.recaller.beside.choose = self.prefetcher.beside
        self.migrator.burner.begun = self.recorder.burn
        self.mounts.pressure = lambda: self.releaser.pressure
        self.mounts.inventory.came_back = came_back

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Recover, start the workers, and stop them cleanly at the end. Raises PolicyError.

        Drives are the last to stop, so that a disc that is being burned is finished.
        """
        recovered = await self.files.recover()
        async with self.catalog.write():
            self.catalog.volumes.size_blanks(self.library.disc_bytes)
        crash.point("engine.recovered")
        await self.trust.begin()
        self.access.tokens.load()
        await self.housekeeper.begin()
        await self.adopter.resume()
        await self.policies.load()
        self.guard.load()
        async with trio.open_nursery() as drives:
            await drives.start(supervise, self._mounts_worker, self.events)
            async with trio.open_nursery() as workers:
                for worker in self._others:
                    await workers.start(supervise, worker, self.events)
                self.jobs.nursery = workers
                log.info("engine started", recovered_files=recovered)
                try:
                    yield
                finally:
                    self.stopping = True
                    self.jobs.nursery = None
                    crash.point("engine.stop.begun")
                    workers.cancel_scope.cancel()
            crash.point("engine.stop.workers_ended")
            drives.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await self._write_all_down()

    async def write_sizes_down(self) -> None:
        """Sizes and times of files that nobody writes any more reach the catalog."""
        while await self.files.flush_closed():
            await trio.lowlevel.checkpoint()

    async def _write_all_down(self) -> None:
        await self.write_sizes_down()
        crash.point("engine.stop.flushed")
        await self.trust.end()
        await self.catalog.sync()
        await self.catalog.checkpoint()
        crash.point("engine.stop.durable")

    async def _doubted(self, volume: Volume, who: str) -> None:
        """A disc did not read as it should: the scrubber tests it, in another drive too."""
        try:
            await self.scrubber.ask([volume], who, 100)
        except Conflict as fault:
            log.warning("not tested", volume=volume.barcode, error=fault.message)

    async def replace_disc(self, volume: Volume, who: str) -> str:
        """Have a bad disc replaced: rebuild from parity if its set can, else its files anew.

        Returns the word for what is done. Raises Conflict.
        """
        try:
            await self.renewer.ask(volume)
            return "rebuild"
        except Conflict:
            await self.refresher.ask([volume], REFRESH, who)
            return REFRESH

    def workers(self) -> list[WorkerView]:
        """The engine's tasks and how they do."""
        return [worker.view for worker in (self._mounts_worker, *self._others)]

    def waiters(self) -> list[WaiterView]:
        """Readers that wait for a disc, the oldest first."""
        return self.recaller.waiters()

    def why(self, ino: InodeNo) -> dict[str, Any]:
        """What a reader of the inode waits for, as plain values."""
        return overview.why(self, ino)

    def doing(self) -> str:
        """In a few words what is being burned, for progress bars."""
        return ", ".join(
            f"{p.phase} {p.barcode} {100 * p.done // p.size if p.size else 0} %"
            for p in self.migrator.burner.progress.values()
        )

    def set_pinned(self, ino: InodeNo, pinned: bool) -> None:
        """Keep the file on disk, or no longer; inside a write transaction."""
        self.catalog.inodes.set_pinned(ino, pinned)
        live = self.files.live(ino)
        if live is not None:
            self.catalog.if_undone(live.as_now())
            live.attr = live.attr._replace(pinned=pinned)
