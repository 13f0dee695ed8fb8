"""Handlers of folders: opendir, readdir, releasedir, fsyncdir.

A position is the catalog's cookie of the last entry given, which only grows, so a listing is
linear, misses nothing and repeats nothing while names come and go. Entries are never kept between
requests: the kernel takes each for a lookup, and one of a name removed meanwhile would be a lie.
"""

from __future__ import annotations

import errno

import trio
from pyfuse3 import FUSEError, ReaddirToken, RequestContext, readdir_reply

from ..limits import READDIR_BATCH
from ..types import ROOT, InodeNo
from .core import Core, now
from .guard import guarded, settled
from .handles import Folder
from .snapnumbers import PAST, SNAPSHOTS

DOT, DOT_DOT, TOP = 1, 2, 3
"""Cookies of '.', '..' and the folder of snapshots; the catalog's begin behind them."""
_SPARE = 4
_DAY_NS = 86_400 * 10**9


class Directories(Core):
    """opendir, readdir, releasedir, fsyncdir."""

    @guarded
    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        return self.handles.add_folder(InodeNo(inode))

    @settled
    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        folder = self.handles.folders[fh]
        past = folder.ino >= PAST
        if start_id < DOT_DOT:
            if not past:
                await self._accessed(folder.ino)
            above = (self.snapshots.above if past else self.catalog.names.parent)(folder.ino)
            if not self._dots(folder.ino, above or folder.ino, start_id, token):
                return
        if past:
            await self._past_entries(folder.ino, max(start_id, DOT_DOT), token)
        elif self._top(folder.ino, start_id, token):
            self._entries(folder, max(start_id, TOP), token)

    def _dots(self, ino: InodeNo, above: InodeNo, after: int, token: ReaddirToken) -> bool:
        """'.' and '..', which do not count as lookups; False if the answer is full."""
        for cookie, name, target in ((DOT, b".", ino), (DOT_DOT, b"..", above)):
            entry = self.entry(self.must(target))
            if cookie > after and not readdir_reply(token, name, entry, cookie):
                return False
        return True

    def _top(self, ino: InodeNo, after: int, token: ReaddirToken) -> bool:
        """The folder of snapshots in the root, if it is to be seen; False if the answer is full."""
        snapshots = self.snapshots
        if ino != ROOT or after >= TOP or not snapshots.listed:
            return True
        if self.catalog.names.lookup(ROOT, snapshots.name) is not None:
            return True
        full = not readdir_reply(token, snapshots.name, self.entry(self.must(SNAPSHOTS)), TOP)
        if not full:
            self.lookups.add(SNAPSHOTS)
        return not full

    async def _past_entries(self, ino: InodeNo, after: int | None, token: ReaddirToken) -> None:
        """As many entries of the past as fit; it does not change, so there may be pauses."""
        while after is not None:
            page, after = await self.snapshots.page(ino, after, READDIR_BATCH)
            for cookie, name, attr in page:
                if not readdir_reply(token, name, self.entry(attr), cookie):
                    return
                self.lookups.add(attr.ino)
            await trio.lowlevel.checkpoint()

    def _entries(self, folder: Folder, after: int, token: ReaddirToken) -> None:
        """As many entries as fit; without a pause, so that all are of one moment."""
        entries, overlay, add = self.catalog.names.entries, self.files.overlay, self.lookups.add
        given = 0
        while True:
            limit = min(folder.page + _SPARE, READDIR_BATCH)
            page = entries(folder.ino, after, limit)
            for cookie, name, attr in page:
                if not readdir_reply(token, name, self.entry(overlay(attr)), cookie):
                    folder.page = max(given, 1)
                    return
                add(attr.ino)
                after = cookie
                given += 1
            if len(page) < limit:
                return

    async def _accessed(self, ino: InodeNo) -> None:
        """The folder's atime, as relatime has it: one write after a change, or a day."""
        attr, time_ns = self.files.attr(ino), now()
        if attr is None:
            raise FUSEError(errno.ESTALE)
        newest = max(attr.mtime_ns, attr.ctime_ns)
        if attr.atime_ns <= newest or attr.atime_ns < time_ns - _DAY_NS:
            async with self.catalog.write():
                await self.files.setattr(ino, self.must(ino)._replace(atime_ns=time_ns))

    @guarded
    async def releasedir(self, fh: int) -> None:
        del self.handles.folders[fh]

    @guarded
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        await self.catalog.sync()
