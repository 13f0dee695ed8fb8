"""Puts clock, audit log, retention and holds together, and keeps them running."""

from __future__ import annotations

import trio

from ... import clock, crash, logs
from ...catalog.catalog import Catalog
from ...catalog.holds import Holds
from ...catalog.retention import Retentions
from ...errors import Forbidden
from ...states import Lock
from ...types import Attr, InodeNo, Requester
from ..files import Files
from .audit import Audit
from .autocommit import Autocommit
from .compliance import ComplianceClock
from .holds import LegalHolds
from .retention import Retention
from .wallwatch import wall_clock_set
from .words import path_of

log = logs.get(__name__)
SELF = "hsmfsd"
TICK = 2.0
"""Seconds between looks at refusals that repeat."""
APPLY = 3600.0
"""Seconds between looks at what came under holds."""
SAVE = 60.0
"""Seconds between two notes of the compliance clock: what a power cut can hold it back."""


class Trust:
    """Everything that retention, holds and the audit log need of one catalog.

    Attributes:
        clock, audit, retention, holds, autocommit: the parts.
    """

    def __init__(self, catalog: Catalog, files: Files) -> None:
        self._catalog, self._files = catalog, files
        tables, holds = Retentions(catalog.db), Holds(catalog.db)
        self.clock = ComplianceClock(tables, catalog.audit)
        self.audit = Audit(catalog, self.clock)
        self.retention = Retention(catalog, files, tables, holds, self.clock, self.audit)
        self.holds = LegalHolds(catalog, files, holds, self.audit)
        self.autocommit = Autocommit(catalog, files, self.retention, self.clock)
        self.save_every = SAVE
        catalog.names.named = self.retention.arrived
        files.may_purge = self.retention.may_purge
        files.purged = self._purged

    async def begin(self) -> None:
        """At a start, before anything is served: note the clock, finish what was cut off."""
        async with self._catalog.write():
            if self.clock.new:
                self.audit.note("clock.started", SELF)
            self.retention.tables.put_clock(self.clock.row())
            self.audit.note("daemon.started", SELF)
        await self.look()
        for ino in self._catalog.inodes.locked(Lock.CLOSING):
            await self.retention.finish_closing(ino, SELF)
        await self.holds.resume()
        await self.autocommit.begin()
        await self._catalog.sync()

    async def end(self) -> None:
        """At a clean stop, when nothing is served any more."""
        await self.audit.tell_repeated(all_=True)
        await self.autocommit.flush(always=True)
        async with self._catalog.write():
            self.retention.tables.put_clock(self.clock.row())
            self.audit.note("daemon.stopped", SELF)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Note the clock now and then, and the wall clock's jumps at once; for ever."""
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_wall)
            nursery.start_soon(self._save)
            nursery.start_soon(self._apply_holds)
            while True:
                await trio.sleep(TICK)
                await self.audit.tell_repeated()

    async def _save(self) -> None:
        while True:
            await trio.sleep(self.save_every)
            await self.look()
            async with self._catalog.write():
                self.retention.tables.put_clock(self.clock.row())
            crash.point("trust.clock.saved")

    async def _apply_holds(self) -> None:
        """What came into the trees and searches of holds is held, too."""
        while True:
            await trio.sleep(APPLY)
            for hold in self.holds.tables.all():
                if hold.stands:
                    await self.holds.apply(hold.name, SELF)

    async def _watch_wall(self) -> None:
        async for _ in wall_clock_set():
            await self.look()

    async def look(self) -> None:
        """Compare the clocks; a jump of the wall clock goes on record."""
        jump = self.clock.look()
        if jump is None:
            return
        if jump.kind == "clock.jumped":
            log.warning("the wall clock was set", by_s=jump.by_ns / 1e9)
        else:
            log.info("the compliance clock stood still while the machine was off",
                     by_s=jump.by_ns / 1e9)  # fmt: skip
        async with self._catalog.write():
            self.audit.note(
                jump.kind, SELF, by_ns=jump.by_ns, wall_ns=clock.now_ns(), worm_ns=jump.worm_ns
            )
            self.retention.tables.put_clock(self.clock.row())

    def _purged(self, inos: list[InodeNo]) -> None:
        self.audit.note("file.purged", SELF, files=len(inos), inos=inos)

    # For the mount

    def deleted(self, attr: Attr, path: str, actor: str) -> None:
        """The last name of a file was taken away; in the transaction that did."""
        self.audit.note(
            "file.deleted", actor, path, ino=attr.ino, size=attr.size, version=attr.version
        )

    async def refused(self, fault: Forbidden, who: Requester) -> None:
        """Somebody is about to be told EPERM."""
        path = path_of(self._catalog, fault.ino)
        await self.audit.refused(fault.act, who, path, fault.why)

    def described(self, ino: InodeNo) -> dict[str, object]:
        """What holds a file, as plain values: retention, holds, state; times UTC ns."""
        attr = self._files.attr(ino)
        record, holds = self.retention.tables.get(ino), self.holds.tables.of(ino)
        locked = Lock(attr.locked) if attr is not None else Lock(0)
        state = "closing" if locked & Lock.CLOSING else "none"
        if record is not None:
            kept = record.until_ns > self.clock.now_ns()
            state = "appendable" if locked & Lock.APPEND else "retained" if kept else "expired"
        return {
            "state": state,
            "mode": record.mode.name.lower() if record else None,
            "until_ns": record.until_ns if record else None,
            "committed_ns": record.committed_ns if record else None,
            "holds": holds,
        }
