#!/usr/bin/env python3
"""Resident files: hsmfs, mergerfs and a bare directory, side by side in one run.

    tools/bench/fs.py [--runs 5] [--size-mib 4096] [--files 3000] [--entries 100000]

Sequential reads are of a file whose pages the mount has just forgotten and the pool has not, so
they measure the path through FUSE. Names are looked up cold.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

from common import MIB, Table, drain, drop_kernel_caches, fill, forget_pages, mergerfs, seconds
from lib.tempfs import TempFs

SMALL = 4096


def sequential(
    table: Table, target: str, folder: Path, size: int, block: bytes, warm: Path
) -> None:
    """One large file; warm is a name beside the targets for one that is thrown away."""
    path = folder / "large"
    # Each target finds free pages that the host has just given us (see warm_memory), and a disk
    # that has nothing left to write.
    fill(warm, size, block)
    warm.unlink()
    os.sync()
    table.add("write", target, size / 1e6 / seconds(lambda: fill(path, size, block)), "MB/s")
    forget_pages(path)
    drain(path)
    forget_pages(path)
    table.add("read", target, size / 1e6 / seconds(lambda: drain(path)), "MB/s")
    path.unlink()


def small_files(table: Table, target: str, folder: Path, count: int) -> None:
    place = folder / "small"
    place.mkdir()
    names = [f"{place}/{i:06d}" for i in range(count)]
    data = os.urandom(SMALL)

    def create() -> None:
        for name in names:
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            os.write(fd, data)
            os.close(fd)

    def stat() -> None:
        for name in names:
            os.stat(name)

    def read() -> None:
        for name in names:
            fd = os.open(name, os.O_RDONLY)
            os.read(fd, SMALL)
            os.close(fd)

    def unlink() -> None:
        for name in names:
            os.unlink(name)

    for work, call in (
        ("create 4 KiB", create),
        ("stat", stat),
        ("open-read-close 4 KiB", read),
        ("unlink", unlink),
    ):
        if work != "unlink":
            drop_kernel_caches()
        table.add(work, target, count / seconds(call), "files/s")
    place.rmdir()


def listing(table: Table, target: str, place: Path) -> None:
    drop_kernel_caches()

    def walk() -> int:
        with os.scandir(place) as entries:
            return sum(entry.stat(follow_symlinks=False).st_size for entry in entries)

    count = len(os.listdir(place))
    drop_kernel_caches()
    table.add("readdir with stat", target, count / seconds(walk), "files/s")


def measure(runs: int, size: int, files: int, entries: int, folder: Path) -> Table:
    """All works, in turn on each target, runs times."""
    table = Table(["hsmfs", "mergerfs", "bare"])
    block = os.urandom(MIB)
    bare = folder / "bare"
    bare.mkdir()
    # Deleted files go at once, on both sides.
    settings = {"trash": {"keep": "0 s"}}
    with (
        TempFs(settings, folder=folder / "hsmfs") as hsmfs,
        mergerfs(folder / "branch", folder / "mergerfs") as peer,
    ):
        targets = {"hsmfs": hsmfs.mountpoint, "mergerfs": peer, "bare": bare}
        for place in targets.values():
            many = place / "many"
            many.mkdir()
            for i in range(entries):
                os.close(os.open(f"{many}/{i:06d}", os.O_WRONLY | os.O_CREAT, 0o644))
        for _ in range(runs):
            for work in (
                lambda name, place: sequential(
                    table, name, place, size, block, folder / "warm"
                ),
                lambda name, place: small_files(table, name, place, files),
                lambda name, place: listing(table, name, place / "many"),
            ):
                for name, place in targets.items():
                    work(name, place)
    return table


def main() -> Table:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--size-mib", type=int, default=4096)
    parser.add_argument("--files", type=int, default=3000)
    parser.add_argument("--entries", type=int, default=100_000)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="hsmfs-bench-"))
    try:
        table = measure(given.runs, given.size_mib * MIB, given.files, given.entries, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    table.print()
    return table


if __name__ == "__main__":
    main()
