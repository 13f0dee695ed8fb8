"""Handlers of open files: open, read, write, fsync, release.

There is no flush handler: pyfuse3 answers ENOSYS once, and the kernel asks no more at each close.
pyfuse3 sends a read's answer before anything else runs, so a buffer that is reused is safe.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import cast

from pyfuse3 import FileInfo, FUSEError, RequestContext, get_sup_groups

from ..engine.live import Live
from ..engine.ranges import overlap
from ..states import Lock
from ..types import InodeNo, Range
from .core import CAPABILITY, Core, now
from .guard import guarded, settled
from .handles import Handle, writes
from .snapnumbers import PAST

_SET_ID = stat.S_ISUID | stat.S_ISGID


class OpenFiles(Core):
    """open, read, write, fsync, release."""

    @settled
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        write = writes(flags)
        if inode >= PAST:
            return await self._open_past(inode, flags, ctx)
        live = self.files.open(InodeNo(inode), write=write)
        cut = bool(flags & os.O_TRUNC)
        try:
            if live.attr.locked and (write or cut):
                self.worm.opening(live.attr, cut=cut)
            if cut:
                await self._cut(live, ctx)
            handle = Handle(live, flags, ctx)
            self._may_open(handle)
        except BaseException:
            self.files.close(live, write=write)
            raise
        stub = self._direct_stub(live)
        # A record that takes bytes at its end must not be mapped to be written elsewhere.
        appended = write and bool(live.attr.locked)
        direct = stub or appended or self.uncached(flags, ctx)
        handle.direct = direct
        return FileInfo(fh=self.handles.add(handle), direct_io=direct, keep_cache=True)

    async def _open_past(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        if writes(flags) or flags & os.O_TRUNC:
            raise FUSEError(errno.EROFS)
        live = await self.snapshots.open(inode)
        try:
            size, direct = self.must(inode).size, self._direct_stub(live)
            handle = Handle(live, flags, ctx, direct=direct, past=inode, size=size)
            self._may_open(handle)
        except BaseException:
            self.files.close(live, write=False)
            raise
        return FileInfo(fh=self.handles.add(handle), direct_io=handle.direct, keep_cache=True)

    def _may_open(self, handle: Handle) -> None:
        if handle.live.absent and not handle.write and self.control is not None:
            self.control.may_open(handle.live.ino, handle.who)

    def _direct_stub(self, live: Live) -> bool:
        return bool(live.absent) and self.config.fs.migrated_open == "direct"

    async def _cut(self, live: Live, ctx: RequestContext) -> None:
        """O_TRUNC: the kernel sends no setattr for it, neither for the size nor the mode."""
        await self.files.truncate(live, 0)
        await self._drop_privileges(live, ctx)

    async def _drop_privileges(self, live: Live, ctx: RequestContext) -> None:
        """Changed bytes lose set-user-id, set-group-id and capabilities (Linux fs/inode.c,
        file_remove_privs): the kernel leaves it to us where it has no page cache.
        """
        ino, mode = live.ino, live.attr.mode
        if mode & _SET_ID and ctx.uid != 0:
            mode &= ~stat.S_ISUID
            if mode & stat.S_IXGRP or not in_group(ctx, live.attr.gid):
                mode &= ~stat.S_ISGID
        capable = self.xattr(ino, CAPABILITY) is not None
        if mode == live.attr.mode and not capable:
            return
        async with self.catalog.write():
            if capable:
                self.catalog.xattrs.remove(ino, CAPABILITY)
            await self.files.setattr(ino, live.attr._replace(mode=mode, ctime_ns=now()))

    @guarded
    async def read(self, fh: int, off: int, size: int) -> bytes:
        handle = self.handles.files[fh]
        if handle.past:
            return await self._read_past(handle, off, size)
        live = handle.live
        if not handle.noatime:
            handle.noatime = True
            self.files.accessed(live)
        data = self.files.read_now(live, off, size)
        if data is not None:
            return cast(bytes, data)
        if live.absent:
            await self._wait_for(handle, Range(off, min(off + size, live.attr.size)))
            # What just came in is in the page cache: no thread is needed for it.
            data = self.files.read_now(live, off, size)
            if data is not None:
                return cast(bytes, data)
        return await self.files.read(live, off, size, handle.who)

    async def _read_past(self, handle: Handle, off: int, size: int) -> bytes:
        """What the file was: if its bytes were changed since it was opened, those kept of then."""
        size = max(min(size, handle.size - off), 0)
        while True:
            live, gen = handle.live, handle.gen
            if live.gen == gen:
                if live.absent:
                    await self._wait_for(handle, Range(off, min(off + size, live.attr.size)))
                data = await self.files.read(live, off, size, handle.who)
                if live.gen == gen:
                    return data
            newer = await self.snapshots.open(handle.past)
            if handle.live is live and handle.gen == gen:
                handle.live, handle.gen, newer = newer, newer.gen, live
            self.files.close(newer, write=False)

    async def _wait_for(self, handle: Handle, wanted: Range) -> None:
        """Until the bytes are on disk; a thread of nfsd is not held by the robot."""
        live, who = handle.live, handle.who
        wait = self.deputies.wait if who.nfs else self.files.wait_for
        while missing := overlap(live.absent, wanted):
            with self.waits.waiting(nfs=who.nfs):
                await wait(live.ino, Range(missing[0].start, missing[-1].end), who)

    @guarded
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        handle = self.handles.files[fh]
        if handle.live.attr.locked:
            self.worm.writing(handle.live.attr, off)
        if handle.direct:
            await self.catalog.settled()
            await self._drop_privileges(handle.live, handle.ctx)
        return await self.files.write(handle.live, off, buf)

    @guarded
    async def fsync(self, fh: int, datasync: bool) -> None:
        await self.files.fsync(self.handles.files[fh].live)

    @guarded
    async def release(self, fh: int) -> None:
        handle = self.handles.files.pop(fh)
        self.files.close(handle.live, write=handle.write)
        attr = handle.live.attr
        if attr.locked and attr.locked & Lock.CLOSING and not handle.live.writers:
            await self.catalog.settled()
            await self.worm.closed(attr.ino, handle.ctx)
        if handle.live.attr.nlink == 0:
            self.lookups.look(handle.live.ino)


def in_group(ctx: RequestContext, gid: int) -> bool:
    """Whether the caller is a member of the group."""
    try:
        return ctx.gid == gid or gid in get_sup_groups(ctx.pid)
    except OSError:  # it is gone, or in another pid namespace
        return False
