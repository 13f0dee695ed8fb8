"""Notices when very much is deleted, replaced or overwritten at once, as ransomware does it.

Nothing is counted while that happens: now and then a look at the trash and at ended versions tells.
An alarm is an event, a warning in the log and a record; it can freeze the trash, so that nothing of
what can be had back is deleted for good until somebody has looked.
"""

from __future__ import annotations

import trio

from .. import clock, logs
from ..catalog.catalog import Catalog
from ..config import TrashConfig
from .events import Events
from .trust.audit import Note, unheard

log = logs.get(__name__)
LOOK = 10.0
"""Seconds between looks."""
WINDOW_NS = 60 * 10**9
"""How much within this time is a burst."""
AGAIN_NS = 600 * 10**9
"""One that goes on is told again after this time."""
SELF = "hsmfsd"


class Burst:
    """A worker, and whether the trash is frozen. note: puts alarms and thawing on record."""

    def __init__(self, catalog: Catalog, events: Events, config: TrashConfig) -> None:
        self._catalog, self._events, self._config = catalog, events, config
        self._told_ns = 0
        self.note: Note = unheard

    @property
    def frozen(self) -> bool:
        """True: nothing is deleted for good because its time is over."""
        return self._catalog.trash.frozen

    async def freeze(self, frozen: bool, who: str) -> None:
        """Keep all that is in the trash until it is thawed; durable when this returns."""
        async with self._catalog.write():
            if frozen:
                self._catalog.trash.freeze(clock.now_ns())
            else:
                self._catalog.trash.thaw()
            self.note("trash.frozen" if frozen else "trash.thawed", who)
        await self._catalog.sync()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """For ever; at once ended if there is to be no alarm."""
        task_status.started()
        while self._config.alarm:
            await self.look()
            await trio.sleep(LOOK)
        await trio.sleep_forever()

    async def look(self) -> int:
        """Count what the last minute took away; how much."""
        now = clock.now_ns()
        kept_until = now - WINDOW_NS + int(self._config.keep * 1e9)
        lost = await self._catalog.read(
            lambda reports: reports.history.lost_since(now - WINDOW_NS, kept_until)
        )
        if lost >= self._config.alarm and now - self._told_ns >= AGAIN_NS:
            self._told_ns = now
            log.warning("very much was deleted or overwritten within a minute", count=lost)
            self._events.emit("burst", count=lost, frozen=self._config.freeze or self.frozen)
            async with self._catalog.write():
                self.note("trash.alarm", SELF, count=lost)
            if self._config.freeze and not self.frozen:
                await self.freeze(True, SELF)
        return lost
