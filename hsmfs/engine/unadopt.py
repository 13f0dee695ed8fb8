"""Gives an adopted tree back to its old paths, until files of it were migrated.

What is given back is the file as it is now: changed bytes, modes, owners, times and attributes go
along, and a file renamed meanwhile returns to the path that it had in the tree. It is refused as a
whole if any file has or is getting a copy on a disc. Files made since stay in the namespace, in
their folders; what was deleted since stays deleted or in the trash.

The order is that of adopting, backwards: the pool file is dressed, the inode's row and names go and
the path's row says `Step.INTENT` again, that is made durable, then the names in the tree are made
and the pool's is removed. A crash between leaves a row that says where to look.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from .. import clock, crash, logs
from ..catalog.adoptions import Adopted, Adoption, AdoptionState, Step
from ..catalog.catalog import Catalog
from ..catalog.retention import Retentions
from ..errors import Conflict
from ..logs import printable
from ..pool import adopt as tree
from ..pool import examine
from ..pool.store import Pool
from ..types import Attr, InodeNo
from .adopting import AdoptReport, Progress, in_slices
from .files import Files

BATCH = 500
SLICE = 50
"""Paths looked up in one go of the event loop."""
log = logs.get(__name__)


@dataclass(frozen=True, slots=True)
class _Back:
    """One inode with the paths it had in the tree."""

    attr: Attr
    paths: list[bytes]
    src_ino: int
    xattrs: dict[bytes, bytes]
    target: bytes | None


class Undoing:
    """One run of giving a tree back; can be run again after a crash or a failure."""

    def __init__(self, catalog: Catalog, pool: Pool, files: Files, adoption: Adoption) -> None:
        self._catalog, self._pool, self._files = catalog, pool, files
        self._adoption, self._retentions = adoption, Retentions(catalog.db)
        self._failed: set[bytes] = set()
        self.report = AdoptReport(adoption.source, adoption.target)

    async def run(self, progress: Progress) -> AdoptReport:
        """Give back what can be. Raises Conflict, with nothing changed, if files were migrated."""
        while await self._files.flush_closed():
            pass
        if self._adoption.state is not AdoptionState.UNDOING:
            await self._refuse_migrated()
            async with self._catalog.write():
                self._catalog.adoptions.set_state(self._adoption.id, AdoptionState.UNDOING)
            await self._catalog.sync()
        folders = await self._catalog.read(lambda r: r.adopted_folders(self._adoption.id))
        await clock.blocking(lambda: self._make_folders(folders))
        await self._finish_intents()
        after = b""
        while rows := self._catalog.adoptions.paths(self._adoption.id, after, BATCH):
            after = rows[-1].path
            await self._batch(rows)
            progress(self.report)
        await self._leave_folders(folders)
        await self._end()
        return self.report

    async def _refuse_migrated(self) -> None:
        paths = await self._catalog.read(lambda r: r.adopted_and_migrated(self._adoption.id))
        if paths:
            count = f"{len(paths)}{'+' if len(paths) >= 1000 else ''}"
            raise Conflict(
                f"{count} files of the tree were migrated or are being, the first is"
                f" '{printable(paths[0])}'",
                next_step="the tree stays in the namespace; copy it out if you need it elsewhere",
            )

    def _full(self, path: bytes) -> bytes:
        return os.path.join(self._adoption.source, path)

    def _make_folders(self, folders: Sequence[bytes]) -> None:
        for path in folders:
            tree.make(self._full(path), stat.S_IFDIR, 0, None)

    # Files, links and special files

    async def _batch(self, rows: Sequence[Adopted]) -> None:
        backs: list[_Back] = []
        seen: set[InodeNo] = set()
        for start in range(0, len(rows), SLICE):
            backs += self._collect(rows[start : start + SLICE], seen)
            await trio.lowlevel.checkpoint()
        files = [back for back in backs if back.attr.is_file]
        others = [back for back in backs if not back.attr.is_file]
        dressed = await clock.blocking(lambda: [back for back in files if self._dress(back)])
        made = await clock.blocking(lambda: [back for back in others if self._make(back)])
        await clock.blocking(self._pool.sync)
        crash.point("unadopt.dressed")
        left: list[_Back] = []
        await in_slices(self._catalog, [*dressed, *made], lambda back: self._vanish(back, left))
        crash.point("unadopt.rows.committed")
        await self._catalog.sync()
        crash.point("unadopt.rows.synced")
        for back in left:
            self._files.changed(back.attr.ino)
        dressed = [back for back in left if back.attr.is_file]
        await self._give_back([(b.attr.ino, b.paths) for b in dressed])
        self.report.files += len(dressed)
        self.report.size += sum(back.attr.size for back in dressed)
        self.report.hard_links += sum(len(back.paths) - 1 for back in dressed)
        self.report.others += len(left) - len(dressed)

    def _collect(self, rows: Sequence[Adopted], seen: set[InodeNo]) -> list[_Back]:
        """Inodes of these paths that are there still and not in use, but no folders."""
        catalog, found = self._catalog, list[_Back]()
        for row in rows:
            attr = catalog.inodes.get_raw(row.ino)
            if row.step is not Step.DONE or row.ino in seen or attr is None or attr.is_dir:
                continue
            seen.add(row.ino)
            if attr.nlink == 0:
                continue  # in the trash
            if self._files.live(row.ino) is not None:
                self._fail(row.path, "is in use")
                continue
            paths = [
                other.path
                for other in catalog.adoptions.by_source(self._adoption.id, row.src_ino)
                if other.ino == row.ino and other.step is Step.DONE
            ]
            if paths[0] != row.path:
                continue  # done, or tried, with its first path
            names = catalog.xattrs.all(row.ino)
            target = catalog.inodes.target(row.ino)
            found.append(_Back(attr, paths, row.src_ino, names, target))
        return found

    def _dress(self, back: _Back) -> bool:
        """Make the pool file what its inode is; False if it cannot go back."""
        attr, path = back.attr, os.fsencode(self._pool.path_of(back.attr.ino))
        try:
            if attr.pool != self._pool.id:
                raise OSError(0, "its bytes were moved to another pool")
            for name in back.paths:
                full = self._full(name)
                if os.path.lexists(full) and not tree.is_same(full, os.lstat(path).st_ino):
                    raise OSError(0, "something else has its name in the tree now")
            if os.lstat(path).st_size != attr.size:
                examine.resize(self._pool, attr.ino, attr.size)
            self._put_on(path, back)
            return True
        except OSError as fault:
            self._fail(back.paths[0], fault.strerror or str(fault))
            return False

    def _make(self, back: _Back) -> bool:
        try:
            for name in back.paths:
                full = self._full(name)
                if name != back.paths[0] and not os.path.lexists(full):
                    os.link(self._full(back.paths[0]), full, follow_symlinks=False)
                tree.make(full, back.attr.mode, back.attr.rdev, back.target)
            self._put_on(self._full(back.paths[0]), back)
            return True
        except OSError as fault:
            self._fail(back.paths[0], fault.strerror or str(fault))
            return False

    def _put_on(self, path: bytes, back: _Back) -> None:
        attr = back.attr
        times = (attr.atime_ns, attr.mtime_ns)
        tree.dress(path, attr.mode, attr.uid, attr.gid, times, back.xattrs)

    def _vanish(self, back: _Back, left: list[_Back]) -> None:
        """Out of the namespace; a file's paths are noted as on their way."""
        catalog, adoption = self._catalog, self._adoption.id
        ino = back.attr.ino
        if back.attr.locked:
            self._fail(back.paths[0], "is a record, or under a legal hold")
            return
        if self._files.live(ino) is not None or catalog.inodes.get_raw(ino) != back.attr:
            self._fail(back.paths[0], "was used meanwhile")
            return
        left.append(back)
        for parent, name in catalog.names.discard(ino):
            self._files.renamed(parent, name)
        catalog.inodes.delete([ino])
        for path in back.paths:
            if back.attr.is_file:
                catalog.adoptions.put(adoption, path, ino, back.src_ino, Step.INTENT)
            else:
                catalog.adoptions.forget(adoption, path)

    async def _give_back(self, files: Sequence[tuple[InodeNo, list[bytes]]]) -> None:
        back = await clock.blocking(lambda: self._rename(files))
        crash.point("unadopt.names.synced")
        forget = self._catalog.adoptions.forget
        await in_slices(self._catalog, back, lambda path: forget(self._adoption.id, path))

    def _rename(self, files: Sequence[tuple[InodeNo, list[bytes]]]) -> list[bytes]:
        done: list[bytes] = []
        for ino, paths in files:
            names = [self._full(path) for path in paths]
            try:
                if os.path.lexists(self._pool.path_of(ino)):
                    for name in names:
                        os.makedirs(os.path.dirname(name), exist_ok=True)
                    tree.give_back(self._pool, ino, names)
                done += paths
            except OSError as fault:
                self._fail(paths[0], fault.strerror or str(fault))
            crash.point("unadopt.file.moved")
        self._pool.sync()
        return done

    async def _finish_intents(self) -> None:
        """After a crash: what is on its way goes to the tree."""
        rows = self._catalog.adoptions.intents(self._adoption.id, -1)
        files: dict[InodeNo, list[bytes]] = {}
        for row in rows:
            files.setdefault(row.ino, []).append(row.path)
        await self._give_back(list(files.items()))
        self.report.files += len(files)

    # Folders

    async def _leave_folders(self, folders: Sequence[bytes]) -> None:
        """Deepest first: times and modes to the tree, and out of the namespace if empty."""
        for start in range(0, len(folders), SLICE):
            some = folders[::-1][start : start + SLICE]
            backs = [back for path in some if (back := self._folder(path)) is not None]
            await clock.blocking(lambda backs=backs: self._dress_folders(backs))  # type: ignore[misc]
            await in_slices(self._catalog, some, self._remove_folder)
            crash.point("unadopt.folders.committed")

    def _folder(self, path: bytes) -> _Back | None:
        row = self._catalog.adoptions.path(self._adoption.id, path)
        attr = self._catalog.inodes.get_raw(row.ino) if row is not None else None
        if row is None or attr is None:
            return None
        return _Back(attr, [path], row.src_ino, self._catalog.xattrs.all(row.ino), None)

    def _dress_folders(self, backs: Sequence[_Back]) -> None:
        for back in backs:
            try:
                self._put_on(self._full(back.paths[0]), back)
            except OSError as fault:
                self._fail(back.paths[0], fault.strerror or str(fault))

    def _remove_folder(self, path: bytes) -> None:
        row = self._catalog.adoptions.path(self._adoption.id, path)
        if row is None:
            return
        attr = self._catalog.inodes.get_raw(row.ino)
        if any(failed.startswith(path + b"/") for failed in self._failed) or path in self._failed:
            return
        if row.step is Step.DONE and attr is not None:
            if self._stays(row.ino):
                self.report.kept.append(path)
            elif self._files.live(row.ino) is None:
                for parent, name in self._catalog.names.discard(row.ino):
                    self._files.renamed(parent, name)
                self._catalog.inodes.delete([row.ino])
        self.report.folders += bool(path)
        self._catalog.adoptions.forget(self._adoption.id, path)

    def _stays(self, ino: InodeNo) -> bool:
        """A folder that holds what is not from the tree, or is a retention folder."""
        return not self._catalog.names.is_empty(ino) or self._retentions.folder(ino) is not None

    async def _end(self) -> None:
        """Forget the adoption if nothing failed; the target folder goes if it was made for it."""
        adoption = self._adoption
        if self.report.failed:
            await self._catalog.sync()
            return
        gone = [row.path for row in self._catalog.adoptions.paths(adoption.id, b"", -1)]
        forget = self._catalog.adoptions.forget
        await in_slices(self._catalog, gone, lambda path: forget(adoption.id, path))
        async with self._catalog.write():
            top = self._catalog.adoptions.path(adoption.id, b"")
            if top is not None:
                self._remove_folder(b"")
            self._catalog.adoptions.end(adoption.id)
        crash.point("unadopt.end.committed")
        await self._catalog.sync()
        if top is not None:
            self._files.changed(top.ino)
        log.info("given back", source=adoption.source, files=self.report.files)

    def _fail(self, path: bytes, reason: str) -> None:
        self._failed.add(path)
        self.report.failed.append((path, reason))
        log.warning("not given back", path=path, reason=reason)
