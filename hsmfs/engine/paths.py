"""From paths to inodes and back, for the API: by the catalog alone, never through the mount.

A daemon that asked its own mount would wait for itself. Symbolic links in the middle of a path are
followed as the kernel would, within the namespace; the last component is not.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

from ..catalog.catalog import Catalog
from ..catalog.reports import Reports
from ..errors import NotFound
from ..limits import BATCH_ROWS
from ..logs import printable
from ..types import ROOT, Attr, InodeNo

LINKS = 40
"""Symbolic links followed in one path, as the kernel does (path_resolution(7))."""


def resolve(catalog: Catalog, path: bytes, mountpoint: Path | None = None) -> Attr:
    """The inode at a path from the namespace's root. Raises NotFound.

    mountpoint: where an absolute link's target may start, to lead back into the namespace.
    """
    mount = os.fsencode(mountpoint) if mountpoint else b""
    todo = deque(name for name in path.split(b"/") if name not in (b"", b"."))
    folder, links = [_get(catalog, ROOT, path)], 0
    while todo:
        name = todo.popleft()
        if name == b"..":
            if len(folder) > 1:
                folder.pop()
            continue
        attr = catalog.names.lookup(folder[-1].ino, name) if folder[-1].is_dir else None
        if attr is None:
            raise NotFound(f"no file {printable(path)} in the namespace")
        if todo and stat.S_ISLNK(attr.mode):
            links += 1
            target = catalog.inodes.target(attr.ino) or b""
            if links > LINKS:
                raise NotFound(f"{printable(path)}: too many symbolic links")
            if target.startswith(b"/"):
                if not mount or not (target + b"/").startswith(mount + b"/"):
                    raise NotFound(f"{printable(path)} leads out of the namespace")
                target = target.removeprefix(mount)
                folder = folder[:1]
            todo.extendleft(
                part for part in reversed(target.split(b"/")) if part not in (b"", b".")
            )
            continue
        folder.append(attr)
    return folder[-1]


def _get(catalog: Catalog, ino: InodeNo, path: bytes) -> Attr:
    attr = catalog.inodes.get_raw(ino)
    if attr is None:
        raise NotFound(f"no file {printable(path)} in the namespace")
    return attr


def path_of(catalog: Catalog, ino: InodeNo) -> bytes:
    """One path of an inode with its leading slash; b'' if it has no name."""
    found = catalog.names.paths(ino, 1)
    return b"/" + found[0] if found else b""


async def files_below(
    catalog: Catalog, attr: Attr, *, deleted: bool = False
) -> AsyncIterator[list[Attr]]:
    """The regular files at or below an inode, in batches; each batch is true when it is read.

    deleted: also those in the trash that were there last, or in folders that were removed. Holds
    one entry for each folder that is still to be looked at, never the files themselves.
    """
    if attr.is_file:
        yield [attr]
    if not attr.is_dir:
        return
    todo: deque[tuple[InodeNo, int]] = deque([(attr.ino, 0)])
    while todo:
        batch = await catalog.read(lambda reports: _walk(reports, todo, deleted=deleted))
        if batch:
            yield batch


def _walk(
    reports: Reports, todo: deque[tuple[InodeNo, int]], *, deleted: bool
) -> list[Attr]:
    """Files of the next folders, about BATCH_ROWS; takes from todo and adds to it."""
    found: list[Attr] = []
    seen = 0
    while todo and seen < BATCH_ROWS:
        folder, after = todo.popleft()
        rows = reports.names.entries(folder, after, BATCH_ROWS)
        here = [attr for _, _, attr in rows]
        if deleted and not after:
            here += [gone.attr for gone in reports.trash.below(folder)]
        seen += len(here) + 1
        if len(rows) == BATCH_ROWS:
            todo.appendleft((folder, rows[-1][0]))
        found += [attr for attr in here if attr.is_file]
        todo.extend((attr.ino, 0) for attr in here if attr.is_dir)
    return found
