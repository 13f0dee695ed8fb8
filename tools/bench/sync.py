#!/usr/bin/env python3
"""What it costs to make a new name durable, by the redo log and by a commit and the WAL; ADR 17.

    tools/bench/sync.py [--count 300] [--folder DIR]

And what a store into a mapped page costs if the page was synced before and if not.
"""

from __future__ import annotations

import argparse
import mmap
import os
import stat
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio
from common import MIB

from hsmfs import durable
from hsmfs.catalog.catalog import Catalog
from hsmfs.types import ROOT

RECORD = 500
"""Bytes of a new name in the redo log."""


def show(what: str, took: list[float]) -> None:
    """Median, 99th percentile and worst."""
    took.sort()
    middle, high = took[len(took) // 2], took[len(took) * 99 // 100]
    print(f"{what:<40}{1e6 * middle:>10.1f}{1e6 * high:>10.1f}{1e6 * took[-1]:>10.1f} us")


async def syncs(state: Path, count: int) -> None:
    """One name after another."""
    catalog = Catalog.create(state)
    wal = os.open(f"{catalog.path}-wal", os.O_RDWR)

    async def by_wal() -> None:
        await catalog.commit()
        await durable.flushed(wal, data_only=True)

    async def many(sync: Callable[[], Awaitable[None]], letter: bytes) -> list[float]:
        took = []
        for number in range(count):
            began = time.perf_counter()
            async with catalog.write():
                name = letter + b"%d" % number
                catalog.names.create(ROOT, name, stat.S_IFREG | 0o644, 0, 0, time.time_ns())
            await sync()
            took.append(time.perf_counter() - began)
        return took

    show("new name, commit and WAL", await many(by_wal, b"w"))
    await catalog.sync()
    show("new name, redo log", await many(catalog.sync, b"r"))
    os.close(wal)
    catalog.close()


def stores(path: Path, count: int) -> None:
    """Records one behind another into a mapped file with blocks of its own."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, bytes(MIB), 0)
    os.fsync(fd)
    ring = mmap.mmap(fd, MIB)
    for what, synced in (("store, page not synced", False), ("store, page synced", True)):
        took = []
        for number in range(count):
            at = number * RECORD % (MIB - RECORD)
            began = time.perf_counter()
            ring[at : at + RECORD] = bytes(RECORD)
            took.append(time.perf_counter() - began)
            if synced:
                os.fdatasync(fd)
        show(what, took)
    ring.close()
    os.close(fd)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hsmfs-bench-", dir=given.folder) as name:
        print(f"{'':<40}{'median':>10}{'99 %':>10}{'worst':>10}")
        trio.run(syncs, Path(name, "state"), given.count)
        stores(Path(name, "mapped"), given.count)


if __name__ == "__main__":
    main()
