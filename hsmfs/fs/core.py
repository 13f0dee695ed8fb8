"""What all groups of handlers share: the rooms below, the tables in memory, and how an inode looks.

The handlers are mixins of `Operations`; this is their common base.
"""

from __future__ import annotations

import errno
import stat
from typing import Any

import pyfuse3
from pyfuse3 import EntryAttributes, FUSEError, RequestContext

from .. import clock
from ..config import Config
from ..engine.files import Files
from ..engine.past import Past
from ..engine.trust import Trust
from ..errors import Forbidden
from ..states import STUBS
from ..types import Attr, InodeNo
from .acl import Acl
from .deputies import Deputies
from .handles import Handles, write_only
from .lookups import Lookups
from .nfs import Nfs
from .ports import Control
from .requester import requester
from .snapnumbers import PAST
from .snapshots import Snapshots
from .waits import Waits
from .worm import Worm

BLOCK_SIZE = 64 * 1024
"""st_blksize: what programs that use stdio write at once, so that a request is worth its price."""
STUB_BLOCK_SIZE = 4096
"""And what they read at once of a file whose bytes are on discs: no more than was wanted, or a
buffered read of a header would ask for bytes behind the head, and so for a disc."""
_FOLDERS = 4096
_PAST_TIMEOUT = 1.0
"""Seconds: the kernel is not told of what ends in the past, nor of new permissions."""


class FolderRules:
    """What a new inode takes over from its folder."""

    __slots__ = ("acl", "gid", "setgid")

    def __init__(self, attr: Attr, acl: Acl | None) -> None:
        self.setgid = bool(attr.mode & stat.S_ISGID)
        self.gid = attr.gid
        self.acl = acl


class Core(pyfuse3.Operations):
    """State of the mount.

    Attributes:
        files, catalog, config, trust, control: the rooms below.
        worm: what handlers ask about records and held files.
        past, snapshots: the tree as it was, and as the mount shows it.
        handles: open files and folders.
        lookups: inodes the kernel knows.
        waits: requests that wait for a disc.
        nfs, deputies: the kernel's NFS server, and who waits in place of its threads.
        folder_rules: a cache of what new inodes inherit, dropped when a folder's attributes change.
    """

    supports_dot_lookup = True
    enable_writeback_cache = False
    enable_acl = True

    def __init__(self, files: Files, config: Config, trust: Trust, control: Control | None) -> None:
        super().__init__()
        self.files = files
        self.catalog = files.catalog
        self.config = config
        self.control = control
        self.trust = trust
        self.worm = Worm(trust, files)
        self.past = Past(files.catalog, files, config.trash.keep)
        self.snapshots = Snapshots(self.past, config.snapshots)
        self.handles = Handles()
        self.lookups = Lookups(files)
        self.waits = Waits()
        self.nfs = Nfs()
        self.deputies = Deputies(files, self.nfs, config.fs.nfs_wait)
        self.folder_rules: dict[int, FolderRules] = {}
        self._entry_timeout = config.fs.entry_timeout
        self._attr_timeout = config.fs.attr_timeout
        self.keep_ns = int(config.trash.keep * 1e9)

    def must(self, ino: int) -> Attr:
        """The inode. Raises FUSEError ESTALE: the kernel, or an NFS client, knows a dead one."""
        attr = self.files.attr(InodeNo(ino)) or self.snapshots.attr(ino)
        if attr is None:
            raise FUSEError(errno.ESTALE)
        return attr

    def not_past(self, parent: int, name: bytes) -> None:
        """A name is to be made or taken away. Raises FUSEError EROFS if it is of the past."""
        top = self.snapshots.is_top(parent, name) and not self.catalog.names.lookup(parent, name)
        if parent >= PAST or top:
            raise FUSEError(errno.EROFS)

    def entry(self, attr: Attr) -> EntryAttributes:
        """The inode as the kernel wants it."""
        entry = EntryAttributes()
        entry.st_ino = attr.ino
        entry.st_mode = attr.mode
        entry.st_nlink = attr.nlink
        entry.st_uid = attr.uid
        entry.st_gid = attr.gid
        if attr.rdev:
            entry.st_rdev = attr.rdev
        entry.st_size = attr.size
        stub = attr.state in STUBS
        entry.st_blksize = STUB_BLOCK_SIZE if stub else BLOCK_SIZE
        # To GNU tar --sparse a file without blocks is one hole, and it stores no byte of it.
        entry.st_blocks = max(attr.blocks, 1) if stub else attr.blocks
        entry.st_atime_ns = attr.atime_ns
        entry.st_mtime_ns = attr.mtime_ns
        entry.st_ctime_ns = attr.ctime_ns
        past = attr.ino >= PAST
        entry.entry_timeout = _PAST_TIMEOUT if past else self._entry_timeout
        entry.attr_timeout = _PAST_TIMEOUT if past else self._attr_timeout
        return entry

    def uncached(self, flags: int, ctx: RequestContext) -> bool:
        """Written past the kernel's page cache: what is opened for nothing but writing.

        Not by nfsd, whose writes come in pieces of a page, each of which would be a request
        (Linux fs/fuse/file.c, fuse_get_user_pages).
        """
        return write_only(flags) and not self.nfs.asks(ctx)

    def known(self, attr: Attr) -> EntryAttributes:
        """As `entry`, for an answer that counts as a lookup."""
        self.lookups.add(attr.ino)
        return self.entry(attr)

    def xattr(self, ino: int, name: bytes) -> bytes | None:
        """An extended attribute; that an inode has none at all is remembered."""
        if ino in self.lookups.bare:
            return None
        value, some = self.catalog.xattrs.look(ino, name)
        if not some and ino in self.lookups:
            self.lookups.bare.add(ino)
        return value

    async def refused(self, fault: Forbidden, args: tuple[Any, ...]) -> None:
        """A handler that got args, itself first, is about to answer EPERM: put it on record."""
        ctx = args[-1] if hasattr(args[-1], "uid") else self.handles.files[args[1]].ctx
        await self.trust.refused(fault, requester(ctx))

    def drop_name(self, attr: Attr, parent: int, name: bytes, now_ns: int) -> None:
        """Inside the transaction that took a name away: into the trash if it was the last."""
        self.files.touch_links(attr)
        if not self.keep_ns:
            return
        if attr.nlink == 0:
            self.catalog.trash.put(attr.ino, InodeNo(parent), name, now_ns, self.keep_ns)
        else:
            self.catalog.history.unlinked(attr.ino, (InodeNo(parent), name), now_ns)

    def unnamed(self, attr: Attr) -> None:
        """After that transaction: delete the inode when nobody uses it and the trash has it not."""
        if attr.nlink == 0:
            self.folder_rules.pop(attr.ino, None)
            if not self.keep_ns:
                self.lookups.doom(attr.ino)

    def rules(self, parent: int) -> FolderRules:
        """What a new inode in a folder inherits."""
        found = self.folder_rules.get(parent)
        if found is None:
            attr = self.must(parent)
            value = self.catalog.xattrs.get(parent, DEFAULT)
            found = FolderRules(attr, None if value is None else Acl.parse(value))
            if len(self.folder_rules) >= _FOLDERS:
                self.folder_rules.clear()
            self.folder_rules[parent] = found
        return found


ACCESS = b"system.posix_acl_access"
DEFAULT = b"system.posix_acl_default"
CAPABILITY = b"security.capability"


def now() -> int:
    """UTC nanoseconds for the times of inodes."""
    return clock.now_ns()
