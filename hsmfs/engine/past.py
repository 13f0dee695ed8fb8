"""The namespace as it was at a time, to be read: names, attributes, and the bytes behind them.

It is made of what a rollback relies on (ADR 13): births, the trash, moves of names and versions
that ended. So it costs nothing until somebody looks, and reaches as far back as the trash does.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from .. import clock
from ..catalog.catalog import Catalog
from ..catalog.past import MOVED, Left
from ..errors import Conflict
from ..types import ROOT, Attr, InodeNo
from .batches import at_leisure
from .files import Files
from .live import Live
from .passing import PassingStubs
from .stubs import version_then

_FOLDERS = 32
"""Folders of which it is remembered what changed in them since some time."""


class Page(NamedTuple):
    """Names of a folder with their cookies; after is where the next page begins, None: nowhere."""

    names: list[tuple[int, bytes, Attr]]
    after: int | None


class _Changes(NamedTuple):
    """What changed in a folder since a time, true while the folder's own times are `seen`."""

    seen: tuple[int, int]
    names: dict[bytes, Left | None]
    left: list[Left]


class Past:
    """Reads only. Whatever it gives was true at the time asked for, and stays so.

    Attributes:
        stubs: of older versions that are being read; its `run` is a task of the mount's.
    """

    def __init__(self, catalog: Catalog, files: Files, keep_s: float) -> None:
        self._catalog, self._files, self._keep_ns = catalog, files, int(keep_s * 1e9)
        self._known: dict[tuple[InodeNo, int], _Changes] = {}
        self.stubs = PassingStubs(catalog, files)

    def since(self) -> int:
        """UTC ns from which on everything is known."""
        root = self._catalog.inodes.get_raw(ROOT)
        assert root is not None
        begins = max(root.btime_ns, self._catalog.history.begins)
        return max(self._catalog.trash.reach(clock.now_ns(), self._keep_ns), begins)

    def reaches(self, time_ns: int) -> bool:
        """Whether it is known how things were then."""
        return self.since() <= time_ns <= clock.now_ns()

    # Inodes

    def attr(self, ino: InodeNo, time_ns: int) -> Attr | None:
        """The inode as it was; None if it was not there. Owner and permissions are those of now.

        A file whose bytes of then are nowhere is empty and has no state; `open` says why.
        """
        now = self._files.attr(ino)
        if now is None or now.btime_ns > time_ns:
            return None
        if now.nlink == 0:
            gone = self._catalog.trash.get(ino)
            if gone is None or gone.deleted_ns <= time_ns:
                return None
        was = now._replace(
            nlink=1, mtime_ns=min(now.mtime_ns, time_ns), ctime_ns=min(now.ctime_ns, time_ns)
        )
        return self._file(now, was, time_ns) if now.is_file else was

    def _file(self, now: Attr, was: Attr, time_ns: int) -> Attr:
        try:
            then = version_then(self._files, now, time_ns)
        except Conflict:
            return was._replace(size=0, blocks=0, state=None)
        if then is None:
            return was._replace(mtime_ns=now.mtime_ns)
        was = was._replace(size=then.size, mtime_ns=then.mtime_ns)
        if then.version == now.version:
            return was
        if (kept := self._catalog.kept.holder(then.ino, then.version)) is not None:
            return was._replace(state=kept.state, blocks=kept.blocks, version=then.version)
        state, blocks = self.stubs.residence(then)
        return was._replace(state=state, blocks=blocks, version=then.version)

    def parent(self, ino: InodeNo, time_ns: int) -> InodeNo | None:
        """The folder that a folder lay in; the root's is itself."""
        return self._catalog.history.parent(ino, time_ns) or self._catalog.names.parent(ino)

    # Names

    async def lookup(self, folder: InodeNo, name: bytes, time_ns: int) -> Attr | None:
        """What a name in a folder was; None: nothing."""
        names = (await self._changes(folder, time_ns)).names
        if name in names:
            left = names[name]
            return None if left is None else self.attr(left.ino, time_ns)
        now = self._catalog.names.lookup(folder, name)
        return None if now is None else self.attr(now.ino, time_ns)

    async def page(self, folder: InodeNo, time_ns: int, after: int, limit: int) -> Page:
        """Names with cookies greater than after, as many as limit at most."""
        changes, following = await self._changes(folder, time_ns), None
        if after < MOVED:
            rows = self._catalog.names.entries(folder, after, limit)
            borne = [Left(at, name, now.ino) for at, name, now in rows if name not in changes.names]
            following = rows[-1][0] if len(rows) == limit else MOVED
        else:
            begin = bisect_right(changes.left, after, key=lambda left: left.cookie)
            borne = changes.left[begin : begin + limit]
            if len(borne) == limit:
                following = borne[-1].cookie
        attrs = await at_leisure(self._catalog, borne, lambda one: self.attr(one.ino, time_ns))
        pairs = zip(borne, attrs, strict=True)
        return Page([(at, name, was) for (at, name, _), was in pairs if was is not None], following)

    async def _changes(self, folder: InodeNo, time_ns: int) -> _Changes:
        """What is remembered is true until the folder is changed again."""
        await self._catalog.settled()
        attr = self._catalog.inodes.get_raw(folder)
        seen = (attr.mtime_ns, attr.ctime_ns) if attr is not None else (0, 0)
        found = self._known.get((folder, time_ns))
        if found is None or found.seen != seen:
            names = await self._catalog.read(lambda r: r.history.changes(folder, time_ns))
            left = sorted(left for left in names.values() if left is not None)
            if len(self._known) >= _FOLDERS:
                self._known.clear()
            found = self._known[folder, time_ns] = _Changes(seen, names, left)
            await self._catalog.settled()
        return found

    # Bytes

    async def open(self, ino: InodeNo, time_ns: int) -> Live:
        """Begin to read what a file was, as `Files.open`: it may be longer now. A stub for bytes
        that are on discs only.

        What is read of it is right as long as its `gen` stays. Raises PosixError ENOENT,
        Unkept, or Conflict if no disc that can be read has the bytes.
        """
        await self._catalog.settled()
        now = self._files.attr(ino)
        then = version_then(self._files, now, time_ns) if now is not None else None
        if now is None or then is None or then.version == now.version:
            return self._files.open(ino, write=False)
        if (kept := self._catalog.kept.holder(ino, then.version)) is not None:
            return self._files.open(kept.ino, write=False)
        return await self.stubs.open(now, then)
