"""Handlers of attributes: getattr, setattr and statfs.

Permission to change them was checked by the kernel (default_permissions), which also takes
set-user-id bits away and sends the new mode.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

import trio
from pyfuse3 import EntryAttributes, FUSEError, RequestContext, SetattrFields, StatvfsData

from .. import clock
from ..limits import NAME_BYTES
from ..types import Attr, InodeNo
from .acl import Acl
from .core import ACCESS, Core, now
from .guard import settled, stable

_STATFS_BLOCK = 4096
_STATFS_SECONDS = 1.0
_INODES_LEFT = 2**32
"""Inode numbers do not run out; programs that ask want a number."""


class Attributes(Core):
    """getattr, setattr, statfs."""

    _statfs: tuple[float, StatvfsData] | None = None
    _inodes: tuple[int, int] | None = None
    """Transactions that were undone by then, and the inodes there were when it was opened."""

    @settled
    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        return self.entry(self.must(inode))

    @stable
    async def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        ino = InodeNo(inode)
        if fields.update_size:
            self._may_cut(ino)
            await self._resize(ino, attr.st_size, durable=self.nfs.asks(ctx))
        changes = _changes(attr, fields)
        if changes or not fields.update_size:
            if "mtime_ns" in changes and not self.must(inode).locked:
                await self.files.stamp(ino, changes["mtime_ns"])
            changes["ctime_ns"] = attr.st_ctime_ns if fields.update_ctime else now()
            async with self.catalog.write():
                await self._apply(self.must(inode), changes, ctx)
        return self.entry(self.must(inode))

    async def _resize(self, ino: InodeNo, size: int, *, durable: bool) -> None:
        if not self.must(ino).is_file:
            raise FUSEError(errno.EINVAL)
        live = self.files.hold(ino)
        try:
            await self.files.truncate(live, size)
            if durable:
                await self.files.fsync(live)
        finally:
            self.files.drop(live)

    def _may_cut(self, ino: InodeNo) -> None:
        attr = self.must(ino)
        if attr.locked:
            self.worm.opening(attr, cut=True)

    async def _apply(self, old: Attr, changes: dict[str, Any], ctx: RequestContext) -> None:
        """Inside a transaction."""
        if old.locked or self.trust.retention.active:
            self.worm.changing(old, changes, ctx)
        mode = changes.get("mode")
        if mode is not None:
            changes["mode"] = stat.S_IFMT(old.mode) | mode
            if old.ino not in self.lookups.bare:
                value = self.catalog.xattrs.get(old.ino, ACCESS)
                acl = None if value is None else Acl.parse(value)
                if acl is not None:
                    self.catalog.xattrs.set(old.ino, ACCESS, acl.with_mode(mode).value())
        self.folder_rules.pop(old.ino, None)
        await self.files.setattr(old.ino, old._replace(**changes))

    @settled
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        if self._statfs is None or trio.current_time() - self._statfs[0] > _STATFS_SECONDS:
            space = await clock.blocking(self._space)
            self._statfs = trio.current_time(), _statvfs(*space, await self._count())
        return self._statfs[1]

    def _space(self) -> tuple[int, int]:
        """Bytes of all pools and those free, filesystems shared by pools counted once; blocking."""
        total = free = 0
        seen: set[int] = set()
        for pool in self.files.pools:
            device = os.stat(pool.path).st_dev
            if pool.capacity is None and device in seen:
                continue
            seen.add(device)
            usage = pool.usage()
            total += usage.capacity
            free += max(usage.capacity - usage.used, 0)
        return total, free

    async def _count(self) -> int:
        """Inodes: all are counted once, then what is made and deleted.

        A deletion while they are counted may be missed; programs want to know about how many.
        """
        inodes = self.catalog.inodes
        if self._inodes is None or self._inodes[0] != inodes.undone:
            undone, before, below = inodes.undone, inodes.turnover, inodes.next_ino
            count = await self.catalog.read(lambda reports: reports.inode_count(below))
            self._inodes = undone, count - before
        return self._inodes[1] + inodes.turnover


def _changes(attr: EntryAttributes, fields: SetattrFields) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if fields.update_mode:
        changes["mode"] = stat.S_IMODE(attr.st_mode)
    if fields.update_uid:
        changes["uid"] = attr.st_uid
    if fields.update_gid:
        changes["gid"] = attr.st_gid
    if fields.update_atime:
        changes["atime_ns"] = attr.st_atime_ns
    if fields.update_mtime:
        changes["mtime_ns"] = attr.st_mtime_ns
    return changes


def _statvfs(total: int, free: int, inodes: int) -> StatvfsData:
    data = StatvfsData()
    data.f_bsize = data.f_frsize = _STATFS_BLOCK
    data.f_blocks = total // _STATFS_BLOCK
    data.f_bfree = data.f_bavail = free // _STATFS_BLOCK
    data.f_files = inodes + _INODES_LEFT
    data.f_ffree = data.f_favail = _INODES_LEFT
    data.f_namemax = NAME_BYTES
    return data
