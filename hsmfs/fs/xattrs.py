"""Handlers of extended attributes, those that are stored and those that are orders.

`user.hsm.state`, `.copies` and `.why` say where a file's bytes are, `.retention` how long they
stay; writing `user.hsm.recall`, `.release` or `.pin` asks the engine to move them, which who may
write the file can do, guests excepted. They are not listed, so that copying a file with its
attributes gives no orders. `user.DOSATTRIB` tells Samba which files are on disc (dosattrib.py).
Limits and errors: xattr(7).
"""

from __future__ import annotations

import errno
import json
import stat
from collections.abc import Sequence

from pyfuse3 import ENOATTR, FUSEError, RequestContext

from ..limits import XATTR_LIST_BYTES, XATTR_NAME_BYTES, XATTR_VALUE_BYTES
from ..states import STUBS, FileState
from ..types import Attr, InodeNo
from . import dosattrib
from .acl import Acl
from .core import ACCESS, DEFAULT, Core, now
from .files import in_group
from .guard import settled, stable
from .ports import Control
from .requester import requester
from .snapnumbers import PAST, real

PREFIX = b"user.hsm."
_SPACES = (b"user.", b"trusted.", b"security.")
_ANSWERS = (b"state", b"copies", b"why", b"retention")
_ORDERS = (b"recall", b"release", b"pin")
_OFF = (b"0", b"off", b"no", b"false")


class Xattrs(Core):
    """getxattr, setxattr, listxattr, removexattr."""

    @settled
    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        if name.startswith(PREFIX):
            return await self._answer(self.must(inode), name)
        _check_name(name)
        if name == dosattrib.NAME:
            value, state = self.catalog.xattrs.with_state(real(inode), name)
            if inode >= PAST:
                state = self.must(inode).state
            value = dosattrib.shown(value, offline=state in STUBS)
        else:
            value = self.xattr(real(inode), name)
        if value is None:
            raise FUSEError(ENOATTR)
        return value

    @settled
    async def listxattr(self, inode: int, ctx: RequestContext) -> Sequence[bytes]:
        if inode in self.lookups.bare:
            return []
        names = self.catalog.xattrs.names(real(inode))
        return [name for name in names if ctx.uid == 0 or not name.startswith(b"trusted.")]

    @stable
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        _check_name(name)
        if len(value) > XATTR_VALUE_BYTES:
            raise FUSEError(errno.E2BIG)
        if name.startswith(PREFIX):
            await self._order(self.must(inode), name, value, ctx)
            return
        if name == dosattrib.NAME:
            value = dosattrib.stored(value)
        async with self.catalog.write():
            attr = self.must(inode)
            if attr.locked:
                self.worm.xattr(attr, name, value)
            if name == ACCESS:
                await self._set_access(attr, Acl.parse(value), ctx)
                return
            if name == DEFAULT:
                acl = Acl.parse(value)
                if acl is None:
                    await self._remove(attr, name, must_exist=False)
                    return
                if not attr.is_dir:
                    raise FUSEError(errno.EACCES)
            self._check_room(inode, name)
            if name == dosattrib.NAME:
                attr = self.worm.read_only_mark(attr, value, ctx)
            await self._store(attr, name, value)

    @stable
    async def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        _check_name(name)
        async with self.catalog.write():
            attr = self.must(inode)
            if attr.locked:
                self.worm.xattr(attr, name, None)
            await self._remove(attr, name, must_exist=name not in (ACCESS, DEFAULT))

    # Inside a transaction

    async def _store(self, attr: Attr, name: bytes, value: bytes) -> None:
        self.lookups.bare.discard(attr.ino)
        self.folder_rules.pop(attr.ino, None)
        self.catalog.xattrs.set(attr.ino, name, value)
        await self.files.setattr(attr.ino, attr._replace(ctime_ns=now()))

    async def _remove(self, attr: Attr, name: bytes, *, must_exist: bool) -> None:
        self.folder_rules.pop(attr.ino, None)
        if must_exist or self.catalog.xattrs.get(attr.ino, name) is not None:
            self.catalog.xattrs.remove(attr.ino, name)
        await self.files.setattr(attr.ino, attr._replace(ctime_ns=now()))

    async def _set_access(self, attr: Attr, acl: Acl | None, ctx: RequestContext) -> None:
        """The mode follows the ACL; one that says no more than a mode is not kept."""
        mode = attr.mode
        if acl is not None:
            mode = mode & ~0o777 | acl.mode
            if ctx.uid != 0 and mode & stat.S_ISGID and not in_group(ctx, attr.gid):
                mode &= ~stat.S_ISGID
        attr = self.worm.acl(attr, mode, ctx)
        if acl is None or acl.minimal:
            await self._remove(attr, ACCESS, must_exist=False)
        else:
            await self._store(attr, ACCESS, acl.value())

    def _check_room(self, ino: int, name: bytes) -> None:
        names = self.catalog.xattrs.names(ino)
        if name not in names and sum(len(n) + 1 for n in (*names, name)) > XATTR_LIST_BYTES:
            raise FUSEError(errno.ENOSPC)

    # Orders

    def _engine(self) -> Control:
        if self.control is None:
            raise FUSEError(errno.EOPNOTSUPP)
        return self.control

    async def _answer(self, attr: Attr, name: bytes) -> bytes:
        """What is asked; ENODATA for what is no question or no file. The past has but a state."""
        what = name[len(PREFIX) :]
        past = attr.ino >= PAST and what != b"state"
        if what not in _ANSWERS or attr.state is None or past:
            raise FUSEError(ENOATTR)
        if what == b"state":
            return FileState(attr.state).name.lower().encode()
        if what == b"retention":
            return _json(self.trust.described(attr.ino))
        if what == b"copies":
            return _json([dict(copy) for copy in await self._engine().copies(attr.ino)])
        return _json(dict(await self._engine().why(attr.ino)))

    async def _order(self, attr: Attr, name: bytes, value: bytes, ctx: RequestContext) -> None:
        what, ino = name[len(PREFIX) :], InodeNo(attr.ino)
        if what not in _ORDERS:
            raise FUSEError(errno.EPERM if what in _ANSWERS else errno.EOPNOTSUPP)
        if ctx.uid in self.config.fs.guests:
            raise FUSEError(errno.EPERM)
        if attr.state is None:
            raise FUSEError(errno.EINVAL)
        engine, who = self._engine(), requester(ctx)
        if what == b"recall":
            await engine.recall(ino, who)
        elif what == b"release":
            await engine.release(ino, who)
        else:
            await engine.pin(ino, value.strip().lower() not in _OFF, who)


def _check_name(name: bytes) -> None:
    if len(name) > XATTR_NAME_BYTES:
        raise FUSEError(errno.ERANGE)
    if name not in (ACCESS, DEFAULT) and not name.startswith(_SPACES):
        raise FUSEError(errno.EOPNOTSUPP)
    if name in _SPACES:
        raise FUSEError(errno.EINVAL)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
