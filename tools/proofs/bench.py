"""Speed: resident files beside mergerfs, migration and recall, a million inodes in the catalog.

    tools/prove bench [--runs 5] [--only fs|media|catalog]

All peers run in the same run on the same disk; figures are medians.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import catalog
import fs
import media
from _verdict import Proof, proof
from common import MIB, warm_memory

PARTS = ("catalog", "fs", "media")
SMALL_WORKS = ("create 4 KiB", "stat", "open-read-close 4 KiB", "readdir with stat", "unlink")


def prove_fs(p: Proof, runs: int, folder: Path) -> None:
    table = fs.measure(runs, 4096 * MIB, 3000, 100_000, folder)
    table.print()
    for work in ("read", "write"):
        p.figure(f"sequential {work}", table.median(work, "hsmfs"), "MB/s", at_least=1000)
    for work in ("read", "write", *SMALL_WORKS):
        p.figure(f"{work}, by mergerfs", table.ratio(work, "mergerfs"), at_least=0.5)


def prove_media(p: Proof, runs: int, folder: Path) -> None:
    found = media.measure(20_000, 20, runs, folder)
    for work, rate in found.items():
        if work.startswith("migrate"):
            p.figure(work, rate, "MB/s", at_least=300)
        elif work in ("recall large", "recall folder"):
            p.figure(work, rate, "MB/s", at_least=400)
        else:
            p.figure(work, rate, "MB/s")


def prove_catalog(p: Proof, runs: int, folder: Path) -> None:
    bounds = {
        "start": 3.0, "hsmctl find by state": 1.0, "policy selection": 1.0, "resident set": 300.0,
    }  # fmt: skip
    for what, (value, unit) in catalog.measure(1_000_000, folder).items():
        p.figure(what, value, unit, at_most=bounds.get(what))


def main(p: Proof) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", choices=PARTS)
    given = parser.parse_args()
    for part in PARTS:
        if given.only in (None, part):
            if part != "catalog":  # which would lose its pages to it
                p.say("reading a large empty file, so that the machine has given us its memory")
                warm_memory()
            folder = Path(tempfile.mkdtemp(prefix="hsmfs-bench-"))
            try:
                globals()[f"prove_{part}"](p, given.runs, folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    with proof("hsmfs is as fast as it says") as p:
        main(p)
