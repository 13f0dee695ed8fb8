"""The trash as people use it: look, bring back, empty.

An inode in the trash keeps everything but its name (bytes, xattrs, times, owner, copies), so that
bringing it back is one row. Relies on `Files` for purging and on `Files.changed` to tell the mount.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from .. import clock, crash
from ..catalog.catalog import Catalog
from ..catalog.trash import Trashed
from ..errors import Conflict, NotFound, PosixError
from ..limits import BATCH_ROWS
from ..logs import printable
from ..types import ROOT, Attr, InodeNo
from .batches import at_leisure
from .events import Events
from .files import Files

_DEPTH = 4096
"""Removed folders above one another that a restore makes anew at most."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something in the trash.

    Attributes:
        path: where it was, without a leading slash; None if its folder is gone for good.
    """

    attr: Attr
    path: bytes | None
    deleted_ns: int
    purge_ns: int


class TrashCan:
    """List, restore and purge; wired by the engine."""

    def __init__(self, catalog: Catalog, files: Files, events: Events) -> None:
        self._catalog, self._files, self._events = catalog, files, events

    async def entries(self, after: int = 0, limit: int = 1000) -> list[Entry]:
        """What is kept, in the order of inode numbers greater than after."""
        await self._catalog.settled()
        kept = self._catalog.trash.kept(after, limit)
        return await at_leisure(self._catalog, kept, self._entry)

    async def below(self, path: bytes, since_ns: int) -> list[Entry]:
        """What was at a path or below it, without a leading slash, and was deleted since a time;
        the newest first.
        """
        found, after = list[Entry](), 0
        while page := await self.entries(after, BATCH_ROWS):
            after = page[-1].attr.ino
            found += [
                entry for entry in page
                if entry.deleted_ns > since_ns and entry.path is not None
                and (not path or entry.path == path or entry.path.startswith(path + b"/"))
            ]  # fmt: skip
        return sorted(found, key=lambda entry: entry.deleted_ns, reverse=True)

    def get(self, ino: InodeNo) -> Entry:
        """One of it. Raises NotFound."""
        return self._entry(self._must(ino))

    def _entry(self, t: Trashed) -> Entry:
        return Entry(self._files.overlay(t.attr), self._path(t), t.deleted_ns, t.purge_ns)

    async def restore(
        self, ino: InodeNo, to: bytes | None = None, *, recursive: bool = False
    ) -> bytes:
        """Bring an inode back to its old place or to the path `to`; return its path.

        Removed folders above the old place come back too. With recursive a folder brings along
        what is in the trash from it. Raises NotFound; Conflict if the name is taken, the folder of
        `to` is not there, or the old folder is gone for good. Durable when this returns.
        """
        touched: list[InodeNo] = []
        async with self._catalog.write():
            trashed = self._must(ino)
            if to is None:
                parent, name = self._parent(trashed, touched), trashed.name
            else:
                parent, name = self._place(to)
            self._revive(ino, parent, name, touched)
        crash.point("trash.restore.committed")
        if recursive:
            await self._restore_below(ino, touched)
        await self._catalog.sync()
        for changed in dict.fromkeys(touched):
            self._files.changed(changed)
        return (self._catalog.names.paths(ino, 1) or [b""])[0]

    async def purge(self, ino: InodeNo) -> None:
        """Delete one of it for good now. Raises NotFound, or Conflict while it is open."""
        self._must(ino)
        await self._files.purge(ino)
        crash.point("trash.purge.done")
        self._events.emit("trash_purged", count=1)

    async def purge_all(self) -> tuple[int, int]:
        """Delete all of it for good now; how many, and how many stay because they are open."""
        done = kept = after = 0
        while batch := self._catalog.trash.kept(after, 100):
            for trashed in batch:
                after = trashed.attr.ino
                try:
                    await self._files.purge(trashed.attr.ino)
                    done += 1
                except Conflict:
                    kept += self._catalog.trash.get(trashed.attr.ino) is not None
        if done:
            self._events.emit("trash_purged", count=done)
        return done, kept

    # Parts

    def _must(self, ino: InodeNo) -> Trashed:
        found = self._catalog.trash.get(ino)
        if found is None:
            raise NotFound(f"inode {ino} is not in the trash", next_step="see 'hsmctl trash ls'")
        return found

    def _path(self, trashed: Trashed) -> bytes | None:
        names = [trashed.name]
        parent = trashed.parent
        for _ in range(_DEPTH):
            paths = self._catalog.names.paths(parent, 1)
            if paths:
                return b"/".join([paths[0], *names] if paths[0] else names)
            above = self._catalog.trash.get(parent)
            if above is None:
                return None
            names.insert(0, above.name)
            parent = above.parent
        return None

    def _parent(self, trashed: Trashed, touched: list[InodeNo]) -> InodeNo:
        """The folder it was in, brought back with those above it if they were removed."""
        missing: list[Trashed] = []
        parent = trashed.parent
        while not self._catalog.names.paths(parent, 1):
            above = self._catalog.trash.get(parent)
            if above is None or len(missing) > _DEPTH:
                raise Conflict(
                    f"the folder of '{printable(trashed.name)}' is gone for good",
                    next_step="give the path to restore it to",
                )
            missing.append(above)
            parent = above.parent
        for folder in reversed(missing):
            self._revive(folder.attr.ino, folder.parent, folder.name, touched)
        return trashed.parent

    def _place(self, to: bytes) -> tuple[InodeNo, bytes]:
        above, _, name = to.rstrip(b"/").rpartition(b"/")
        folder = self._catalog.names.resolve(above)
        if folder is None or not folder.is_dir or not name:
            raise Conflict(
                f"'{printable(above) or '/'}' is not a folder of the filesystem",
                next_step="make it first, or give another path",
            )
        at = self._catalog.names.lookup(folder.ino, name)
        if at is not None and at.is_dir:
            raise Conflict(f"'{printable(to)}' exists", next_step="give a path that is free")
        return folder.ino, name

    def _revive(
        self, ino: InodeNo, parent: InodeNo, name: bytes, touched: list[InodeNo]
    ) -> None:
        now = clock.now_ns()
        try:
            attr = self._catalog.names.revive(ino, parent, name, now)
        except PosixError as fault:
            if fault.number != errno.EEXIST:
                raise
            above = self._catalog.names.paths(parent, 1) if parent != ROOT else [b""]
            raise Conflict(
                f"'{printable(b'/'.join([*above, name]))}' exists",
                next_step="rename it, or give another path to restore to",
            ) from fault
        self._catalog.trash.restored(ino, parent, name, now)
        self._files.touch_links(attr)
        touched += [ino, parent]

    async def _restore_below(self, folder: InodeNo, touched: list[InodeNo]) -> None:
        """What was in the folder, newest first; an older one of the same name stays."""
        todo = [folder]
        while todo:
            above = todo.pop()
            for trashed in self._catalog.trash.below(above):
                if self._catalog.names.lookup(above, trashed.name) is not None:
                    continue
                async with self._catalog.write():
                    self._revive(trashed.attr.ino, above, trashed.name, touched)
                if trashed.attr.is_dir:
                    todo.append(trashed.attr.ino)
