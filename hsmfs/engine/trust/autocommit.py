"""Autocommit: a file in a retention folder becomes a record after it stood still long enough.

Each file that is not committed has a row that says when to look at it. A look compares its last
change (ctime, placed on the compliance clock) with the folder's idle time: it is committed, or the
row says when to look again. A file that somebody has open for writing is not idle.
"""

from __future__ import annotations

import trio

from ... import crash
from ...catalog.catalog import Catalog
from ...catalog.retention import Folder, after
from ...limits import SHORTEST_WAIT
from ...states import Lock
from ...types import InodeNo
from ..files import Files
from ..paths import files_below
from .compliance import ComplianceClock
from .retention import WRITE, Retention

CHANGES = 1000
"""Changed files read at a time at a start."""
PAGE = 200
"""Files looked at in one transaction."""
OPEN_NS = 10 * 10**9
"""How soon a file that is open for writing is looked at again."""
LONGEST = 600.0
"""So often it is written down up to which change the rows are complete: a start looks at those
after it."""
GATHER = 0.5
"""Seconds in which new files are noted together; no idle time is shorter than twice that."""
WHO = "autocommit"


class Autocommit:
    """The worker."""

    def __init__(
        self, catalog: Catalog, files: Files, retention: Retention, clock: ComplianceClock
    ) -> None:
        self._catalog, self._files = catalog, files
        self._retention, self._clock = retention, clock
        self._wake = trio.Event()
        retention.wake = self._heed

    def _heed(self) -> None:
        self._wake.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look at files when they are due, for ever."""
        task_status.started()
        while True:
            await self.flush(always=True)
            while await self.look():
                await trio.lowlevel.checkpoint()
            self._wake = trio.Event()
            due = self._retention.tables.next_due()
            now = self._clock.now_ns()
            wait = LONGEST if due is None else min(max(SHORTEST_WAIT, (due - now) / 1e9), LONGEST)
            with trio.move_on_after(wait) as scope:
                await self._wake.wait()
            if not scope.cancelled_caught:
                await trio.sleep(GATHER)

    async def begin(self) -> None:
        """At a start: what a crash kept from being written down."""
        after = 0
        while self._needed:
            changed = await self._catalog.read(
                lambda reports, after=after: reports.retention.not_expected(after, CHANGES)  # type: ignore[misc]
            )
            if not changed:
                break
            for _, ino in changed:
                attr = self._files.attr(ino)
                parent = self._catalog.names.parent(ino)
                if attr is not None and parent is not None and not attr.locked:
                    self._retention.arrived(attr, parent)
            after = changed[-1][0]
            await trio.lowlevel.checkpoint()
        await self.flush(always=True)

    @property
    def _needed(self) -> bool:
        return any(folder.autocommit_ns is not None for folder in self._retention.folders())

    async def flush(self, *, always: bool = False) -> None:
        """Write down which files are to be looked at; always: also that there are no new ones."""
        if not self._retention.arrivals and not (always and self._needed):
            return
        async with self._catalog.write():
            complete = 0 if self._retention.unwatched else self._catalog.inodes.change_seq
            self._retention.tables.expect_all(self._retention.arrivals, complete)
        self._retention.arrivals = []
        crash.point("autocommit.flushed")

    async def look(self) -> int:
        """Look at files that are due; how many."""
        await self.flush()
        await self._catalog.settled()
        due = self._retention.tables.due(self._clock.now_ns(), PAGE)
        if not due:
            return 0
        changed: list[InodeNo] = []
        async with self._catalog.write():
            for due_ns, ino, since in due:
                self._retention.tables.looked_at(ino, due_ns)
                if await self._look_at(ino, since):
                    changed.append(ino)
        crash.point("autocommit.committed")
        for ino in changed:
            self._files.changed(ino)
        return len(due)

    async def _look_at(self, ino: InodeNo, since_ns: int) -> bool:
        """Commit the file, or say when to look again; True if it is a record now."""
        tables, now = self._retention.tables, self._clock.now_ns()
        attr = self._files.attr(ino)
        folder = self._retention.of_file(ino)
        frozen = attr is not None and attr.locked & (Lock.RECORD | Lock.CLOSING)
        if attr is None or not attr.nlink or frozen:
            return False
        if folder is None or folder.autocommit_ns is None:
            return False
        changed = self._clock.of_wall(attr.ctime_ns, since_ns)
        due = after(changed, folder.autocommit_ns)
        live = self._files.live(ino)
        if due <= now and not (live is not None and live.writers):
            made = self._retention.commit(attr, WHO)
            await self._files.setattr(ino, made._replace(mode=made.mode & ~WRITE))
            return True
        tables.expect(ino, changed, due if due > now else now + min(folder.autocommit_ns, OPEN_NS))
        return False

    async def watch(self, folder: Folder) -> None:
        """The folder got or changed its idle time: look at everything in it when that is due."""
        if folder.autocommit_ns is None:
            return
        root = self._catalog.inodes.get_raw(folder.ino)
        assert root is not None
        async for batch in files_below(self._catalog, root):
            async with self._catalog.write():
                for attr in batch:
                    if not attr.locked & (Lock.RECORD | Lock.CLOSING):
                        since = self._clock.of_wall(attr.ctime_ns, 0)
                        due = after(since, folder.autocommit_ns)
                        self._retention.tables.expect(attr.ino, since, due)
            self._heed()
            await trio.lowlevel.checkpoint()
        self._retention.unwatched -= 1
        await self.flush(always=True)
