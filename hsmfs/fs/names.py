"""Handlers that make, find, move and take away names.

What POSIX says about names is the catalog's; here are what new inodes inherit, the trash, and
the kernel's own lookups of '.' and '..' for NFS (Documentation/filesystems/nfs/exporting.rst).
"""

from __future__ import annotations

import errno
import os
import stat

import pyfuse3
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, RequestContext

from ..errors import PosixError
from ..limits import NAME_BYTES, SYMLINK_BYTES
from ..types import Attr, InodeNo, PoolId
from .acl import Acl
from .core import ACCESS, DEFAULT, Core, now
from .guard import settled, stable
from .handles import Handle, writes
from .snapnumbers import PAST, real


class Names(Core):
    """lookup, create, mknod, mkdir, symlink, link, unlink, rmdir, rename, readlink, forget."""

    @settled
    async def lookup(self, parent: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        if len(name) > NAME_BYTES:
            raise FUSEError(errno.ENAMETOOLONG)
        attr = self.catalog.names.lookup(parent, name)
        if attr is not None:
            return self.known(self.files.overlay(attr))
        if parent >= PAST or self.snapshots.is_top(parent, name):
            return self.known(await self._in_the_past(parent, name))
        if name == b".":
            return self.known(self._reachable(parent))
        if name == b"..":
            above = self.catalog.names.parent(self._reachable(parent).ino)
            if above is None:
                raise FUSEError(errno.ENOENT)
            return self.known(self.must(above))
        raise FUSEError(errno.ENOENT)

    async def _in_the_past(self, parent: int, name: bytes) -> Attr:
        if name == b"..":
            above = self.snapshots.above(parent)
            found = None if above is None else self.must(above)
        else:
            found = await self.snapshots.lookup(parent, name)
        if found is None:
            raise FUSEError(errno.ESTALE if name == b"." else errno.ENOENT)
        return found

    def _reachable(self, ino: int) -> Attr:
        """An inode by its number alone. ESTALE if it has no name and the kernel forgot it."""
        attr = self.must(ino)
        if attr.nlink == 0 and ino not in self.lookups:
            raise FUSEError(errno.ESTALE)
        return attr

    def forget(self, inode_list: list[tuple[int, int]]) -> None:  # type: ignore[override]
        """Not a coroutine: there is nothing to wait for, and no answer is sent."""
        self.lookups.forget(inode_list)

    @settled
    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        target = self.catalog.inodes.target(real(inode))
        if target is None:
            raise FUSEError(errno.EINVAL)
        return target

    # New inodes

    @stable
    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        mode = stat.S_IFREG | stat.S_IMODE(mode)
        try:
            attr = await self._make(parent, name, mode, ctx, pool=self.files.pools.for_new().id)
        except PosixError as fault:
            # The kernel did not know the name; the engine, or another client, was faster.
            if fault.number != errno.EEXIST or flags & os.O_EXCL:
                raise
            found = self.catalog.names.lookup(parent, name)
            if found is None or not found.is_file:
                raise
            info = await self.open(found.ino, flags, ctx)
            return info, self.known(self.must(found.ino))
        self.files.born(attr)
        live = self.files.open(attr.ino, write=writes(flags))
        direct = self.uncached(flags, ctx)
        number = self.handles.add(Handle(live, flags, ctx, direct=direct))
        return FileInfo(fh=number, direct_io=direct, keep_cache=True), self.known(attr)

    @stable
    async def mknod(
        self, parent: int, name: bytes, mode: int, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        pool = self.files.pools.for_new().id if stat.S_ISREG(mode) else None
        return self.known(await self._make(parent, name, mode, ctx, rdev=rdev, pool=pool))

    @stable
    async def mkdir(
        self, parent: int, name: bytes, mode: int, ctx: RequestContext
    ) -> EntryAttributes:
        mode = stat.S_IFDIR | stat.S_IMODE(mode)
        return self.known(await self._make(parent, name, mode, ctx))

    @stable
    async def symlink(
        self, parent: int, name: bytes, target: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        if len(target) > SYMLINK_BYTES:
            raise FUSEError(errno.ENAMETOOLONG)
        mode = stat.S_IFLNK | 0o777
        return self.known(await self._make(parent, name, mode, ctx, target=target))

    async def _make(
        self,
        parent: int,
        name: bytes,
        mode: int,
        ctx: RequestContext,
        *,
        rdev: int = 0,
        target: bytes | None = None,
        pool: PoolId | None = None,
    ) -> Attr:
        """A new inode with what it inherits: group, set-group-id, ACLs or the umask."""
        if len(name) > NAME_BYTES:
            raise FUSEError(errno.ENAMETOOLONG)
        rules = self.rules(parent)
        gid = rules.gid if rules.setgid else ctx.gid
        if rules.setgid and stat.S_ISDIR(mode):
            mode |= stat.S_ISGID
        acl: Acl | None = None
        if target is None:
            if rules.acl is not None:
                acl, mode = rules.acl.inherited(mode)
            else:
                mode &= ~ctx.umask
        async with self.catalog.write():
            attr = self.catalog.names.create(
                InodeNo(parent), name, mode, ctx.uid, gid, now(),
                rdev=rdev, target=target, pool=pool,
            )  # fmt: skip
            self.worm.named(attr, parent, "create")
            if rules.acl is not None and target is None:
                self._inherit(attr, rules.acl, acl)
            else:
                self.lookups.bare.add(attr.ino)
        return attr

    def _inherit(self, attr: Attr, default: Acl, access: Acl | None) -> None:
        if attr.is_dir:
            self.catalog.xattrs.set(attr.ino, DEFAULT, default.value())
        if access is not None and not access.minimal:
            self.catalog.xattrs.set(attr.ino, ACCESS, access.value())

    # Names of inodes that exist

    @stable
    async def link(
        self, inode: int, new_parent: int, new_name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        folder, time_ns = InodeNo(new_parent), now()
        self.not_past(folder, new_name)
        async with self.catalog.write():
            attr = self.catalog.names.link(InodeNo(inode), folder, new_name, time_ns)
            self.worm.named(attr, new_parent, "link")
            self.files.touch_links(attr)
            self.catalog.history.linked(attr.ino, (folder, new_name), time_ns)
        return self.known(self.files.overlay(attr))

    @stable
    async def unlink(self, parent: int, name: bytes, ctx: RequestContext) -> None:
        time_ns = now()
        async with self.catalog.write():
            attr = self.catalog.names.unlink(InodeNo(parent), name, time_ns)
            self.worm.unnamed(attr, parent, name, ctx, "unlink")
            self.drop_name(attr, parent, name, time_ns)
        self.unnamed(attr)

    @stable
    async def rmdir(self, parent: int, name: bytes, ctx: RequestContext) -> None:
        time_ns = now()
        self.not_past(parent, name)
        async with self.catalog.write():
            attr = self.catalog.names.rmdir(InodeNo(parent), name, time_ns)
            self.worm.folder_removed(attr.ino, "rmdir")
            self.drop_name(attr, parent, name, time_ns)
        self.unnamed(attr)

    @stable
    async def rename(
        self,
        parent_old: int,
        name_old: bytes,
        parent_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        source, target = InodeNo(parent_old), InodeNo(parent_new)
        time_ns, names = now(), self.catalog.names
        if len(name_new) > NAME_BYTES:
            raise FUSEError(errno.ENAMETOOLONG)
        self.not_past(source, name_old)
        self.not_past(target, name_new)
        if flags == pyfuse3.RENAME_EXCHANGE:
            async with self.catalog.write():
                one, two = names.exchange(source, name_old, target, name_new, time_ns)
                self.worm.moved(one, source, target)
                self.worm.moved(two, target, source)
                self.files.touch_links(one)
                self.files.touch_links(two)
                here, there = (source, name_old), (target, name_new)
                self.catalog.history.moved(one.ino, here, there, time_ns)
                self.catalog.history.moved(two.ino, there, here, time_ns)
            return
        if flags not in (0, pyfuse3.RENAME_NOREPLACE):
            raise FUSEError(errno.EINVAL)
        async with self.catalog.write():
            before = self.catalog.inodes.change_seq
            moved, replaced = names.rename(
                source, name_old, target, name_new, time_ns, no_replace=bool(flags)
            )
            if self.catalog.inodes.change_seq == before:
                return  # two names of one file: POSIX wants both to stay
            self.worm.moved(moved, source, target)
            self.files.touch_links(moved)
            self.catalog.history.moved(moved.ino, (source, name_old), (target, name_new), time_ns)
            if replaced is not None:
                self.worm.unnamed(replaced, target, name_new, ctx, "rename over")
                self.drop_name(replaced, target, name_new, time_ns)
        if replaced is not None:
            self.unnamed(replaced)
