"""Takes an existing tree into the namespace without copying a byte: `hsmctl adopt DIR`.

For each file a number is set aside and the path written down (`Step.INTENT`), that is made durable,
the file is renamed (or hard linked) into the pool, that is made durable, and then the inode and its
name appear. A crash between leaves the file under one of its two names, and the row says which to
look for: `adopt` on the same tree, or `resume` at a start, goes on. Folders, symbolic links and
special files have no bytes: their rows are made durable before they go from the tree.

The tree must be quiet meanwhile: who holds one of its files open for writing goes on writing.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

import trio

from .. import clock, crash, logs
from ..catalog.adoptions import Adoption, AdoptionState, Step
from ..catalog.catalog import Catalog
from ..catalog.reports import Reports
from ..errors import Conflict, NotFound
from ..logs import printable
from ..pool import adopt as tree
from ..pool.adopt import Item
from ..pool.pools import Pools
from ..pool.store import Pool
from .adopting import Adopting, AdoptReport, Progress, inode_of, quiet
from .files import Files
from .unadopt import Undoing

__all__ = ["AdoptReport", "Adopter", "Progress"]

_SHOWN = 10
"""Paths named in an error."""
log = logs.get(__name__)


class Adopter:
    """Adopts trees; wired by the engine. One at a time."""

    def __init__(self, catalog: Catalog, pools: Pools, files: Files) -> None:
        self._catalog, self._pools, self._files = catalog, pools, files
        self._busy = trio.Lock()

    def adoptions(self) -> Sequence[Adoption]:
        """All adoptions that were not undone."""
        return self._catalog.adoptions.all()

    async def adopt(
        self,
        source: bytes,
        target: bytes = b"/",
        *,
        link: bool = False,
        pool: str | None = None,
        progress: Progress = quiet,
    ) -> AdoptReport:
        """Take the tree at source (an absolute path) into the namespace at target.

        Folders that are there are merged into; a missing last component of target is made. With
        link the tree stays, sharing its files with the pool: then nobody may write to it, and a
        release empties its files too. Without pool, the one on the tree's filesystem is taken.

        Raises Conflict if the tree is on another filesystem than the pool, contains the pool, the
        state folder or a mount, or has names that are taken; NotFound if there is no such folder.
        """
        async with self._busy:
            top = await clock.blocking(lambda: _folder(source))
            adoption = self._catalog.adoptions.get(top)
            if adoption is None or adoption.state is AdoptionState.DONE:
                adoption, survey = await self._begin(top, target, link, pool, adoption)
            else:
                if adoption.state is AdoptionState.UNDOING:
                    raise Conflict(
                        f"'{printable(top)}' is half given back",
                        next_step="end that with 'hsmctl adopt --undo'",
                    )
                survey = await clock.blocking(lambda: tree.survey(top, os.stat(top).st_dev))
            task = Adopting(self._catalog, self._pools[adoption.pool], self._files, adoption)
            task.report.total = survey.entries
            task.report.linked_outside = survey.linked_outside
            return await task.run(progress)

    async def resume(self) -> int:
        """At a start: bring files that a crash left between tree and pool to one side; how many.

        The rest of the tree waits for `adopt` or `undo` with the same path.
        """
        done = 0
        async with self._busy:
            for adoption in self._catalog.adoptions.all():
                if adoption.state is AdoptionState.RUNNING:
                    pool = self._pools[adoption.pool]
                    task = Adopting(self._catalog, pool, self._files, adoption)
                    done += await task.finish_intents()
        return done

    async def undo(self, source: bytes, *, progress: Progress = quiet) -> AdoptReport:
        """Give an adopted tree back to its old paths; see engine/unadopt.py for what and when."""
        async with self._busy:
            adoption = self._catalog.adoptions.get(source.rstrip(b"/"))
            if adoption is None:
                raise NotFound(
                    f"'{printable(source)}' was not adopted", next_step="see 'hsmctl adopt --list'"
                )
            pool = self._pools[adoption.pool]
            return await Undoing(self._catalog, pool, self._files, adoption).run(progress)

    async def _begin(
        self, top: bytes, target: bytes, link: bool, pool: str | None, old: Adoption | None
    ) -> tuple[Adoption, tree.Survey]:
        home = await clock.blocking(lambda: self._pool_for(top, pool))
        device = await clock.blocking(lambda: os.stat(top).st_dev)
        self._refuse_ours(top)
        survey = await clock.blocking(lambda: tree.survey(top, device))
        if survey.foreign:
            raise Conflict(
                f"another filesystem is mounted at {_shown(survey.foreign)} in the tree",
                next_step="unmount it, or adopt the folders beside it one by one",
            )
        item = await clock.blocking(lambda: tree.item(top, b"."))
        known = old.id if old is not None else 0
        clashes = await self._catalog.read(lambda r: _clashes(r, top, target, known))
        if clashes:
            raise Conflict(
                f"names in the tree are taken in the namespace: {_shown(clashes)}",
                next_step="rename them, or adopt to another place",
            )
        async with self._catalog.write():
            if old is not None:
                self._catalog.adoptions.set_state(old.id, AdoptionState.RUNNING)
                return old, survey
            now = clock.now_ns()
            adoption = self._catalog.adoptions.begin(top, target, home.id, link, now)
            self._make_target(adoption, item)
        crash.point("adopt.begin.committed")
        await self._catalog.sync()
        await clock.blocking(lambda: tree.close_to_others(home))
        log.info("adopting", source=top, target=target, pool=home.name, entries=survey.entries)
        return adoption, survey

    def _pool_for(self, top: bytes, name: str | None) -> Pool:
        device = os.stat(top).st_dev
        named = [pool for pool in self._pools if name is None or pool.name == name]
        if not named:
            raise NotFound(f"no pool '{name}'", next_step="see 'hsmctl df'")
        for pool in named:
            if os.stat(pool.path / "data").st_dev == device:
                pool.check()
                return pool
        raise Conflict(
            f"'{printable(top)}' is on another filesystem than "
            + (f"pool '{name}'" if name else "every pool")
            + ", so nothing can be adopted without copying",
            next_step="make a pool on that filesystem, or copy the files in",
        )

    def _refuse_ours(self, top: bytes) -> None:
        ours = [("pool " + pool.name, pool.path) for pool in self._pools]
        ours.append(("the state folder", self._catalog.path.parent))
        for what, path in ours:
            real = os.fsencode(os.path.realpath(path))
            if os.path.commonpath([real, top]) in (real, top):
                raise Conflict(
                    f"'{printable(top)}' contains or lies in {what} ({path})",
                    next_step="adopt the folders beside it one by one",
                )

    def _make_target(self, adoption: Adoption, top: Item) -> None:
        catalog, path = self._catalog, adoption.target
        found = catalog.names.resolve(path)
        if found is not None:
            if not found.is_dir:
                raise Conflict(f"'{printable(path)}' in the namespace is no folder")
            catalog.adoptions.put(adoption.id, b"", found.ino, 0, Step.MERGED)
            return
        above, _, name = path.rstrip(b"/").rpartition(b"/")
        parent = catalog.names.resolve(above)
        if parent is None or not parent.is_dir:
            raise Conflict(
                f"'{printable(above)}' is no folder in the namespace", next_step="make it first"
            )
        attr = catalog.inodes.insert_as(inode_of(top, catalog.inodes.reserve(), None))
        catalog.names.adopt(parent.ino, name, attr, clock.now_ns())
        self._files.renamed(parent.ino, name)
        for key, value in top.xattrs.items():
            catalog.xattrs.set(attr.ino, key, value)
        catalog.adoptions.put(adoption.id, b"", attr.ino, 0, Step.DONE)


def _folder(source: bytes) -> bytes:
    """The tree's real path. Raises NotFound."""
    top = os.path.realpath(source)
    try:
        if stat.S_ISDIR(os.stat(top).st_mode):
            return top
    except OSError as fault:
        if fault.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
            raise
    raise NotFound(f"'{printable(source)}' is no folder that can be read")


def _clashes(reports: Reports, top: bytes, target: bytes, adoption: int) -> list[bytes]:
    """Paths of the tree whose name is taken in the namespace by what cannot be merged with."""
    at = reports.names.resolve(target)
    if at is None:
        return []
    if not at.is_dir:
        return [b"."]
    found: list[bytes] = []
    todo = [(b"", at.ino)]
    while todo and len(found) <= _SHOWN:
        below, folder = todo.pop()
        with os.scandir(os.path.join(top, below)) as entries:
            for entry in entries:
                there = reports.names.lookup(folder, entry.name)
                path = os.path.join(below, entry.name)
                if there is None:
                    continue
                if there.is_dir and entry.is_dir(follow_symlinks=False):
                    todo.append((path, there.ino))
                elif not reports.was_adopted(adoption, path, entry.inode()):
                    found.append(path)
    return found


def _shown(paths: Sequence[bytes]) -> str:
    text = ", ".join(f"'{printable(path)}'" for path in paths[:_SHOWN])
    return text + (" ..." if len(paths) > _SHOWN else "")
