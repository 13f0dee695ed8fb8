"""After a start: dirty inodes get their truth from their pool files.

A dirty inode is one whose file was being written; what its row says of size and times may be old.
Called before anything can be opened.
"""

from __future__ import annotations

import os

from .. import clock
from ..catalog.catalog import Catalog
from ..pool.pools import Pools
from ..pool.store import Pool
from ..states import STUBS, FileState
from ..types import InodeNo, Range
from .ranges import overlap


async def recover(catalog: Catalog, pools: Pools) -> int:
    """Make all dirty inodes clean; how many there were."""
    dirty = catalog.inodes.dirty()
    for attr in dirty:
        found = None
        if attr.pool is not None:
            await _end_parting(catalog, pools[attr.pool], attr.ino)
            path = pools[attr.pool].path_of(attr.ino)
            found = await clock.blocking(lambda path=path: _stat(path))  # type: ignore[misc]
        if found is not None:
            attr = attr._replace(
                size=found.st_size,
                blocks=found.st_blocks,
                mtime_ns=found.st_mtime_ns,
                ctime_ns=max(attr.ctime_ns, found.st_mtime_ns),
            )
        absent = overlap(catalog.inodes.absent(attr.ino), Range(0, attr.size))
        async with catalog.write():
            catalog.inodes.put(attr._replace(dirty=False))
            catalog.inodes.set_absent(attr.ino, absent)
            if not absent and attr.state in STUBS:
                catalog.inodes.set_state(attr.ino, FileState.RESIDENT)
    return len(dirty)


async def _end_parting(catalog: Catalog, pool: Pool, ino: InodeNo) -> None:
    """An inode was to get the file's bytes, and the file none, when a crash came (keeping.py).

    Either both have them, then it is done now; or a power cut took the one's away, then the file
    has them still.
    """
    for holder in catalog.kept.holders(ino):
        kept = catalog.inodes.get_raw(holder)
        if kept is None or kept.nlink or kept.pool != pool.id:
            continue
        seen, other = await clock.blocking(
            lambda holder=holder: (_stat(pool.path_of(ino)), _stat(pool.path_of(holder)))  # type: ignore[misc]
        )
        if seen is not None and other is not None and os.path.samestat(seen, other):
            await clock.blocking(lambda: pool.remove(ino))
        elif other is None and seen is not None and seen.st_size == kept.size:
            async with catalog.write():
                catalog.kept.give_back(ino, holder)


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None
