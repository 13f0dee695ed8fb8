"""Takes a tree back to a time: what was deleted, replaced, renamed, made or overwritten since.

Deletions and renames since then are undone in the opposite order. What was made since is set aside
into the trash, as are the files whose older bytes are put in their place, so a rollback destroys
nothing and can itself be undone. Older bytes are those that were set aside, or come from discs: the
file becomes a stub of the version that it was then. What cannot be had back is named. Permissions
are left as they are.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import trio

from .. import clock, crash
from ..catalog.catalog import Catalog
from ..catalog.history import NOWHERE, Move, Version
from ..catalog.reports import Reports
from ..catalog.trash import Trashed
from ..errors import Conflict, HsmError, PosixError
from ..limits import BATCH_ROWS, QUEUE_ROWS_SHOWN
from ..types import ROOT, Attr, InodeNo
from .files import Files
from .jobs import Job
from .keeping import Keeping
from .paths import path_of
from .stubs import Unkept, dress, make_stub, refuse_locked, refuse_lost, version_then
from .trust.audit import Note, unheard
from .trust.retention import Retention
from .views import b64, text

_DEPTH = 4096
_STEP = 100
"""Rows read at once."""
_ACTS = 20
"""Acts between two looks at what else waits."""


@dataclass(slots=True)
class Report:
    """What a rollback did, or with dry_run would do."""

    restored: int = 0
    moved_back: int = 0
    set_aside: int = 0
    reverted: int = 0
    failures: int = 0
    unkept: int = 0
    """Of the failures, files whose bytes of then were on no disc, and not set aside: gone."""
    failed: list[dict[str, Any]] = field(default_factory=list)

    def fail(self, path: bytes, why: str) -> None:
        """Something stays as it is now."""
        self.failures += 1
        if len(self.failed) < QUEUE_ROWS_SHOWN:
            self.failed.append({"path": text(path), "path_b64": b64(path), "error": why})

    def view(self) -> dict[str, Any]:
        """As JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


class Rollback:
    """Wired by the engine. note: puts a finished rollback on record."""

    def __init__(
        self, catalog: Catalog, files: Files, keeping: Keeping, retention: Retention, keep_s: float
    ) -> None:
        self._catalog, self._files, self._keep_ns = catalog, files, int(keep_s * 1e9)
        self._keeping, self._retention = keeping, retention
        self.note: Note = unheard

    async def run(
        self, job: Job, tree: Attr, to_ns: int, who: str, *, dry_run: bool
    ) -> dict[str, Any]:
        """Do it; durable when this returns. Raises Conflict for a time that is not remembered."""
        now = clock.now_ns()
        since = self._catalog.trash.reach(now, self._keep_ns)
        if not max(since, self._catalog.history.begins) <= to_ns <= now:
            raise Conflict(
                "that time is not remembered: deletions are for [trash] keep, and since a rebuild",
                next_step="take a later time, or recall older versions one by one",
            )
        found = Report()
        turn = _Turn(job, found)
        for event in await self._events(to_ns):
            await turn.one()
            if isinstance(event, Move):
                await self._undo_move(event, tree.ino, found, dry_run)
            elif event.attr.btime_ns <= to_ns:
                await self._undo_deletion(event, tree.ino, found, dry_run)
        made, changed = await self._since(tree, to_ns)
        for attr in made:
            await turn.one()
            await self._set_aside(attr, tree.ino, found, dry_run)
        for attr in changed:
            await turn.one()
            await self._revert(attr, to_ns, found, dry_run)
        if not dry_run:
            async with self._catalog.write():
                path = text(path_of(self._catalog, tree.ino)) or str(tree.ino)
                counts = {k: v for k, v in found.view().items() if k != "failed"}
                self.note("tree.rolled_back", who, path, to_ns=to_ns, **counts)
            await self._catalog.sync()
            crash.point("rollback.durable")
        return found.view()

    # What happened

    async def _events(self, to_ns: int) -> list[Move | Trashed]:
        """Moves and deletions since then, the newest first; a move before what it replaced."""

        def look(reports: Reports) -> list[Move | Trashed]:
            found: list[Move | Trashed] = [*reports.trash.since(to_ns)]
            before = 2**62
            while page := reports.history.moves_since(to_ns, before, BATCH_ROWS):
                found += page
                before = page[-1].id
            return sorted(found, key=_backwards)

        return await self._catalog.read(look)

    async def _since(self, tree: Attr, to_ns: int) -> tuple[list[Attr], list[Attr]]:
        """What was made since, contents before folders; and older files that may have changed."""
        made, changed = dict[InodeNo, Attr](), dict[InodeNo, Attr]()  # by number: hard links once
        async for attr in self._below(tree):
            if attr.btime_ns > to_ns:
                made[attr.ino] = attr
            elif attr.is_file and (
                attr.mtime_ns > to_ns or self._catalog.history.version_at(attr.ino, to_ns)
            ):
                changed[attr.ino] = attr
        return [*made.values()][::-1], [*changed.values()]

    async def _below(self, tree: Attr) -> AsyncIterator[Attr]:
        """Everything below a folder, folders before what is in them."""
        if tree.is_file:
            yield self._files.overlay(tree)
        todo = [(tree.ino, 0)] if tree.is_dir else []
        while todo:
            folder, after = todo.pop()
            await self._catalog.settled()
            rows = self._catalog.names.entries(folder, after, _STEP)
            if len(rows) == _STEP:
                todo.append((folder, rows[-1][0]))
            for _, _, attr in rows:
                yield self._files.overlay(attr)
                if attr.is_dir:
                    todo.append((attr.ino, 0))
            await trio.lowlevel.checkpoint()

    def _inside(self, folder: InodeNo, tree: InodeNo) -> bool:
        """Whether a folder is the tree or lies below it, also if it is in the trash."""
        for _ in range(_DEPTH):
            if folder == tree:
                return True
            if folder == ROOT:
                return False
            above = self._catalog.names.parent(folder)
            if above is None:
                trashed = self._catalog.trash.get(folder)
                if trashed is None:
                    return False
                above = trashed.parent
            folder = above
        return False

    # Undoing it

    async def _undo_move(self, move: Move, tree: InodeNo, found: Report, dry_run: bool) -> None:
        try:
            async with self._catalog.write():
                here = self._moved(move, tree)
                if here is None:
                    return  # it was made since too, or that deletion could not be undone
                if not dry_run:
                    self._back(move, here)
            found.moved_back += 1
            if not dry_run:
                self._told(move.new_parent, move.new_name)
                self._told(move.parent, move.name)
        except (HsmError, OSError) as fault:
            found.fail(path_of(self._catalog, move.ino), _why(fault))
        crash.point("rollback.moved")

    def _moved(self, move: Move, tree: InodeNo) -> Attr | None:
        """What the move made of its name, if it concerns the tree and is there still."""
        if not (self._inside(move.parent, tree) or self._inside(move.new_parent, tree)):
            return None
        if move.new_parent == NOWHERE:
            here = self._catalog.inodes.get_raw(move.ino)
            kept = here is not None and (here.nlink or self._catalog.trash.get(move.ino))
            return here if kept else None
        here = self._catalog.names.lookup(move.new_parent, move.new_name)
        if here is None or here.ino != move.ino:
            return None
        # A folder that came out of the trash stays: what is in it was made since, or was not.
        return None if move.parent == NOWHERE and here.is_dir else here

    def _back(self, move: Move, attr: Attr) -> None:
        """Give the name back, or take one more name away; in a transaction."""
        names, now = self._catalog.names, clock.now_ns()
        here, back = (move.new_parent, move.new_name), (move.parent, move.name)
        if move.parent == NOWHERE:
            self._take(*here, attr)
            return
        self._folder(move.parent)
        self._free(*back, move.ino)
        if move.new_parent != NOWHERE or (attr.is_dir and attr.nlink):
            refuse_locked(attr)
            if move.new_parent == NOWHERE:
                here = names.links(move.ino)[0]
            if attr.is_dir:
                self._retention.may_move_folder(attr, here[0], back[0])
            attr, _ = names.rename(*here, *back, now)
            names.named(attr, back[0])
            self._catalog.history.moved(move.ino, here, back, now)
        elif attr.nlink:
            attr = names.link(move.ino, *back, now)
            names.named(attr, back[0])
            self._catalog.history.linked(move.ino, back, now)
        else:
            attr = names.revive(move.ino, *back, now)
            self._catalog.trash.restored(move.ino, *back, now)
        self._files.touch_links(attr)

    async def _undo_deletion(
        self, gone: Trashed, tree: InodeNo, found: Report, dry_run: bool
    ) -> None:
        try:
            async with self._catalog.write():
                kept = self._catalog.trash.get(gone.attr.ino)
                if kept is None or kept.deleted_ns != gone.deleted_ns:
                    return  # came back, as a folder above another or by somebody's hand
                if not self._inside(gone.parent, tree):
                    return
                if not dry_run:
                    self._folder(gone.parent)
                    self._free(gone.parent, gone.name, gone.attr.ino)
                    self._revive(gone)
            found.restored += 1
            if not dry_run:
                self._told(gone.parent, gone.name)
        except (HsmError, OSError) as fault:
            found.fail(path_of(self._catalog, gone.parent) + b"/" + gone.name, _why(fault))
        crash.point("rollback.restored")

    def _folder(self, folder: InodeNo) -> None:
        """Bring a removed folder back, with those above it; in a transaction."""
        missing = list[Trashed]()
        while folder != ROOT and self._catalog.names.parent(folder) is None:
            trashed = self._catalog.trash.get(folder)
            if trashed is None or len(missing) > _DEPTH:
                raise Conflict("its folder is gone for good", next_step="restore it elsewhere")
            missing.append(trashed)
            folder = trashed.parent
        for trashed in reversed(missing):
            self._free(trashed.parent, trashed.name, trashed.attr.ino)
            self._revive(trashed)

    def _revive(self, gone: Trashed) -> None:
        now = clock.now_ns()
        attr = self._catalog.names.revive(gone.attr.ino, gone.parent, gone.name, now)
        self._catalog.trash.restored(gone.attr.ino, gone.parent, gone.name, now)
        self._files.touch_links(attr)

    def _free(self, parent: InodeNo, name: bytes, for_: InodeNo) -> None:
        """Whoever has a name now loses it; in a transaction."""
        attr = self._catalog.names.lookup(parent, name)
        if attr is not None and attr.ino != for_:
            self._take(parent, name, attr)

    def _take(self, parent: InodeNo, name: bytes, attr: Attr) -> None:
        refuse_locked(attr)
        if attr.is_dir:
            self._retention.may_remove_folder(attr.ino, "rollback")
            for _, below, inner in list(self._entries(attr.ino)):
                self._take(attr.ino, below, inner)
        names, now = self._catalog.names, clock.now_ns()
        gone = (names.rmdir if attr.is_dir else names.unlink)(parent, name, now)
        self._files.touch_links(gone)
        if gone.nlink == 0:
            self._catalog.trash.put(gone.ino, parent, name, now, self._keep_ns)
        else:
            self._catalog.history.unlinked(gone.ino, (parent, name), now)

    def _entries(self, folder: InodeNo) -> Iterator[tuple[int, bytes, Attr]]:
        after = 0
        while rows := self._catalog.names.entries(folder, after, BATCH_ROWS):
            yield from rows
            after = rows[-1][0]

    async def _set_aside(
        self, attr: Attr, tree: InodeNo, found: Report, dry_run: bool
    ) -> None:
        """What was not there at that time goes to the trash."""
        try:
            async with self._catalog.write():
                links = [
                    (parent, name) for parent, name in self._catalog.names.links(attr.ino)
                    if self._inside(parent, tree)
                ]  # fmt: skip
                full = attr.is_dir and not dry_run and next(self._entries(attr.ino), None)
                if not links or full:
                    return  # a folder that bears what stays, stays too
                for parent, name in () if dry_run else links:
                    self._take(parent, name, self._catalog.inodes.get_raw(attr.ino) or attr)
            found.set_aside += 1
            for parent, name in () if dry_run else links:
                self._told(parent, name)
        except (HsmError, OSError) as fault:
            found.fail(path_of(self._catalog, attr.ino), _why(fault))
        crash.point("rollback.set_aside")

    # Bytes

    async def _revert(self, attr: Attr, to_ns: int, found: Report, dry_run: bool) -> None:
        """Put the version of that time in the file's place."""
        names: list[tuple[InodeNo, bytes]] = []
        try:
            async with self._catalog.write():
                then = self._wanted(attr.ino, to_ns)
            if then is None:
                return
            if not dry_run:
                names = await self._stand_in(then, to_ns)
            found.reverted += 1
            for parent, name in names:
                self._told(parent, name)
        except (HsmError, OSError) as fault:
            found.unkept += isinstance(fault, Unkept)
            found.fail(path_of(self._catalog, attr.ino), _why(fault))
        crash.point("rollback.reverted")

    def _wanted(self, ino: InodeNo, to_ns: int) -> Version | None:
        """None: it is as it was, or was deleted meanwhile. Raises Conflict if those bytes cannot
        be had.
        """
        attr = self._files.attr(ino)
        if attr is None or attr.nlink == 0:
            return None
        refuse_locked(attr)
        then = version_then(self._files, attr, to_ns)
        if then is None:
            return None
        refuse_lost(self._catalog, then)
        live = self._files.live(ino)
        if live is not None and live.writers:
            raise Conflict("is open for writing")
        return then

    async def _stand_in(self, then: Version, to_ns: int) -> list[tuple[InodeNo, bytes]]:
        """Give an inode with the older bytes, or a stub, the file's names; the file goes to the
        trash.
        """
        async with (
            self._keeping.bytes_of(then.ino, then.version, then.size) as ready,
            self._catalog.write(),
        ):
            if self._wanted(then.ino, to_ns) != then:
                raise Conflict("is being changed")
            old, now = self._files.attr(then.ino), clock.now_ns()
            assert old is not None
            if ready is None:
                new = make_stub(self._catalog, old, then.version, then.size, then.mtime_ns)
            else:
                new = dress(self._catalog, ready, old, then.mtime_ns)
            names = self._catalog.history.stand_in(then.ino, new.ino, now)
            for name in names[1:]:  # before the last one, as it is undone in the opposite order
                self._catalog.history.unlinked(then.ino, name, now - 1)
            self._catalog.trash.put(then.ino, *names[0], now, self._keep_ns)
            self._files.touch_links(old._replace(nlink=0, ctime_ns=now))
            if ready is not None:
                self._files.renew(ready)
        return names

    def _told(self, parent: InodeNo, name: bytes) -> None:
        self._files.renamed(parent, name)


class _Turn:
    """Gives others their turn now and then, and tells how far it has come."""

    def __init__(self, job: Job, found: Report) -> None:
        self._job, self._found, self._count = job, found, 0

    async def one(self) -> None:
        self._count += 1
        if self._count % _ACTS == 0:
            self._job.progress = self._found.view() | {"failed": []}
            await trio.lowlevel.checkpoint()


def _backwards(event: Move | Trashed) -> tuple[int, int, int]:
    if isinstance(event, Move):
        return -event.moved_ns, 0, -event.id
    return -event.deleted_ns, 1, -event.attr.ino


def _why(fault: HsmError | OSError) -> str:
    if isinstance(fault, PosixError):
        return errno.errorcode.get(fault.number, str(fault.number))
    return fault.message if isinstance(fault, HsmError) else str(fault)
