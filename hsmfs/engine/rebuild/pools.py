"""Matches the files that pools still have with a catalog made from discs; no byte is touched.

A file that has not changed since the snapshot is as the snapshot says. Any other is believed by its
checksums alone: bytes of an archived version, or a new version, or, where holes keep that from
being told, set aside in the pool's lost+found (docs/rebuild.md). Blocking.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from ...catalog.draft_end import Ending
from ...pool.examine import set_aside
from ...pool.pools import Pools
from ...pool.store import Pool
from ...types import CHUNK, Attr, Digest, InodeNo, Range

PAGE = 1000
"""Pool files in one transaction."""


def match(ending: Ending, pools: Pools, told: Callable[[int], None]) -> int:
    """Match every file of every pool; how many there are."""
    done = 0
    for pool in pools:
        inos = pool.inodes()
        while page := list(islice(inos, PAGE)):
            with ending.db:
                for ino in page:
                    _one(ending, pool, ino)
            done += len(page)
            told(done)
    return done


def _one(ending: Ending, pool: Pool, ino: InodeNo) -> None:
    path = Path(pool.path_of(ino))
    found = path.stat()
    attr = ending.inodes.get_raw(ino)
    if attr is None:
        ending.take_unknown(ino, pool.id, found.st_size, found.st_blocks, found.st_mtime_ns)
    elif not attr.is_file:
        ending.set_aside(ino, set_aside(pool, path))
    elif ending.untouched(attr, pool.id, found.st_ctime_ns):
        ending.keep(ino, pool.id)
    else:
        _compare(ending, pool, attr, path, found)


def _compare(
    ending: Ending, pool: Pool, attr: Attr, path: Path, found: os.stat_result
) -> None:
    digest = ending.copies.digest(attr.ino, attr.version)
    with path.open("rb", buffering=0) as file:
        holes = _holes(file.fileno(), found.st_size)
        if digest is not None and digest.size == found.st_size:
            absent, same = _check(file.fileno(), digest, holes)
        else:
            absent, same = [], False
    if same:
        archived = ending.copies.proven(attr.ino, attr.version) > 0
        ending.take_resident(attr, pool.id, found.st_blocks, absent, archived=archived)
    elif not holes:
        ending.take_newer(attr, pool.id, found.st_size, found.st_blocks, found.st_mtime_ns)
    else:
        ending.set_aside(attr.ino, set_aside(pool, path))


def _holes(fd: int, size: int) -> list[Range]:
    """Ranges without data, in order."""
    holes, at = [], 0
    while at < size:
        hole = os.lseek(fd, at, os.SEEK_HOLE)
        if hole >= size:
            break
        try:
            at = os.lseek(fd, hole, os.SEEK_DATA)
        except OSError as fault:
            if fault.errno != errno.ENXIO:
                raise
            at = size
        holes.append(Range(hole, at))
    return holes


def _check(fd: int, digest: Digest, holes: list[Range]) -> tuple[list[Range], bool]:
    """Chunks that are not there, put together; False if any other differs from its checksum."""
    absent: list[Range] = []
    for index, wanted in enumerate(digest.chunks):
        chunk = Range(index * CHUNK, min(digest.size, (index + 1) * CHUNK))
        if hashlib.sha256(os.pread(fd, chunk.length, chunk.start)).digest() == wanted:
            continue
        if not any(hole.start <= chunk.start and chunk.end <= hole.end for hole in holes):
            return [], False
        if absent and absent[-1].end == chunk.start:
            absent[-1] = Range(absent[-1].start, chunk.end)
        else:
            absent.append(chunk)
    return absent, True
