"""Moves closed files from the fast tier to the disk tier, by policy and by watermark.

Crash-safe: the copy is durable before the catalog points to it, and the old file goes only when
the catalog's note is durable. What a crash leaves is a second file for an inode, which fsck and
the next move clear away.
"""

from __future__ import annotations

import errno
import os

import trio

from .. import clock, crash, logs
from ..catalog.catalog import Catalog
from ..errors import Conflict, HsmError, PoolFull, PosixError
from ..pool.copying import duplicate
from ..pool.pools import DISK, FAST, Pools
from ..pool.store import Pool
from ..types import InodeNo
from .events import Events
from .live import Live
from .residency import Residency

log = logs.get(__name__)
LOOK = 10.0
"""Seconds between looks at the watermarks."""
CANDIDATES = 2000


class Demoter:
    """Demotes on demand and above the fast pools' high watermarks."""

    def __init__(self, catalog: Catalog, pools: Pools, files: Residency, events: Events) -> None:
        self._catalog, self._pools, self._files, self._events = catalog, pools, files, events

    async def demote(self, ino: InodeNo, who: str) -> int:
        """Move one file to the disk tier; the bytes moved.

        Raises Conflict if it is in use, changed meanwhile, or not on the fast tier; PoolFull.
        """
        try:
            live = self._files.hold(ino)
        except PosixError as fault:
            raise Conflict(f"inode {ino} is gone", next_step="nothing to do") from fault
        try:
            async with live.lock:
                moved = await self._move(live)
        finally:
            self._files.drop(live)
        log.info("demoted", ino=ino, bytes=moved, requester=who)
        self._events.emit("demoted", ino=ino, bytes=moved, requester=who)
        return moved

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep every fast pool below its high watermark, for ever."""
        task_status.started()
        while True:
            if self._pools.tier(DISK):
                for pool in self._pools.tier(FAST):
                    await self._keep_below(pool)
            await trio.sleep(LOOK)

    async def _keep_below(self, pool: Pool) -> None:
        usage = await clock.blocking(pool.usage)
        if usage.percent <= pool.high:
            return
        excess = usage.used - usage.capacity * pool.low // 100
        found = await self._catalog.read(
            lambda reports: reports.longest_unused(pool.id, CANDIDATES)
        )
        for attr in found:
            if excess <= 0:
                return
            try:
                excess -= await self.demote(attr.ino, "watermark")
            except Conflict as fault:
                log.debug("not demoted", ino=attr.ino, reason=fault.message)
            except PoolFull as fault:
                self._events.emit("cannot_demote", pool=pool.name, error=fault.message)
                return
            except (HsmError, OSError) as fault:  # one that does not read must not keep the others
                log.warning("not demoted", ino=attr.ino, reason=str(fault))
                self._events.emit("cannot_demote", pool=pool.name, error=str(fault))

    async def _move(self, live: Live) -> int:
        attr = live.attr
        if attr.pool is None or self._pools[attr.pool].tier != FAST:
            raise Conflict(f"inode {live.ino} is not on the fast tier", next_step="nothing to do")
        self._refuse_used(live)
        old = self._pools[attr.pool]
        new = await clock.blocking(lambda: self._pools.roomiest(DISK))
        if new is None:
            raise Conflict("there is no pool of the disk tier", next_step="add a [[pool]]")
        await self._files.settle(live)
        fd, gen = self._files.file(live), live.gen
        try:
            blocks = await clock.blocking(lambda: duplicate(fd, new, live.ino))
        except OSError as fault:
            await clock.blocking(lambda: new.remove(live.ino))
            if fault.errno in (errno.ENOSPC, errno.EDQUOT):
                raise PoolFull(f"pool {new.name} is full") from fault
            raise PosixError(fault.errno or errno.EIO, str(fault)) from fault
        crash.point("demote.copied")
        try:
            async with self._catalog.write():
                # From here until memory follows nothing else runs.
                self._refuse_used(live, gen)
                self._catalog.inodes.set_pool(live.ino, new.id)
                self._catalog.inodes.set_blocks(live.ino, blocks)
        except BaseException:
            with trio.CancelScope(shield=True):
                await clock.blocking(lambda: new.remove(live.ino))
            raise
        live.attr = live.attr._replace(pool=new.id, blocks=blocks)
        os.close(live.fd)
        live.fd = -1
        crash.point("demote.committed")
        await self._catalog.sync()
        crash.point("demote.durable")
        await clock.blocking(lambda: old.remove(live.ino))
        crash.point("demote.removed")
        old.used, new.used = max(0, old.used - blocks * 512), new.used + blocks * 512
        return blocks * 512

    def _refuse_used(self, live: Live, gen: int | None = None) -> None:
        """Whoever opened it may hold the old descriptor; a hold besides ours reads the old path."""
        used = live.opens or live.writing or live.holds > 1 or live.unsaved_ranges
        if used or live.unflushed or (gen is not None and live.gen != gen):
            raise Conflict(f"inode {live.ino} is in use", next_step="it is tried again later")
