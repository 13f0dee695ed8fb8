"""Keeps what files were before they are changed in place, if no disc has it.

A file that lay still is changed: its version ends. As long as bytes are only added, the version is
what the file begins with, and costs a row. Before a byte of it changes, an inode without a name
gets the bytes: the pool file itself if the file is emptied, else a copy. What is done before what,
and why: docs/adr/0018-old-bytes-are-set-aside.md. What is not kept is never a reason to refuse a
write.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import trio

from .. import clock, crash, logs
from ..catalog.catalog import Catalog
from ..catalog.kept import NOBODY
from ..config import VersionsConfig
from ..errors import Conflict, HsmError, PoolFull, PosixError
from ..pool.copying import duplicate
from ..pool.store import Pool
from ..states import FileState
from ..types import Attr, DataVersion, InodeNo, PoolId
from .events import Events
from .live import UNKNOWN, Live
from .residency import Residency

log = logs.get(__name__)
_ONE = DataVersion(1)
_TELL_EVERY_S = 3600.0
_PURGES = 100
"""Versions forgotten in one transaction."""


@dataclass(frozen=True, slots=True)
class Spared:
    """What is to be noted before bytes of a file change.

    Attributes:
        ends: the present version was still, and no disc has it: it ends.
        cut: bytes change that older versions need.
        holder: the inode that has these from now on; NOBODY: there was no room.
        blocks: what it takes, in units of 512 bytes.
        linked: its bytes are the pool file itself, which is to become another (`part`).
        stake: so many first bytes of the file older versions still need after the change.
        since_ns: when the bytes were changed last.
    """

    ends: bool
    since_ns: int
    cut: bool = False
    holder: InodeNo = NOBODY
    blocks: int = 0
    linked: bool = False
    stake: int = 0


class Keeping:
    """Asked by `Files` before a change, and by whoever wants old bytes back.

    Attributes:
        used: bytes of each pool that kept versions take; looked up now and then (`look`).
    """

    def __init__(
        self, catalog: Catalog, files: Residency, events: Events, config: VersionsConfig,
        keep_s: float,
    ) -> None:
        self._catalog, self._files, self._events = catalog, files, events
        self._keep_ns, self._settle_ns = int(keep_s * 1e9), int(config.settle * 1e9)
        self._at_most, self._share = config.keep_unarchived, config.keep_share
        self._on = bool(self._keep_ns and self._at_most)
        self.used: dict[PoolId, int] = {}
        self._told = -math.inf

    def arm(self, live: Live) -> None:
        """The file is opened to be written, or cut: its next change is the first one.

        Not so if it was made just now.
        """
        if self._on and (live.attr.size or not live.attr.dirty) and not live.attr.locked:
            live.stake = UNKNOWN

    # Before a change

    async def spare(self, live: Live, start: int, *, emptied: bool = False) -> Spared:
        """Bytes from start on are about to change, or to be added there; set aside what must be.

        The caller holds live.lock and has the file open, notes the answer (`note`) and makes it
        durable before it changes a byte.
        """
        await self._catalog.settled()
        attr, since_ns = live.attr, os.fstat(live.fd).st_mtime_ns
        # An empty file has a pool file only since it was opened; that it was empty costs a row.
        moved = attr.size and 0 <= clock.now_ns() - since_ns < self._settle_ns
        ends = not moved and not live.writing and not live.absent and not self._on_disc(live)
        need = attr.size if ends else self._catalog.kept.relied(attr.ino, attr.version)
        if start >= need:
            return Spared(ends, since_ns, stake=need)
        if live.absent:
            return Spared(ends, since_ns, cut=True)
        return await self._set_aside(
            live, need, Spared(ends, since_ns, cut=True), emptied=emptied and ends
        )

    def _on_disc(self, live: Live) -> bool:
        return live.sealed and self._catalog.copies.is_archived(live.ino, live.attr.version)

    async def _set_aside(self, live: Live, size: int, lost: Spared, *, emptied: bool) -> Spared:
        """Have another inode get the first bytes; lost: what to answer if it cannot."""
        pool = self._files.pool_of(live)
        holder = await self._new(live.attr, size, pool)
        try:
            crash.point("keeping.begun")
            linked = emptied and await clock.blocking(lambda: self._linked(live, pool, holder.ino))
            blocks = live.blocks if linked else await self._copied(live, pool, holder.ino, size)
            crash.point("keeping.set_aside")
            self.used[pool.id] = self.used.get(pool.id, 0) + blocks * 512
            return replace(lost, holder=holder.ino, blocks=blocks, linked=linked)
        except (OSError, HsmError) as fault:
            self._files.drop(holder)
            await self._discard(holder.ino)
            self._not_kept(live.ino, size, fault)
            return lost
        except BaseException:
            self._files.drop(holder)
            raise

    def _not_kept(self, ino: InodeNo, size: int, fault: Exception) -> None:
        """Say so; once an hour, for there may be very many."""
        log.debug("an old version is not kept", inode=ino, bytes=size, reason=str(fault))
        too_large = isinstance(fault, OSError) and fault.errno == errno.EFBIG
        if not too_large and trio.current_time() - self._told > _TELL_EVERY_S:
            self._told = trio.current_time()
            log.warning("old versions of files are not kept", reason=str(fault))
            self._events.emit("versions_not_kept", reason=str(fault))

    async def _new(self, like: Attr, size: int, pool: Pool) -> Live:
        """An inode without a name for bytes of a file; held. A crash leaves an orphan."""
        async with self._catalog.write():
            attr = self._catalog.inodes.insert_as(
                like._replace(
                    ino=self._catalog.inodes.reserve(), nlink=0, size=size, blocks=0, pool=pool.id,
                    state=FileState.RESIDENT, version=_ONE, base_version=_ONE, dirty=False,
                    pinned=False, locked=0,
                )
            )  # fmt: skip
            return self._files.hold(attr.ino)

    def _linked(self, live: Live, pool: Pool, new: InodeNo) -> bool:
        """In a thread: give the pool file a second name; False if it has to be copied.

        Somebody outside may change a file that was adopted by hard link.
        """
        self._refuse_more(pool, live.blocks * 512)
        if os.fstat(live.fd).st_nlink > 1:
            return False
        try:
            pool.share(live.ino, new)
        except OSError as fault:
            if fault.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
                return False
            raise
        return True

    async def _copied(self, live: Live, pool: Pool, new: InodeNo, size: int) -> int:
        fd, at_most = live.fd, self._at_most

        def copy() -> int:
            self._refuse_more(pool, size)
            if pool.usage().percent > pool.high:
                raise PoolFull(f"pool {pool.name} is above its high watermark")
            return duplicate(fd, pool, new, size, at_most=at_most)

        return await clock.blocking(copy)

    def _refuse_more(self, pool: Pool, size: int) -> None:
        bound = pool.usage().capacity * self._share // 100
        if self.used.get(pool.id, 0) + size > bound:
            raise PoolFull(f"old versions fill their share of pool {pool.name}")

    def note(self, attr: Attr, spared: Spared) -> None:
        """In the transaction after which the bytes may change; attr as it was before."""
        ino, version, kept = attr.ino, attr.version, self._catalog.kept
        if spared.ends:
            version = DataVersion(version + 1)
            purge_ns = clock.now_ns() + self._keep_ns
            kept.put(ino, attr.version, attr.size, spared.since_ns, purge_ns)
        if spared.cut:
            kept.move(ino, version, spared.holder)
        if spared.holder != NOBODY:
            self._catalog.inodes.set_blocks(spared.holder, spared.blocks)
        if spared.linked:
            self._catalog.inodes.set_size(ino, 0)

    async def part(self, live: Live, spared: Spared) -> None:
        """After that is durable: the file gets a pool file of its own, empty."""
        pool, fd, holder = self._files.pool_of(live), live.fd, spared.holder
        await clock.blocking(lambda: pool.part(live.ino, holder, fd))
        crash.point("keeping.parted")
        live.attr = live.attr._replace(size=0)

    def done(self, spared: Spared) -> None:
        """The inode that has the bytes is known to the catalog: nobody need hold it."""
        holder = self._files.live(spared.holder)
        if holder is not None:
            self._files.drop(holder)

    # Bringing back

    @asynccontextmanager
    async def bytes_of(
        self, ino: InodeNo, version: DataVersion, size: int
    ) -> AsyncIterator[InodeNo | None]:
        """An inode without a name that has the bytes of a version, to be given one in the block;
        None if no inode has them. What others need is copied; a copy without a name is deleted.

        Raises Conflict if the bytes have to be recalled first, OSError, PoolFull.
        """
        await self._catalog.settled()
        holder = self._catalog.kept.holder(ino, version)
        if holder is None:
            yield None
            return
        if holder.nlink == 0 and holder.size == size and not self._catalog.trash.get(holder.ino):
            live = self._files.hold(holder.ino)
            try:
                yield live.ino
            finally:
                self._files.drop(live)
            return
        live = await self._copy_of(holder.ino, size)
        try:
            yield live.ino
        finally:
            self._files.drop(live)
            with trio.CancelScope(shield=True):
                if live.attr.nlink == 0:
                    await self._discard(live.ino)

    async def _copy_of(self, ino: InodeNo, size: int) -> Live:
        source = self._files.hold(ino)
        try:
            async with source.lock:
                if source.absent:
                    raise Conflict(f"bytes of inode {ino} are on discs", next_step="recall it")
                fd, pool = await self._files.opened(source), self._files.pool_of(source)
                new = await self._new(source.attr, size, pool)
                try:
                    blocks = await clock.blocking(lambda: duplicate(fd, pool, new.ino, size))
                    crash.point("keeping.copied_back")
                    async with self._catalog.write():
                        self._catalog.inodes.set_blocks(new.ino, blocks)
                    new.attr = new.attr._replace(blocks=blocks)
                except BaseException:
                    self._files.drop(new)
                    with trio.CancelScope(shield=True):
                        await self._discard(new.ino)
                    raise
                return new
        finally:
            self._files.drop(source)

    async def _discard(self, ino: InodeNo) -> None:
        """Delete an inode without a name; one that is in use goes at the next start."""
        try:
            await self._files.purge(ino)
        except (Conflict, PosixError) as fault:
            log.warning("a file without a name stays till the next start", inode=ino,
                        reason=str(fault))  # fmt: skip

    # Housekeeping

    def takes(self, blocks: Mapping[PoolId, int]) -> None:
        """So many 512-byte units are taken in each pool."""
        self.used = {pool: count * 512 for pool, count in blocks.items()}

    async def purge_due(self) -> None:
        """Forget versions whose time is over, and delete what only they needed."""
        count, kept = _PURGES, self._catalog.kept
        while count == _PURGES and kept.is_due(clock.now_ns()):
            async with self._catalog.write():
                count, alone = kept.purge(clock.now_ns(), _PURGES)
            if alone:
                crash.point("keeping.forgotten")
                await self._files.purge_many(alone)
            await trio.lowlevel.checkpoint()
