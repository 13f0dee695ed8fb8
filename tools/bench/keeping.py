#!/usr/bin/env python3
"""What it costs to set aside what no disc has before it is changed in place; ADR 18.

    tools/bench/keeping.py [--count 300] [--folder DIR]

Each act is done in turn by two sets of the same files, of which one keeps nothing; microseconds.
"""

from __future__ import annotations

import argparse
import os
import stat
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio
from common import MIB

from hsmfs.catalog.catalog import Catalog
from hsmfs.config import VersionsConfig
from hsmfs.engine.events import Events
from hsmfs.engine.files import Files
from hsmfs.engine.keeping import Keeping
from hsmfs.engine.live import Live
from hsmfs.pool.pools import Pools
from hsmfs.pool.store import Pool
from hsmfs.types import ROOT

HOUR = 3600.0
SMALL = os.urandom(4096)


class Side:
    """Files with or without keeping."""

    def __init__(self, path: Path, kept: bool) -> None:
        self.catalog = Catalog.create(path / "state")
        self.uuid, self.kept = Pool.create(path / "pool"), kept
        self.pool = Pool("p", path / "pool")
        self.serial = 0

    async def start(self) -> None:
        async with self.catalog.write():
            self.pool.id = self.catalog.volumes.register_pool("p", "disk", self.uuid)
        self.files = Files(self.catalog, Pools([self.pool]))
        if self.kept:
            self.files.keeping = Keeping(
                self.catalog, self.files, Events(), VersionsConfig(keep_share=100), HOUR
            )

    async def new(self, size: int) -> Live:
        """A file that is open for writing."""
        self.serial += 1
        async with self.catalog.write():
            attr = self.catalog.names.create(
                ROOT, b"%d" % self.serial, stat.S_IFREG | 0o644, 0, 0, time.time_ns(),
                pool=self.pool.id,
            )  # fmt: skip
        self.files.born(attr)
        live = self.files.open(attr.ino, write=True)
        await self.files.write(live, 0, SMALL if size == len(SMALL) else os.urandom(size))
        return live

    async def made(self, size: int, *, still: bool) -> Live:
        """One that is closed, written down and, perhaps, an hour old; opened again."""
        live = await self.new(size)
        self.files.close(live, write=True)
        while await self.files.flush_closed():
            pass
        if still:
            path, then = self.pool.path_of(live.ino), time.time() - HOUR
            if size > MIB:
                os.sync()
            os.utime(path, (then, then))
        return self.files.open(live.ino, write=True)


Act = Callable[[Side], Awaitable[float]]


async def create(side: Side) -> float:
    begun = time.perf_counter()
    live = await side.new(len(SMALL))
    side.files.close(live, write=True)
    return time.perf_counter() - begun


async def write_on(side: Side) -> float:
    live = await side.new(len(SMALL))
    begun = time.perf_counter()
    await side.files.write(live, 0, SMALL)
    took = time.perf_counter() - begun
    side.files.close(live, write=True)
    return took


def change(size: int, at: int, *, still: bool) -> Act:
    """The first write after an opening; at a place, or cut to nothing at -1."""

    async def act(side: Side) -> float:
        live = await side.made(size, still=still)
        begun = time.perf_counter()
        if at < 0:
            await side.files.truncate(live, 0)
        else:
            await side.files.write(live, at, SMALL)
        took = time.perf_counter() - begun
        side.files.close(live, write=True)
        return took

    return act


ACTS: dict[str, Act] = {
    "a new file of 4 KiB": create,
    "a further write of 4 KiB": write_on,
    "first write, changed just now": change(65_536, 0, still=False),
    "first write, lay still: it grows": change(65_536, 65_536, still=True),
    "first write, lay still: 64 KiB": change(65_536, 0, still=True),
    "first write, lay still: 16 MiB": change(16 * MIB, 0, still=True),
    "emptied, lay still: 16 MiB": change(16 * MIB, -1, still=True),
}


async def run(folder: Path, count: int) -> None:
    sides = [Side(folder / "none", False), Side(folder / "kept", True)]
    for side in sides:
        await side.start()
    print(f"{'':<36}{'nothing kept':>14}{'kept':>14}  us, medians")
    for name, act in ACTS.items():
        took: list[list[float]] = [[], []]
        for _ in range(max(count // 10, 3) if "MiB" in name else count):
            for side, times in zip(sides, took, strict=True):
                times.append(await act(side))
        none, kept = (sorted(times)[len(times) // 2] for times in took)
        print(f"{name:<36}{1e6 * none:>14.1f}{1e6 * kept:>14.1f}")
    for side in sides:
        side.catalog.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--folder", type=Path, default=None, help="where; else as for mktemp")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hsmfs-keeping-", dir=given.folder) as name:
        trio.run(run, Path(name), given.count)


if __name__ == "__main__":
    main()
