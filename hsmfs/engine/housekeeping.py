"""What has to be done again and again: sizes into the catalog, syncs, checkpoints, the trash.

A power cut loses at most the last `fs.sync_interval` of names and attributes that nobody fsynced;
of bytes, what the kernel has not written by itself (vm.dirty_expire_centisecs, 30 s).
"""

from __future__ import annotations

import math

import trio

from .. import clock, crash, limits, logs
from ..catalog.catalog import Catalog
from ..config import Config
from ..errors import Conflict
from ..limits import BATCH_ROWS
from ..pool.pools import Pools
from ..types import InodeNo
from .events import Events
from .keeping import Keeping
from .residency import Residency

log = logs.get(__name__)
PURGES = 50
"""Inodes purged between two looks at everything else."""
COMMITS = 1000
"""Fewer commits than this since the last checkpoint are not worth one."""
TRASH_LOOK = 10.0
USAGE_LOOK = 30.0
"""Seconds between looks at what is due in the trash, and at the pools' use."""


class Housekeeper:
    """One task with the engine's small regular duties."""

    def __init__(
        self, catalog: Catalog, pools: Pools, files: Residency, keeping: Keeping, events: Events,
        config: Config,
    ) -> None:
        self._catalog, self._pools, self._files, self._events = catalog, pools, files, events
        self._keeping = keeping
        self._interval = config.fs.sync_interval
        self._keep_ns = int(config.trash.keep * 1e9)
        self._checkpointed = catalog.commits
        self._trash_at = 0.0
        self._purged_to = (0, 0)
        self._usage_at = -math.inf

    async def begin(self) -> int:
        """At a start: purge inodes that lost their last name while open; how many there were.

        Call it before anything can be opened.
        """
        orphans = self._catalog.inodes.unlinked()
        for attr in orphans:
            try:
                await self._files.purge(attr.ino)
            except Conflict as fault:
                log.warning("a file without a name stays", inode=attr.ino, reason=fault.message)
            crash.point("housekeeping.orphan.purged")
        if orphans:
            log.info("purged files that were deleted while open", count=len(orphans))
        return len(orphans)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """For ever, every fs.sync_interval."""
        task_status.started()
        while True:
            now = trio.current_time()
            if now >= self._usage_at:
                await self._look_at_pools()
                self._usage_at = now + USAGE_LOOK
            await trio.sleep(self._interval)
            await self.sync()
            await self._perhaps_checkpoint()
            now = trio.current_time()
            if now >= self._trash_at and await self._purge_due() < PURGES:
                self._trash_at = now + TRASH_LOOK

    async def sync(self) -> None:
        """Closed files' sizes into the catalog, and the catalog durable."""
        while await self._files.flush_closed():
            await trio.lowlevel.checkpoint()
        crash.point("housekeeping.flushed")
        if self._catalog.commits != self._catalog.durable:
            await self._catalog.sync()
            crash.point("housekeeping.synced")

    async def _perhaps_checkpoint(self) -> None:
        large = self._catalog.wal_bytes() > limits.WAL_CHECKPOINT_BYTES
        if large and self._catalog.commits - self._checkpointed >= COMMITS:
            commits = self._catalog.commits
            if await self._catalog.checkpoint():
                self._checkpointed = commits
                crash.point("housekeeping.checkpointed")

    async def _purge_due(self) -> int:
        """Delete for good what was long enough in the trash; how many were looked at."""
        await self._catalog.settled()
        if self._catalog.trash.frozen:
            return 0
        await self._forget_moves()
        await self._keeping.purge_due()
        crash.point("housekeeping.kept.purged")
        trash, now, after = self._catalog.trash, clock.now_ns(), self._purged_to

        def due() -> list[tuple[int, InodeNo]]:
            return [] if trash.frozen else trash.due(now, PURGES, after)

        if not (listed := due()):
            self._purged_to = (0, 0)
            return 0
        # What is open, held or retained stays and must not keep what comes behind it.
        self._purged_to = listed[-1] if len(listed) == PURGES else (0, 0)
        kept = await self._files.purge_many(
            [ino for _, ino in listed], lambda: {ino for _, ino in due()}
        )
        crash.point("housekeeping.trash.purged")
        if purged := len(listed) - len(kept):
            log.info("trash purged", count=purged)
            self._events.emit("trash_purged", count=purged)
        return len(listed)

    async def _forget_moves(self) -> None:
        """A tree cannot be taken back further than the trash reaches."""
        history = self._catalog.history
        if moves := history.old_moves(clock.now_ns() - self._keep_ns, BATCH_ROWS):
            async with self._catalog.write():
                history.forget_moves(moves)

    async def _look_at_pools(self) -> None:
        """What the catalog says of the pools' use counts where a capacity is set."""
        bounded = [pool for pool in self._pools if pool.capacity is not None]
        kept, used = await self._catalog.read(
            lambda reports: (reports.kept.blocks(), reports.pool_blocks() if bounded else {})
        )
        self._keeping.takes(kept)
        for pool in bounded:
            pool.used = used.get(pool.id, 0)
