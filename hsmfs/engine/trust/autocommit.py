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
from ...states import Lock
from ...types import InodeNo
from ..files import Files
from ..paths import files_below
from .compliance import ComplianceClock
from .retention import WRITE, Retention

PAGE = 200
"""Files looked at in one transaction."""
OPEN_NS = 10 * 10**9
"""How soon a file that is open for writing is looked at again."""
LONGEST = 86_400.0
WHO = "autocommit"


class Autocommit:
    """The worker."""

    def __init__(
        self, catalog: Catalog, files: Files, retention: Retention, clock: ComplianceClock
    ) -> None:
        self._catalog, self._files = catalog, files
        self._retention, self._clock = retention, clock
        self._wake = trio.Event()
        self._asleep_until = 0
        retention.wake = self._heed

    def _heed(self, due_ns: int) -> None:
        if due_ns < self._asleep_until:
            self._wake.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look at files when they are due, for ever."""
        task_status.started()
        while True:
            while await self.look():
                await trio.lowlevel.checkpoint()
            self._wake = trio.Event()
            due = self._retention.tables.next_due()
            now = self._clock.now_ns()
            self._asleep_until = due if due is not None else 2**63 - 1
            wait = LONGEST if due is None else min(max(0.0, (due - now) / 1e9), LONGEST)
            with trio.move_on_after(wait):
                await self._wake.wait()

    async def look(self) -> int:
        """Look at files that are due; how many."""
        await self._catalog.settled()
        due = self._retention.tables.due(self._clock.now_ns(), PAGE)
        if not due:
            return 0
        changed: list[InodeNo] = []
        async with self._catalog.write():
            for ino, since in due:
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
        if attr is None or not attr.nlink or folder is None or frozen:
            tables.forget(ino)
            return False
        if folder.autocommit_ns is None:
            tables.forget(ino)
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
                        self._retention.expect(
                            attr.ino, since, after(since, folder.autocommit_ns)
                        )
            await trio.lowlevel.checkpoint()
