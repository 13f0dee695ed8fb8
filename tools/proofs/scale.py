"""Ten times the inodes cost ten times at most, and what touches one file costs the same.

    tools/prove scale [--millions 1 10 100] [--folder DIR]

One catalog a size is built and measured (tools/bench/scale.py says how). Acts on one file may grow
with the depth of an index alone; work on all files may not grow faster than a little above their
number; memory and the daemon's start do not depend on it. Bounds are for the second size, 10
million.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import scale
from _verdict import Proof, proof

EACH = 0.35
"""Exponent of what one act costs, at most: log n would be 0.06, cold caches more."""
WHOLE = 1.25
"""Exponent of work on all files: a catalog that SQLite's caches no longer hold costs more a row."""
FLAT = 0.3
"""Exponent of memory, and of the daemon's start."""
SMALL_S = 0.5
"""What takes less at the largest size says nothing about growth."""
FLATS = (
    "daemon start", "daemon: memory after start", "daemon: memory after policies",
    "daemon: memory with the recalls",
)  # fmt: skip
BOUNDS = {
    "create": 200.0, "lookup, at random": 200.0, "readdir, an entry": 30.0,
    "a recall that is queued": 50.0, "bytes an inode": 400.0, "daemon start": 10.0,
    "find by state, 1,000 files": 2.0,
    "daemon: memory after start": 400.0, "daemon: memory after policies": 400.0,
    "daemon: memory with the recalls": 400.0, "recalls taken up": 60.0,
}  # fmt: skip
"""At the largest size, on two cores that others may be using."""
PEAK_MIB = 400.0
MINUTES = 15
"""For all of it, up to 10 million, on two cores that nobody else uses."""


def judge(p: Proof, sizes: list[int], found: list[scale.Figures]) -> None:
    for what, last in found[-1].items():
        bound = PEAK_MIB if what.endswith("peak memory") else BOUNDS.get(what)
        p.figure(what, round(last.value, 4), last.unit, at_most=bound)
        if what not in found[0] or "recalls queued" in what:
            continue
        values = [figures[what].value for figures in found]
        flat = what in FLATS or what.endswith("peak memory")
        most = EACH if last.each else FLAT if flat else WHOLE
        if last.unit == "s" and last.value < SMALL_S:
            continue
        growth = round(scale.exponent(sizes, values), 2)
        p.figure(f"{what}: exponent", growth, at_most=most)


def main(p: Proof) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--folder", type=Path, help="for the catalogs; 250 bytes an inode, thrice")
    given = parser.parse_args()
    sizes = sorted(n * scale.MILLION for n in given.millions)
    began, found = time.monotonic(), []
    for size in sizes:
        folder = Path(tempfile.mkdtemp(prefix="hsmfs-scale-", dir=given.folder))
        try:
            found.append(scale.measure(size, folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    p.say(f"machine: {scale.machine()}")
    scale.table(sizes, found)
    judge(p, sizes, found)
    bound = MINUTES if sizes[-1] <= 10 * scale.MILLION else None
    p.figure("time", (time.monotonic() - began) / 60, "min", at_most=bound)


if __name__ == "__main__":
    with proof("cost grows no faster than the number of files, and memory not with it") as p:
        main(p)
