"""The folder `.snapshots` of the mount: the whole tree as it was, in a folder for each minute.

    .snapshots/@GMT-2031.02.11-08.00.00/ct/0001.dcm

Every minute within reach can be named; listed are whole hours and days, as [snapshots] says.
Permissions are those of now, nothing can be written, and bytes on discs are recalled as ever.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator

from pyfuse3 import FUSEError

from .. import clock
from ..config import SnapshotsConfig
from ..engine.live import Live
from ..engine.past import Past
from ..errors import Conflict
from ..types import ROOT, Attr, DataVersion, InodeNo
from .snapnumbers import MINUTE_NS, PAST, SNAPSHOTS, name_of, number, split, time_of

HOUR_NS = 60 * MINUTE_NS
DAY_NS = 24 * HOUR_NS
_ONE = DataVersion(1)


class Snapshots:
    """What the handlers ask about numbers from PAST on.

    Attributes:
        name: what the folder is called in the mount's root; b"": there is none.
    """

    def __init__(self, past: Past, config: SnapshotsConfig) -> None:
        self._past, self._config = past, config
        self.name = config.name.encode()

    @property
    def listed(self) -> bool:
        """Whether a listing of the root names it."""
        return self._config.listed and self.name != b""

    def is_top(self, parent: int, name: bytes) -> bool:
        """Whether that is the name of the folder, unless the catalog has one like it."""
        return parent == ROOT and name == self.name != b""

    def times(self) -> Iterator[int]:
        """Those that are listed, the newest first; UTC ns."""
        now, since, before = clock.now_ns(), self._past.since(), 2**63
        points = [
            now - now % unit - back * unit
            for unit, count in ((HOUR_NS, self._config.hourly), (DAY_NS, self._config.daily))
            for back in range(count)
        ]
        for point in sorted(points, reverse=True):
            if since <= point < before:
                before = point
                yield point

    # Inodes

    def attr(self, inode: int) -> Attr | None:
        """What a number shows, or None; its own number is that number."""
        if inode < PAST or not self.name:
            return None
        if inode == SNAPSHOTS:
            return self._folder()
        ino, time_ns = split(inode)
        found = self._past.attr(ino, time_ns) if self._past.reaches(time_ns) else None
        return None if found is None else found._replace(ino=InodeNo(inode))

    def _folder(self) -> Attr:
        time_ns = next(self.times(), self._past.since())
        times = (time_ns,) * 4
        return Attr(SNAPSHOTS, stat.S_IFDIR | 0o555, 0, 0, 1, 0, 4096, 0, *times, None, None, _ONE,
                    _ONE, False, False, 0, 0)  # fmt: skip

    def above(self, inode: int) -> InodeNo | None:
        """The folder above a folder; None: it was not there then."""
        ino, time_ns = split(inode)
        if inode == SNAPSHOTS:
            return ROOT
        if ino == ROOT:
            return SNAPSHOTS
        parent = self._past.parent(ino, time_ns)
        return None if parent is None else number(parent, time_ns)

    # Names

    async def lookup(self, parent: int, name: bytes) -> Attr | None:
        """What a name in a folder is, or '.'; None: nothing."""
        if name == b".":
            return self.attr(parent)
        if parent == ROOT:
            return self.attr(SNAPSHOTS)
        if parent == SNAPSHOTS:
            time_ns = time_of(name)
            return None if time_ns is None else self._at(ROOT, time_ns)
        folder, time_ns = split(parent)
        found = await self._past.lookup(folder, name, time_ns)
        return None if found is None else self._at(found.ino, time_ns)

    def _at(self, ino: InodeNo, time_ns: int) -> Attr | None:
        inode = number(ino, time_ns)
        return None if inode is None else self.attr(inode)

    async def page(
        self, inode: int, after: int, limit: int
    ) -> tuple[list[tuple[int, bytes, Attr]], int | None]:
        """Names in a folder as (cookie, name, inode); where the next page begins, None: nowhere.

        Cookies grow and stay.
        """
        if inode == SNAPSHOTS:
            return self._times(after), None
        folder, time_ns = split(inode)
        page = await self._past.page(folder, time_ns, after, limit)
        return [
            (cookie, name, attr._replace(ino=numbered))
            for cookie, name, attr in page.names
            if (numbered := number(attr.ino, time_ns)) is not None
        ], page.after

    def _times(self, after: int) -> list[tuple[int, bytes, Attr]]:
        """The oldest first: the cookie of a time is its minute since 1970."""
        return [
            (time_ns // MINUTE_NS, name_of(time_ns), attr)
            for time_ns in sorted(self.times())
            if time_ns // MINUTE_NS > after and (attr := self._at(ROOT, time_ns)) is not None
        ]

    # Bytes

    async def open(self, inode: int) -> Live:
        """Begin to read. Raises FUSEError ESTALE, or EIO if the bytes of then are nowhere."""
        if self.attr(inode) is None:
            raise FUSEError(errno.ESTALE)
        try:
            return await self._past.open(*split(inode))
        except Conflict:
            raise FUSEError(errno.EIO) from None
