"""Speed over NFS 4.2: hsmfs against a bare folder and against mergerfs, by one kernel in one run.

    tools/prove nas-bench

In a real kernel (User Mode Linux), all three in its memory, where an fsync costs nothing; the
server's and the client's caches are dropped before each reading. hsmfs must reach half of what
mergerfs does, which is a FUSE filesystem, too. What hsmfs answers is durable, names as well; what
the others answer about names is not.

The three take turns, each round in another order, after one round that does not count; the figure
is the median of the rounds' ratios. Rounds are short and many, since a machine that others use,
too, is not as fast in each.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from _verdict import Proof, proof
from lib.lab import READY_S, inside
from lib.nas import nfs
from lib.tempfs import TempFs

CLAIM = "over NFS 4.2 hsmfs has at least half of the speed of mergerfs"
LIMIT_S = 560
MEMORY = "3072M"
LEAST = 0.5
MIB = 1 << 20
BIG = 64
"""MiB read and written."""
SMALL = 50
SMALL_BYTES = 8192
NAMES = 20_000
RIVALS = ("hsmfs", "mergerfs")


def write(folder: Path) -> float:
    """MiB/s of a file written and synced."""
    block = os.urandom(MIB)
    began = time.monotonic()
    fd = os.open(folder / "big", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for _ in range(BIG):
        os.write(fd, block)
    os.fsync(fd)
    os.close(fd)
    return BIG / (time.monotonic() - began)


def read(folder: Path) -> float:
    """MiB/s of that file read."""
    nfs.drop_caches()
    began = time.monotonic()
    fd = os.open(folder / "big", os.O_RDONLY)
    while os.read(fd, MIB):
        pass
    os.close(fd)
    return BIG / (time.monotonic() - began)


def create(folder: Path) -> float:
    """Small files a second: open, write, close."""
    place = folder / f"small{time.monotonic_ns()}"
    place.mkdir()
    data = os.urandom(SMALL_BYTES)
    began = time.monotonic()
    for number in range(SMALL):
        (place / f"{number}").write_bytes(data)
    return SMALL / (time.monotonic() - began)


def listing(folder: Path) -> float:
    """Entries a second of `ls -l` of a large folder."""
    nfs.drop_caches()
    began = time.monotonic()
    with os.scandir(folder / "many") as entries:
        count = sum(1 for entry in entries if entry.stat(follow_symlinks=False))
    if count != NAMES:
        raise RuntimeError(f"{folder}/many has {count} entries")
    return NAMES / (time.monotonic() - began)


WORKS: dict[str, tuple[Callable[[Path], float], str, int]] = {
    "sequential write": (write, "MiB/s", 11),
    "sequential read": (read, "MiB/s", 7),
    "small files made": (create, "/s", 41),
    "ls -l of 20,000": (listing, "/s", 5),
}
"""With the rounds that count of each."""


def order(names: list[str], number: int) -> list[str]:
    """Who comes first in a round of this number."""
    first = number % len(names)
    return names[first:] + names[:first]


def offer(fs: TempFs) -> dict[str, Path]:
    """The three, with their large folder, as a client has them."""
    places = {"bare": Path("/run/bare"), "mergerfs": Path("/run/merged"), "hsmfs": fs.mountpoint}
    branch = Path("/run/branch")
    for folder in (places["bare"], places["mergerfs"], branch):
        folder.mkdir()
    nfs.sh("mount", "-t", "tmpfs", "bare", places["bare"])
    options = "allow_other,minfreespace=0,cache.files=auto-full,noforget,inodecalc=path-hash"
    nfs.sh("mergerfs", "-o", options, branch, places["mergerfs"])
    lines = [
        f"{places[name]} {nfs.CLIENTS}(rw,fsid={number},no_root_squash,no_subtree_check)\n"
        for number, name in enumerate(("bare", "mergerfs"), 10)
    ]
    Path("/etc/exports.d/bench.exports").write_text("".join(lines))
    fs.control("export", "nfs", fs.mountpoint, "--to", nfs.CLIENTS, "--options", "no_root_squash")
    for place in (places["bare"], branch, places["hsmfs"]):
        (place / "many").mkdir()
        for number in range(NAMES):
            (place / "many" / f"{number:06}.dcm").touch()
    return {name: nfs.mount(place, "v4.2") for name, place in places.items()}


def live(p: Proof) -> None:
    """Everything, inside the lab's kernel."""
    nfs.serve()
    with TempFs({"daemon": {"log_level": "warning"}}, folder=Path("/run/hsmfs"),
                ready_s=READY_S) as fs:  # fmt: skip
        began = time.monotonic()
        mounts = offer(fs)
        p.say(f"{NAMES} names made in each: {time.monotonic() - began:.0f} s")
        p.say(f"{'':<18}" + "".join(f"{name:>14}" for name in mounts))
        for work, (run, unit, rounds) in WORKS.items():
            found: dict[str, list[float]] = {name: [] for name in mounts}
            for number in range(rounds + 1):
                for name in order(list(mounts), number):
                    found[name].append(run(mounts[name]))
            for values in found.values():
                del values[0]  # the first time much is looked up, or grows, that then is there
            medians = [statistics.median(values) for values in found.values()]
            p.say(f"{work:<18}" + "".join(f"{v:>14,.0f}" for v in medians) + f" {unit}")
            ratios = [ours / peers for ours, peers in zip(*(found[x] for x in RIVALS), strict=True)]
            low, _, high = statistics.quantiles(ratios, n=4)
            p.say(f"  half of {rounds} rounds between {low:.2f} and {high:.2f}")
            p.figure(f"{work}: hsmfs against mergerfs", statistics.median(ratios), "x",
                     at_least=LEAST)  # fmt: skip
        for folder in mounts.values():
            nfs.umount(folder)
        Path("/etc/exports.d/bench.exports").unlink()
        nfs.sh("exportfs", "-r")
        subprocess.run(["umount", "/run/merged"], check=True)


def main() -> None:
    if "--inside" in sys.argv:
        with proof(CLAIM) as p:
            live(p)
    code = inside([__file__, "--inside"], memory=MEMORY, limit_s=LIMIT_S, modules=nfs.MODULES)
    if code == 124:
        print(f"NOT PROVED: {CLAIM}: the lab's kernel ended early")
    sys.exit(1 if code else 0)


if __name__ == "__main__":
    main()
