"""One run of an adoption over its tree: which step comes before which is told in `adopt.py`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import trio

from .. import clock, crash, logs
from ..catalog.adoptions import Adopted, Adoption, AdoptionState, Step
from ..catalog.catalog import Catalog
from ..errors import HsmError
from ..limits import BATCH_SECONDS
from ..pool import adopt as tree
from ..pool.adopt import Item
from ..pool.store import Pool
from ..states import FileState
from ..types import Attr, DataVersion, InodeNo
from .files import Files

BATCH = 1000
"""Paths between two syncs of the filesystem."""
log = logs.get(__name__)
T = TypeVar("T")


@dataclass(slots=True)
class AdoptReport:
    """How far an adoption (or its undoing) is, and how it ended; bytes without holes counted once.

    Attributes:
        total: entries of the tree as surveyed, 0 when going on after a crash was all there was.
        linked_outside: files that have names outside the tree, through which others could still
            change them.
        failed: paths that were left alone, each with the reason; run again to try them again.
        kept: paths that an undo left in the namespace: they are not from the tree, or retention
            folders.
    """

    source: bytes
    target: bytes
    total: int = 0
    files: int = 0
    folders: int = 0
    others: int = 0
    hard_links: int = 0
    size: int = 0
    linked_outside: int = 0
    failed: list[tuple[bytes, str]] = field(default_factory=list)
    kept: list[bytes] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return not self.failed

    @property
    def entries(self) -> int:
        """Paths that went over."""
        return self.files + self.folders + self.others + self.hard_links


Progress = Callable[[AdoptReport], None]


def quiet(report: AdoptReport) -> None:
    """A progress callback that does nothing."""


@dataclass(frozen=True, slots=True)
class _Move:
    item: Item
    ino: InodeNo


class Adopting:
    """One run over one tree."""

    def __init__(self, catalog: Catalog, pool: Pool, files: Files, adoption: Adoption) -> None:
        self._catalog, self._pool, self._files = catalog, pool, files
        self._adoption = adoption
        self._top = adoption.source
        self._folders: dict[bytes, InodeNo | None] = {}
        self.report = AdoptReport(adoption.source, adoption.target)

    async def run(self, progress: Progress) -> AdoptReport:
        """Adopt what is still in the tree."""
        try:
            await self.finish_intents()
            device = await clock.blocking(lambda: os.stat(self._top).st_dev)
            items = tree.walk(self._top, device)
            while batch := await clock.blocking(lambda: list(islice(items, BATCH))):
                await self._batch(batch)
                progress(self.report)
            await self._finish()
        except OSError as fault:
            raise HsmError(
                f"the tree cannot be read: {fault}",
                next_step="correct it and run 'hsmctl adopt' again: it goes on where it stopped",
            ) from fault
        return self.report

    async def _batch(self, batch: Sequence[Item]) -> None:
        moves: list[_Move] = []
        links: list[Item] = []
        gone: list[tuple[bytes, int]] = []
        await in_slices(self._catalog, batch, lambda item: self._plan(item, moves, links, gone))
        crash.point("adopt.intent.committed")
        await self._catalog.sync()
        crash.point("adopt.intent.synced")
        if moves:
            await self._move(moves)
        await in_slices(self._catalog, links, lambda item: self._link(item, gone))
        if gone and not self._adoption.link:
            await self._catalog.sync()
            crash.point("adopt.rows.synced")
            await clock.blocking(lambda: self._remove_names(gone))

    def _plan(
        self,
        item: Item,
        moves: list[_Move],
        links: list[Item],
        gone: list[tuple[bytes, int]],
    ) -> None:
        """Decide on one path: what has no bytes goes over at once, files get their number."""
        known = self._catalog.adoptions.path(self._adoption.id, item.path)
        if known is not None and known.step is not Step.INTENT:
            if not item.is_dir and known.src_ino == item.stat.st_ino:
                gone.append((item.path, known.src_ino))
            elif known.src_ino != item.stat.st_ino and not item.is_dir:
                self._fail(item.path, "another file of this name was adopted before")
            return
        parent, name = self._parent(item.path)
        if parent is None:
            self._fail(item.path, "its folder was not adopted")
            return
        there = self._catalog.names.lookup(parent, name)
        if there is not None:
            if there.is_dir and item.is_dir:
                self._note(item, there.ino, Step.MERGED)
            else:
                self._fail(item.path, "the name is taken in the namespace")
            return
        if not item.is_file:
            self._insert(item, self._catalog.inodes.reserve())
            if not item.is_dir:
                gone.append((item.path, item.stat.st_ino))
        elif item.stat.st_nlink > 1 and self._others(item):
            links.append(item)
        else:
            ino = self._catalog.inodes.reserve()
            self._note(item, ino, Step.INTENT)
            moves.append(_Move(item, ino))

    async def _move(self, moves: Sequence[_Move]) -> None:
        moved, failed = await clock.blocking(lambda: self._take(moves))
        crash.point("adopt.names.synced")
        clashed: list[_Move] = []
        await in_slices(self._catalog, moved, lambda move: self._appear(move, clashed))
        crash.point("adopt.inode.committed")
        if clashed:
            await clock.blocking(lambda: self._put_back(clashed))
        paths = [move.item.path for move in (*failed, *clashed)]
        await in_slices(self._catalog, paths, self._forget)

    def _take(self, moves: Sequence[_Move]) -> tuple[list[_Move], list[_Move]]:
        moved, failed = [], []
        for move in moves:
            source = os.path.join(self._top, move.item.path)
            try:
                tree.take(self._pool, move.ino, source, link=self._adoption.link)
                moved.append(move)
            except OSError as fault:
                failed.append(move)
                self._fail(move.item.path, fault.strerror or str(fault))
            crash.point("adopt.file.moved")
        self._pool.sync()
        return moved, failed

    def _appear(self, move: _Move, clashed: list[_Move]) -> None:
        parent, name = self._parent(move.item.path)
        if parent is None or self._catalog.names.lookup(parent, name) is not None:
            clashed.append(move)
            self._fail(move.item.path, "the name is taken in the namespace")
        else:
            self._insert(move.item, move.ino)

    def _put_back(self, moves: Sequence[_Move]) -> None:
        for move in moves:
            path = os.path.join(self._top, move.item.path)
            tree.give_back(self._pool, move.ino, [path])
        self._pool.sync()

    def _insert(self, item: Item, ino: InodeNo) -> None:
        catalog = self._catalog
        parent, name = self._parent(item.path)
        assert parent is not None
        attr = inode_of(item, ino, self._pool)
        catalog.inodes.insert_as(attr)
        self._named(parent, name, attr)
        if item.target is not None:
            catalog.names.set_target(ino, item.target)
        for key, value in item.xattrs.items():
            catalog.xattrs.set(ino, key, value)
        self._note(item, ino, Step.DONE)
        if item.is_dir:
            self.report.folders += 1
        elif item.is_file:
            self.report.files += 1
            self.report.size += item.stat.st_size
        else:
            self.report.others += 1

    def _named(self, parent: InodeNo, name: bytes, attr: Attr) -> None:
        self._catalog.names.adopt(parent, name, attr, clock.now_ns())
        self._files.renamed(parent, name)

    def _others(self, item: Item) -> list[Adopted]:
        found = self._catalog.adoptions.by_source(self._adoption.id, item.stat.st_ino)
        return [other for other in found if other.path != item.path]

    def _link(self, item: Item, gone: list[tuple[bytes, int]]) -> None:
        """One more name for a file of which another name went over before."""
        parent, name = self._parent(item.path)
        other = next((o for o in self._others(item) if o.step is Step.DONE), None)
        attr = self._catalog.inodes.get_raw(other.ino) if other is not None else None
        if other is None or attr is None or not attr.nlink or parent is None:
            self._fail(item.path, "is a hard link of a file that could not be adopted or is gone")
            return
        if self._catalog.names.lookup(parent, name) is not None:
            self._fail(item.path, "the name is taken in the namespace")
            return
        self._named(parent, name, attr)
        self._catalog.inodes.add_links(attr, 1, attr.ctime_ns)
        self._files.touch_links(attr._replace(nlink=attr.nlink + 1))
        self._note(item, attr.ino, Step.DONE)
        self.report.hard_links += 1
        gone.append((item.path, item.stat.st_ino))

    def _remove_names(self, gone: Sequence[tuple[bytes, int]]) -> None:
        for path, src_ino in gone:
            tree.remove_name(os.path.join(self._top, path), src_ino)
            crash.point("adopt.name.removed")

    def _parent(self, path: bytes) -> tuple[InodeNo | None, bytes]:
        """The inode of the folder above, and the last name."""
        above, name = os.path.split(path)
        if self._folders.get(above) is None:
            row = self._catalog.adoptions.path(self._adoption.id, above)
            self._folders[above] = row.ino if row is not None else None
        return self._folders[above], name

    def _note(self, item: Item, ino: InodeNo, step: Step) -> None:
        self._catalog.adoptions.put(self._adoption.id, item.path, ino, item.stat.st_ino, step)

    def _forget(self, path: bytes) -> None:
        self._catalog.adoptions.forget(self._adoption.id, path)

    def _fail(self, path: bytes, reason: str) -> None:
        self.report.failed.append((path, reason))
        log.warning("not adopted", path=path, reason=reason)

    # After a crash

    async def finish_intents(self) -> int:
        """Let files that are in the pool appear, and forget the numbers of those that are not."""
        done = 0
        while rows := self._catalog.adoptions.intents(self._adoption.id):
            moved = await clock.blocking(lambda rows=rows: self._found(rows))  # type: ignore[misc]
            crash.point("adopt.resume.found")
            here = {move.item.path for move in moved}
            clashed: list[_Move] = []
            await in_slices(self._catalog, moved, lambda move, c=clashed: self._appear(move, c))  # type: ignore[misc]
            await clock.blocking(lambda c=clashed: self._put_back(c))  # type: ignore[misc]
            lost = [row.path for row in rows if row.path not in here]
            lost += [move.item.path for move in clashed]
            await in_slices(self._catalog, lost, self._forget)
            done += len(moved)
        if done:
            await self._catalog.sync()
        return done

    def _found(self, rows: Sequence[Adopted]) -> list[_Move]:
        self._pool.sync()
        moved = []
        for row in rows:
            seen = tree.held(self._pool, row.ino, row.src_ino)
            if seen is not None:
                names = tree.xattrs(os.fsencode(self._pool.path_of(row.ino)))
                moved.append(_Move(Item(row.path, seen, names, None), row.ino))
        return moved

    async def _finish(self) -> None:
        await self._catalog.sync()
        adoption = self._adoption
        if not adoption.link:
            folders = await self._catalog.read(lambda r: r.adopted_folders(adoption.id))
            await clock.blocking(lambda: tree.remove_folders(self._top, folders))
            crash.point("adopt.folders.removed")
        if self.report.done:
            async with self._catalog.write():
                self._catalog.adoptions.set_state(adoption.id, AdoptionState.DONE)
        await self._catalog.sync()
        log.info(
            "adopted", source=self._top, files=self.report.files, folders=self.report.folders,
            bytes=self.report.size, failed=len(self.report.failed),
        )  # fmt: skip


async def in_slices(catalog: Catalog, things: Iterable[T], work: Callable[[T], None]) -> None:
    """work(thing) for each, in transactions that do not hold the loop for long."""
    left = iter(things)
    more = True
    while more:
        async with catalog.write():
            until = time.monotonic() + BATCH_SECONDS / 2
            more = False
            for thing in left:
                work(thing)
                if time.monotonic() > until:
                    more = True
                    break
        await trio.lowlevel.checkpoint()


def inode_of(item: Item, ino: InodeNo, pool: Pool | None) -> Attr:
    """The inode that a path becomes; nlink counts the first name only."""
    seen, one = item.stat, DataVersion(1)
    size = seen.st_size if item.is_file or item.target is not None else 0
    return Attr(
        ino=ino, mode=seen.st_mode, uid=seen.st_uid, gid=seen.st_gid,
        nlink=2 if item.is_dir else 1, rdev=seen.st_rdev, size=4096 if item.is_dir else size,
        blocks=seen.st_blocks if item.is_file else 0, atime_ns=seen.st_atime_ns,
        mtime_ns=seen.st_mtime_ns, ctime_ns=seen.st_ctime_ns,
        btime_ns=min(seen.st_mtime_ns, seen.st_ctime_ns),
        state=int(FileState.RESIDENT) if item.is_file else None,
        pool=pool.id if item.is_file and pool is not None else None,
        version=one, base_version=one, dirty=False, pinned=False, locked=0, change_seq=0,
    )  # fmt: skip
