#!/usr/bin/env python3
"""Migration and recall through simulated discs without delays, with two drives.

    tools/bench/media.py [--small 20000] [--large 8] [--runs 3]

Migration is from `hsmctl archive --now --wait` to its end: checksums, image, burn, reading back
from the disc. Recall is a sequential read of released files through the mount, each chunk verified
on the way; of small files also `hsmctl recall --wait` of their folder. Bytes do not compress. The
small files are done once, the large ones in each run. The spool is in memory if there is enough of
it, so that pool and discs have the disk for themselves. Beside each rate: how much of the disk's
own rate for fsynced writes that is, and the processor time of the daemon and its children.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from common import MIB, drain, fill, seconds, warm_memory
from lib.tempfs import TempFs

SMALL = 500_000
LARGE = 1_000_000_000
DISC = 1_100_001_280
"""Bytes of a disc: one large file, so that images, burns and reading back go on side by side."""
SPOOLED = 6
"""Discs that the spool may hold; an image and as much for compressed files count each."""
MEMORY = Path("/dev/shm")
_TICKS = os.sysconf("SC_CLK_TCK")
Found = dict[str, list[float]]


def write_set(folder: Path, count: int, size: int, noise: bytes) -> int:
    """Files that do not compress and differ; how many bytes."""
    folder.mkdir()
    for i in range(count):
        place = folder / f"{i // 500:03d}"
        place.mkdir(exist_ok=True)
        start = (i * 4099) % (len(noise) - MIB)
        fill(place / f"{i:06d}", size, i.to_bytes(8, "little") + noise[start : start + MIB - 8])
    return count * size


def read_all(folder: Path) -> None:
    """Read every file of a tree, one after the other."""
    for place, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            drain(Path(place, name))


def bare_disk(folder: Path, noise: bytes) -> float:
    """MB/s of one sequential write of 1 GB with fsync: what this disk gives at this moment."""
    path = folder / "bare"

    def write() -> None:
        fill(path, LARGE, noise)
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)

    try:
        return LARGE / 1e6 / seconds(write)
    finally:
        path.unlink()


def processor_seconds(hsmfs: TempFs) -> float:
    """User and system time of the daemon and of the children that it waited for."""
    assert hsmfs.daemon is not None
    text = Path(f"/proc/{hsmfs.daemon.pid}/stat").read_text()
    return sum(map(int, text.rpartition(")")[2].split()[11:15])) / _TICKS


class Meter:
    """Rates of works, and what they cost."""

    def __init__(self, hsmfs: TempFs, found: Found, costs: Found) -> None:
        self._hsmfs, self._found, self._costs = hsmfs, found, costs

    def run(self, name: str, size: int, work: Callable[[], object]) -> None:
        before = processor_seconds(self._hsmfs)
        rate = size / 1e6 / seconds(work)
        cost = (processor_seconds(self._hsmfs) - before) * 1e9 / size
        self._found.setdefault(name, []).append(rate)
        self._costs.setdefault(name, []).append(cost)
        print(f"  {name}: {rate:.0f} MB/s, {cost:.2f} processor seconds a GB", flush=True)


def one_set(hsmfs: TempFs, meter: Meter, name: str, count: int, size: int, noise: bytes) -> None:
    """Write, archive, release and recall one set of files, and delete it."""
    folder = hsmfs.mountpoint / name
    total = write_set(folder, count, size, noise)
    os.sync()  # what the writing left to be done is not the migration's

    def order(*words: str) -> None:
        hsmfs.control(*words, folder, timeout_s=3600)

    meter.run(f"migrate {name}", total, lambda: order("archive", "--now", "--wait"))
    order("release")
    meter.run(f"recall {name}", total, lambda: read_all(folder))
    if name == "small":
        order("release")
        meter.run("recall folder", total, lambda: order("recall", "--wait"))
    shutil.rmtree(folder)


@contextmanager
def spool_beside(place: Path) -> Iterator[Path]:
    """A folder for images: in memory if that has room for them twice."""
    found = os.statvfs(MEMORY) if MEMORY.is_dir() else None
    roomy = found is not None and found.f_bavail * found.f_frsize > 2 * SPOOLED * DISC
    spool = Path(tempfile.mkdtemp(prefix="hsmfs-spool-", dir=MEMORY if roomy else place))
    try:
        yield spool
    finally:
        shutil.rmtree(spool, ignore_errors=True)


def measure(small: int, large: int, runs: int, folder: Path) -> dict[str, float]:
    """Medians in MB/s; prints them with their ratio to the bare disk and their cost."""
    noise = os.urandom(64 * MIB)
    found: Found = {}
    costs: Found = {}
    discs = max(small * SMALL, large * LARGE) * 2 // DISC + 12
    bare = []
    for run in range(runs):
        place = folder / f"run{run}"
        place.mkdir()
        with spool_beside(place) as spool:
            settings = {
                "library": {"disc": DISC, "drives": 2, "magazines": -(-discs // 12)},
                "engine": {
                    "spool": spool, "spool_limit": SPOOLED * DISC, "compression": 3,
                    "recall_drives": 0,
                },
            }  # fmt: skip
            bare.append(bare_disk(place, noise))
            print(f"run {run + 1}: bare disk {bare[-1]:.0f} MB/s, spool in {spool}", flush=True)
            with TempFs(settings, folder=place) as hsmfs:
                meter = Meter(hsmfs, found, costs)
                if small and not run:
                    one_set(hsmfs, meter, "small", small, SMALL, noise)
                if large:
                    one_set(hsmfs, meter, "large", large, LARGE, noise)
        shutil.rmtree(place)
    disk = statistics.median(bare)
    print(f"{'':<20}{'MB/s':>10}{'/ bare disk':>14}{'cpu s/GB':>12}   (bare disk {disk:.0f} MB/s)")
    medians = {work: statistics.median(rates) for work, rates in found.items()}
    for work, rate in medians.items():
        cost = statistics.median(costs[work])
        print(f"{work:<20}{rate:>10.0f}{rate / disk:>14.2f}{cost:>12.2f}", flush=True)
    return medians


def main() -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", type=int, default=20_000)
    parser.add_argument("--large", type=int, default=8)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    warm_memory()
    folder = Path(tempfile.mkdtemp(prefix="hsmfs-bench-"))
    try:
        return measure(given.small, given.large, given.runs, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
