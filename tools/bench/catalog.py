#!/usr/bin/env python3
"""A catalog of a million inodes: memory, start, selection by policy, find by state.

    tools/bench/catalog.py [--inodes 1000000]
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import stat
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import trio
from common import MIB, seconds
from lib.tempfs import TempFs

from hsmfs.catalog.catalog import Catalog
from hsmfs.states import FileState
from hsmfs.types import ROOT

FOLDER_FILES = 1000
FOLDERS_AT_ONCE = 50
SIZE = 500_000
RUNS = 5
DAY_NS = 86_400 * 10**9
MIGRATED_EVERY = 100
"""One file in so many is a stub."""


async def build(state: Path, count: int) -> None:
    """Folders of a thousand small files, with ages spread over three years."""
    catalog = Catalog.open(state)
    pool, _ = catalog.volumes.pools()["pool"]
    now = time.time_ns()
    regular, folder_mode = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755
    files = 0
    while files < count:
        async with catalog.write():
            for _ in range(min(FOLDERS_AT_ONCE, -(-(count - files) // FOLDER_FILES))):
                name = b"%06d" % (files // FOLDER_FILES)
                folder = catalog.names.create(ROOT, name, folder_mode, 0, 0, now)
                for i in range(min(FOLDER_FILES, count - files)):
                    then = now - (files % 1100) * DAY_NS
                    attr = catalog.names.create(
                        folder.ino, b"image-%06d.dcm" % i, regular, 1000, 1000, then, pool=pool
                    )
                    catalog.inodes.put(attr._replace(size=SIZE, dirty=False))
                    if files % MIGRATED_EVERY == 0:
                        catalog.inodes.set_state(attr.ino, FileState.MIGRATED)
                    files += 1
        await catalog.checkpoint()
    await catalog.sync()
    await catalog.checkpoint()
    catalog.close()


def median(work: Callable[[], object]) -> float:
    """The median of RUNS calls, in seconds."""
    return statistics.median(seconds(work) for _ in range(RUNS))


def resident_mib(pid: int) -> float:
    """VmRSS of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / MIB
    raise RuntimeError(f"no VmRSS for process {pid}")


POLICIES = """
[[policy]]
name = "cold"
action = "archive"
modified = "730 d"
watermark = true
"""


def measure(count: int, folder: Path) -> dict[str, tuple[float, str]]:
    """Each figure with its unit."""
    policies = folder / "policies.toml"
    policies.write_text(POLICIES)
    hsmfs = TempFs({"engine": {"policies": policies}}, folder=folder)
    hsmfs.lay_out()
    hsmfs.control("init")
    trio.run(build, folder / "state", count)
    found: dict[str, tuple[float, str]] = {"inodes": (count, "")}
    with contextlib.ExitStack() as stack:
        stack.callback(hsmfs.kill)
        found["start"] = (seconds(hsmfs.start), "s")
        assert hsmfs.daemon is not None
        find = ("find", "--state", "migrated")
        found["hsmctl find by state"] = (median(lambda: hsmfs.control(*find)), "s")
        lines = len(hsmfs.control(*find).splitlines())
        found["files found"] = (lines, "")
        run = ("policy", "run", "--dry-run")
        found["policy selection"] = (median(lambda: hsmfs.control(*run)), "s")
        found["resident set"] = (resident_mib(hsmfs.daemon.pid), "MiB")
        hsmfs.stop()
    return found


def main() -> dict[str, tuple[float, str]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inodes", type=int, default=1_000_000)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="hsmfs-bench-"))
    try:
        found = measure(given.inodes, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for what, (value, unit) in found.items():
        print(f"{what:<26}{value:>12.6g} {unit}")
    return found


if __name__ == "__main__":
    main()
