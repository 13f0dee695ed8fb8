"""Bytes on their way from discs into pool files: many small files cost as little as a large one.

What `Residency` does in threads for a recall; it holds the locks and keeps the catalog.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from .. import crash
from ..disc.reader import Bytes
from ..durable import write_all
from ..errors import HsmError
from ..pool.fallocate import begin_writing
from ..pool.store import Pool
from ..types import DataVersion, InodeNo, Range
from .live import Live
from .ranges import overlap

LARGE = 1 << 20
"""Bytes with which the disk begins at once: the file's next sync holds up what comes after."""
MANY = 4
"""Files of one pool for which one sync of the pool costs less than one of each."""


@dataclass(slots=True)
class Incoming:
    """Bytes of a file on their way in, from an offset of a version.

    Attributes:
        make: gives them, verified; called in a thread.
        data: what it gave.
        filled: they are in; fault: why they could not be had or written. Neither: they are stale.
    """

    live: Live
    version: DataVersion
    offset: int
    make: Callable[[], Bytes]
    data: memoryview | None = None
    length: int = 0
    filled: bool = False
    fault: OSError | HsmError | None = None

    @property
    def range(self) -> Range:
        """What it covers, once it was made."""
        return Range(self.offset, self.offset + self.length)


async def take(lock: trio.Lock | trio.Semaphore) -> None:
    """Acquire it; if it is free, without the turn of the loop that `acquire` takes each time."""
    try:
        lock.acquire_nowait()
    except trio.WouldBlock:
        await lock.acquire()


@asynccontextmanager
async def locks(lives: Sequence[Live]) -> AsyncIterator[None]:
    """Hold the locks of files; always in the order of inodes, so that two never wait crosswise."""
    held: list[trio.Lock] = []
    try:
        for live in sorted({live.ino: live for live in lives}.values(), key=lambda x: x.ino):
            await take(live.lock)
            held.append(live.lock)
        yield
    finally:
        for lock in held:
            lock.release()


def verify(piece: Incoming) -> memoryview:
    """The bytes, made and checked once. In a thread. Raises what `make` raises."""
    if piece.data is None:
        piece.data = memoryview(piece.make())
        piece.length = len(piece.data)
        crash.point("recall.chunk.verified")
    return piece.data


def verify_all(pieces: Sequence[Incoming]) -> None:
    """As `verify`; what ails pieces is noted in them. In a thread."""
    for piece in pieces:
        try:
            verify(piece)
        except (OSError, HsmError) as fault:
            piece.fault = fault


def bring_in(pieces: Sequence[Incoming]) -> None:
    """Verify pieces and write what is absent of them; their files are open. In a thread."""
    for piece in pieces:
        if piece.fault is not None:
            continue
        try:
            view = verify(piece)
            for x in overlap(piece.live.absent, piece.range):
                part = view[x.start - piece.offset : x.end - piece.offset]
                write_all(piece.live.fd, part, x.start)
                if len(part) >= LARGE:
                    begin_writing(piece.live.fd, x.start, len(part))
            crash.point("recall.fill.written")
            piece.filled = True
        except (OSError, HsmError) as fault:
            piece.fault = fault


def sync_bytes(files: Sequence[tuple[InodeNo, int, Pool]]) -> dict[InodeNo, OSError | HsmError]:
    """Make the bytes of open files durable; which failed and why. In a thread."""
    faults: dict[InodeNo, OSError | HsmError] = {}
    pools: dict[Pool, list[tuple[InodeNo, int]]] = {}
    for ino, fd, pool in files:
        pools.setdefault(pool, []).append((ino, fd))
    for pool, some in pools.items():
        if len(some) < MANY or not _synced(pool):
            for ino, fd in some:
                try:
                    os.fdatasync(fd)
                except OSError as fault:
                    faults[ino] = fault
    return faults


def _synced(pool: Pool) -> bool:
    try:
        pool.sync()
    except OSError:
        return False  # whose bytes were not written is told by the files' own syncs
    return True


def append_all(fd: int, data: bytes, offset: int, size: int) -> None:
    """As `write_all` to a file of size bytes; one that fails half-way leaves none beyond them.

    What is there would be shown by a later write behind it, where zeros must be.
    """
    try:
        write_all(fd, data, offset)
    except OSError:
        if offset + len(data) > size:
            os.ftruncate(fd, size)
        raise
