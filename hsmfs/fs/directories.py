"""Handlers of folders: opendir, readdir, releasedir, fsyncdir.

A position is the catalog's cookie of the last entry given, which only grows, so a listing is
linear, misses nothing and repeats nothing while names come and go. Entries are never kept between
requests: the kernel takes each for a lookup, and one of a name removed meanwhile would be a lie.
"""

from __future__ import annotations

import errno

from pyfuse3 import FUSEError, ReaddirToken, RequestContext, readdir_reply

from ..limits import READDIR_BATCH
from ..types import InodeNo
from .core import Core, now
from .guard import guarded, settled
from .handles import Folder

DOT, DOT_DOT = 1, 2
"""Cookies of '.' and '..'; the catalog's begin behind them."""
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
        if start_id < DOT_DOT:
            await self._accessed(folder.ino)
            if not self._dots(folder.ino, start_id, token):
                return
        self._entries(folder, max(start_id, DOT_DOT), token)

    def _dots(self, ino: InodeNo, after: int, token: ReaddirToken) -> bool:
        """'.' and '..', which do not count as lookups; False if the answer is full."""
        above = self.catalog.names.parent(ino) or ino
        for cookie, name, target in ((DOT, b".", ino), (DOT_DOT, b"..", above)):
            entry = self.entry(self.must(target))
            if cookie > after and not readdir_reply(token, name, entry, cookie):
                return False
        return True

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
