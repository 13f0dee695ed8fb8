#!/usr/bin/env python3
"""Migration and recall through simulated discs without delays.

    tools/bench/media.py [--small 20000] [--large 20] [--runs 5]

Migration is from `hsmctl archive --now --wait` to its end: checksums, image, burn, reading back.
Recall is a sequential read of released files through the mount, each chunk verified on the way.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from pathlib import Path

from common import MIB, drain, fill, seconds
from lib.tempfs import TempFs

SMALL = 500_000
LARGE = 1_000_000_000
GIB = 1 << 30


def write_set(folder: Path, count: int, size: int, noise: bytes) -> int:
    """Files that do not compress and differ; how many bytes."""
    folder.mkdir()
    for i in range(count):
        place = folder / f"{i // 500:03d}"
        place.mkdir(exist_ok=True)
        start = (i * 4099) % (len(noise) - MIB)
        fill(place / f"{i:06d}", size, i.to_bytes(8, "little") + noise[start : start + MIB - 8])
    return count * size


def migrate(hsmfs: TempFs, name: str) -> float:
    """Seconds from the order to the last verified copy."""
    path = hsmfs.mountpoint / name
    return seconds(
        lambda: hsmfs.control("archive", "--now", "--wait", "--release", path, timeout_s=3600)
    )


def recall(folder: Path) -> float:
    """Seconds to read all files of a tree."""

    def walk() -> int:
        return sum(
            drain(Path(place, name))
            for place, _, names in sorted(os.walk(folder))
            for name in sorted(names)
        )

    return seconds(walk)


def measure(small: int, large: int, runs: int, folder: Path) -> dict[str, float]:
    """Medians in MB/s: migration of small and large files, recall of large ones."""
    noise = os.urandom(64 * MIB)
    found: dict[str, list[float]] = {}
    # Discs of a few GB, so that images are built, burned and read back at the same time.
    disc = 2 * GIB
    settings = {
        "library": {"disc": f"{disc}", "drives": 2},
        "engine": {"spool_limit": f"{4 * disc}", "compression": 3, "recall_drives": 0},
    }
    for run in range(runs):
        place = folder / f"run{run}"
        place.mkdir()
        with TempFs(settings, folder=place) as hsmfs:
            for name, count, size in (("small", small, SMALL), ("large", large, LARGE)):
                if count:
                    total = write_set(hsmfs.mountpoint / name, count, size, noise)
                    rate = total / 1e6 / migrate(hsmfs, name)
                    found.setdefault(f"migrate {name}", []).append(rate)
                    took = recall(hsmfs.mountpoint / name)
                    found.setdefault(f"recall {name}", []).append(total / 1e6 / took)
                    shutil.rmtree(hsmfs.mountpoint / name)
        shutil.rmtree(place)
    return {work: statistics.median(rates) for work, rates in found.items()}


def main() -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", type=int, default=20_000)
    parser.add_argument("--large", type=int, default=20)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="hsmfs-bench-"))
    try:
        found = measure(given.small, given.large, given.runs, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for work, rate in found.items():
        print(f"{work:<26}{rate:>10.4g} MB/s")
    return found


if __name__ == "__main__":
    main()
