#!/usr/bin/env python3
"""One catalog of many million inodes: what each thing costs in time and memory, and how it grows.

    tools/bench/scale.py [--millions 1 10] [--only STEP] [--folder DIR]

Each step runs in a process of its own, so that its memory is its own; `daemon` is a real daemon,
asked by hsmctl. The last column is the exponent of growth between the first and the last size: 0 is
constant, 1 is linear.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import random
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio
from catalog import resident_mib
from common import MIB
from lib import bigcatalog
from lib.tempfs import TempFs

from hsmfs import clock, config
from hsmfs.catalog import check
from hsmfs.catalog.catalog import FILE, Catalog
from hsmfs.catalog.queues import RecallClass
from hsmfs.engine import backups
from hsmfs.engine.policy.match import Ruleset
from hsmfs.engine.release_choice import Wanted, choose
from hsmfs.types import InodeNo, PoolId

MILLION = 1_000_000
OPERATIONS = 20_000
FOLDERS_LISTED = 50
POLICIES = """
[[policy]]
name = "age"
action = "archive"
modified = "730 d"
watermark = true

[[policy]]
name = "folder"
action = "release"
path = ["/dept-07/**"]
watermark = true

[[policy]]
name = "glob"
action = "release"
path = ["/dept-*/**/image-0000*.dcm"]
watermark = true

[[policy]]
name = "name"
action = "release"
file = ["image-00001?.dcm"]
watermark = true
"""
TABLES = {
    # A robot so slow that no disc is in a drive before the daemon is ended.
    "library": {"magazines": 28, "disc": "300 GB", "exchange": "3600 s"},
    "engine": {"spool_limit": "1 TB"},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured. each: it is a cost of one act, which ought not to grow at all."""

    value: float
    unit: str
    each: bool = False


Figures = dict[str, Figure]


# Steps on the catalog alone, each in a process of its own


def _each(name: str, acts: int, work: Callable[[], object], what: str = "us") -> Figures:
    began = time.perf_counter()
    work()
    return {name: Figure(1e6 * (time.perf_counter() - began) / acts, what, each=True)}


async def create(catalog: Catalog, folder: Path) -> Figures:
    """New files one by one, each a transaction of its own, as the mount makes them."""
    pool, _ = catalog.volumes.pools()["pool"]
    parent, mode, now = InodeNo(bigcatalog.folder_ino(0)), stat.S_IFREG | 0o644, time.time_ns()
    made = []
    began = time.perf_counter()
    for n in range(OPERATIONS):
        async with catalog.write():
            name = b"new-%d-%d" % (now, n)
            made.append(catalog.names.create(parent, name, mode, 1000, 1000, now, pool=pool))
    await catalog.sync()
    cost = 1e6 * (time.perf_counter() - began) / OPERATIONS
    async with catalog.write():  # as when they are closed: the next start need not look at them
        for attr in made:
            catalog.inodes.put(attr._replace(dirty=False))
    return {"create": Figure(cost, "us", each=True)}


async def lookup(catalog: Catalog, folder: Path) -> Figures:
    """Names in folders anywhere."""
    rng, folders = random.Random(1), _folders(catalog)
    asked = [
        (
            bigcatalog.folder_ino(rng.randrange(folders)),
            b"image-%06d.dcm" % rng.randrange(bigcatalog.FOLDER_FILES),
        )
        for _ in range(OPERATIONS)
    ]

    def work() -> None:
        assert all(catalog.names.lookup(*names) is not None for names in asked)

    return _each("lookup, at random", OPERATIONS, work)


async def readdir(catalog: Catalog, folder: Path) -> Figures:
    """Folders anywhere, with the attributes of all that is in them."""
    rng, folders = random.Random(2), _folders(catalog)

    def work() -> None:
        for _ in range(FOLDERS_LISTED):
            at = bigcatalog.folder_ino(1 + rng.randrange(folders - 1))
            found = catalog.names.entries(at, 0, 2 * bigcatalog.FOLDER_FILES)
            assert len(found) == bigcatalog.FOLDER_FILES

    return _each("readdir, an entry", FOLDERS_LISTED * bigcatalog.FOLDER_FILES, work)


async def release(catalog: Catalog, folder: Path) -> Figures:
    """What the releaser would release next of the one pool."""
    settings = config.load(folder / "hsmfs.toml")
    rules = Ruleset((), copies=1, head=settings.fs.head)
    wanted = Wanted(PoolId(1), 10**12, 0, clock.now_ns(), {})
    began = time.perf_counter()
    found = await catalog.read(lambda reports: choose(reports, rules, wanted))
    assert found
    return {"releaser's choice": Figure(time.perf_counter() - began, "s")}


async def recalls(catalog: Catalog, folder: Path) -> Figures:
    """A tenth of all files, but no more than a million, is asked for, each by its own request."""
    now, began, count = time.time_ns(), time.perf_counter(), 0
    for folder_no in range(min(_folders(catalog), 10 * MILLION // bigcatalog.FOLDER_FILES)):
        async with catalog.write():
            for i in range(9, bigcatalog.FOLDER_FILES, 10):
                ino = InodeNo(bigcatalog.folder_ino(folder_no) + 1 + i)
                catalog.queues.join_recall(ino, RecallClass.BULK, "bench", now, 0, bigcatalog.SIZE)
                count += 1
    await catalog.sync()
    cost = 1e6 * (time.perf_counter() - began) / count
    return {
        "recalls queued": Figure(count, ""),
        "a recall that is queued": Figure(cost, "us", each=True),
    }


async def backup(catalog: Catalog, folder: Path) -> Figures:
    """A first backup, and a further one after a few changes."""
    catalog.close()
    settings, dest, found = config.load(folder / "hsmfs.toml"), folder / "backup", {}
    for name in ("first", "further"):
        began = time.perf_counter()
        made = await backups.offline(settings, dest, 1)
        found[f"backup, {name}"] = Figure(time.perf_counter() - began, "s")
        found[f"backup, {name}: written"] = Figure(made.new_bytes / MIB, "MiB")
        changed = Catalog.open(folder / "state")
        await create(changed, folder)
        changed.close()
    shutil.rmtree(dest)
    return found


async def fsck(catalog: Catalog, folder: Path) -> Figures:
    """All invariants of the catalog; nothing may be found."""
    took: dict[str, float] = {}
    names: list[str] = []

    def begun(name: str) -> None:
        took[name] = time.perf_counter()
        names.append(name)

    began = time.perf_counter()
    found = await check.run(catalog, begun)
    ended = time.perf_counter()
    assert not found, found[:5]
    ends = [took[name] for name in names[1:]] + [ended]
    each = {name: end - took[name] for name, end in zip(names, ends, strict=True)}
    slow = sorted(each, key=each.__getitem__)
    print("; ".join(f"{name} {each[name]:.1f} s" for name in slow[:-6:-1]), file=sys.stderr)
    return {
        "fsck of the catalog": Figure(ended - began, "s"),
        "fsck: pages and rows, by SQLite": Figure(each["file_is_sound"], "s"),
        "fsck: indexes": Figure(each["indexes_hold_their_tables"], "s"),
    }


STEPS = {f.__name__: f for f in (create, lookup, readdir, release, recalls, backup, fsck)}


def _folders(catalog: Catalog) -> int:
    rows = catalog.db.execute(
        "SELECT count(*) FROM dentries WHERE parent BETWEEN 2 AND ?", (bigcatalog.DEPARTMENTS + 1,)
    )
    return int(rows.get)


def run_step(name: str, folder: Path) -> None:
    """In the child: print the figures and the most memory that the process had, as JSON."""

    async def work() -> Figures:
        catalog = Catalog.open(folder / "state")
        try:
            return await STEPS[name](catalog, folder)
        finally:
            if name != "backup":
                await catalog.checkpoint()
                catalog.close()

    found = trio.run(work)
    peak = next(
        int(line.split()[1]) / 1024
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    )
    found[f"{name}: peak memory"] = Figure(peak, "MiB")
    print(json.dumps({what: (f.value, f.unit, f.each) for what, f in found.items()}))


def step(name: str, folder: Path) -> Figures:
    """Run one step in a process of its own."""
    command = [sys.executable, __file__, "--step", name, "--folder", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return {what: Figure(*given) for what, given in json.loads(done.stdout).items()}


# Steps by a real daemon


def daemon(hsmfs: TempFs) -> Figures:
    """Start, policies and find of a daemon on it."""
    found: Figures = {}
    with contextlib.ExitStack() as stack:
        stack.callback(hsmfs.kill)
        found["daemon start"] = Figure(_seconds(hsmfs.start), "s")
        assert hsmfs.daemon is not None
        found["daemon: memory after start"] = Figure(resident_mib(hsmfs.daemon.pid), "MiB")
        for policy in ("age", "folder", "glob", "name"):
            ask = partial(hsmfs.ask, "policy", "run", "--dry-run", policy, timeout_s=3600)
            found[f"policy by {policy}"] = Figure(min(_seconds(ask) for _ in range(2)), "s")
        few = ("find", "--state", "migrated", "--limit", "1000")
        found["find by state, 1,000 files"] = Figure(_seconds(partial(hsmfs.control, *few)), "s")
        found["daemon: memory after policies"] = Figure(resident_mib(hsmfs.daemon.pid), "MiB")
        hsmfs.stop()
    return found


def queued(hsmfs: TempFs) -> Figures:
    """Start with the recalls in the queue, until the engine has taken up all of them."""
    found: Figures = {}
    with contextlib.ExitStack() as stack:
        stack.callback(hsmfs.kill)
        began = time.perf_counter()
        hsmfs.start()
        found["daemon start with the recalls"] = Figure(time.perf_counter() - began, "s")
        while "recalls taken up" not in hsmfs.log_tail(1000):
            time.sleep(0.5)
        found["recalls taken up"] = Figure(time.perf_counter() - began, "s")
        assert hsmfs.daemon is not None
        found["daemon: memory with the recalls"] = Figure(resident_mib(hsmfs.daemon.pid), "MiB")
    return found


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(count: int, folder: Path, only: Sequence[str] = ()) -> Figures:
    """Build a catalog of count inodes in a folder and take every figure of it."""
    policies = folder / "policies.toml"
    folder.mkdir(parents=True, exist_ok=True)
    policies.write_text(POLICIES)
    tables = {**TABLES, "engine": {**TABLES["engine"], "policies": policies}}
    hsmfs = TempFs(tables, folder=folder, ready_s=3600.0)
    hsmfs.lay_out()
    found: Figures = {}
    if not (folder / "state" / FILE).exists():
        hsmfs.control("init")
        with contextlib.ExitStack() as stack:  # it sees the discs
            stack.callback(hsmfs.kill)
            hsmfs.start()
            hsmfs.stop()
        found["build"] = Figure(bigcatalog.fill(folder / "state", count), "s")
    size = os.path.getsize(folder / "state" / FILE)
    found["bytes an inode"] = Figure(size / count, "bytes", each=True)
    runs: Mapping[str, Callable[[], Figures]] = {
        "daemon": lambda: daemon(hsmfs),
        **{name: partial(step, name, folder) for name in STEPS},
        "queued": lambda: queued(hsmfs),
    }
    for name, run in runs.items():
        if not only or name in only:
            print(f"{count:,} inodes: {name}", file=sys.stderr, flush=True)
            found |= run()
    return found


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Of growth between the first size and the last."""
    if len(sizes) < 2 or not values[0] or not values[-1]:
        return 0.0
    return math.log(values[-1] / values[0]) / math.log(sizes[-1] / sizes[0])


def machine() -> str:
    """The machine that the figures are of."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    kernel = platform.release()
    return f"{os.cpu_count()} x {model}, {memory:.0f} GiB of memory, Linux {kernel}"


def table(sizes: Sequence[int], found: Sequence[Figures]) -> None:
    """A row a figure, a column a size, and the exponent."""
    heads = "".join(f"{size / MILLION:>10,g} M" for size in sizes)
    print(f"{'inodes':<36}{'unit':<7}{heads}{'exponent':>10}")
    for what, first in found[-1].items():
        values = [figures[what].value for figures in found if what in figures]
        shown = "".join(f"{value:>12.4g}" for value in values)
        growth = f"{exponent(sizes, values):>10.2f}" if len(values) == len(sizes) > 1 else ""
        print(f"{what:<36}{first.unit:<7}{shown}{growth}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--only", nargs="+", default=(), choices=[*STEPS, "daemon", "queued"])
    parser.add_argument("--folder", type=Path, help="Kept there, and taken as it is if there.")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        run_step(given.step, given.folder)
        return
    sizes = [n * MILLION for n in given.millions]
    found = []
    for size in sizes:
        folder = given.folder and given.folder / str(size)
        folder = folder or Path(tempfile.mkdtemp(prefix="hsmfs-scale-"))
        try:
            found.append(measure(size, folder, given.only))
        finally:
            if not given.folder:
                shutil.rmtree(folder, ignore_errors=True)
    print(f"machine: {machine()}")
    table(sizes, found)


if __name__ == "__main__":
    main()
