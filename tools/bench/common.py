"""What the benchmarks share: medians, a table with ratios, and a peer to compare with."""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

MIB = 1 << 20


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


_held: list[int] = []


def warm_memory() -> None:
    """Make the machine own its memory before anything is measured.

    A virtual machine is given each page at its first touch, at a few hundred MB/s, and pages that
    are free go back to the host within seconds: without this a benchmark measures the host. So the
    page cache is filled by reading a file that is one hole; its pages are clean, and the kernel
    takes them whenever somebody needs memory. The file is held until the process ends.
    """
    pages = int(os.sysconf("SC_AVPHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE")
    if not _held:
        fd, name = tempfile.mkstemp()
        os.unlink(name)
        _held.append(fd)
    hole = _held[0]
    size = max(os.fstat(hole).st_size, pages)
    os.truncate(hole, size)
    buffer = bytearray(4 * MIB)
    for at in range(0, size, len(buffer)):
        os.preadv(hole, [buffer], at)


def drop_kernel_caches() -> None:
    """Forget names and inodes, so that the next look-ups reach the filesystem."""
    Path("/proc/sys/vm/drop_caches").write_text("2\n")


@contextlib.contextmanager
def mergerfs(branch: Path, mountpoint: Path) -> Iterator[Path]:
    """A mergerfs mount over one folder, with its defaults."""
    if shutil.which("mergerfs") is None:
        raise SystemExit("mergerfs is not installed: apt-get install mergerfs")
    branch.mkdir(parents=True)
    mountpoint.mkdir(parents=True)
    subprocess.run(["mergerfs", str(branch), str(mountpoint)], check=True)
    try:
        yield mountpoint
    finally:
        subprocess.run(["umount", str(mountpoint)], check=True)


class Table:
    """Medians of several runs of the same works on several targets, with ratios to the first."""

    def __init__(self, targets: list[str]) -> None:
        self.targets = targets
        self.runs: dict[str, dict[str, list[float]]] = {}
        self.units: dict[str, str] = {}

    def add(self, work: str, target: str, value: float, unit: str) -> None:
        """One more run; larger is better."""
        self.runs.setdefault(work, {}).setdefault(target, []).append(value)
        self.units[work] = unit

    def median(self, work: str, target: str) -> float:
        return statistics.median(self.runs[work][target])

    def ratio(self, work: str, peer: str) -> float:
        """Ours by theirs, medians."""
        return self.median(work, self.targets[0]) / self.median(work, peer)

    def print(self) -> None:
        peers = self.targets[1:]
        heads = [f"{target:>12}" for target in self.targets]
        print(f"{'':<26}{'unit':<9}{''.join(heads)}" + "".join(f"{'/ ' + p:>13}" for p in peers))
        for work, found in self.runs.items():
            values = "".join(f"{statistics.median(found[t]):>12.4g}" for t in self.targets)
            ratios = "".join(f"{self.ratio(work, p):>13.2f}" for p in peers)
            print(f"{work:<26}{self.units[work]:<9}{values}{ratios}", flush=True)


def fill(path: Path, size: int, block: bytes) -> None:
    """Write size bytes in calls of one block."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        left = size
        while left > 0:
            left -= os.write(fd, block[:left] if left < len(block) else block)
    finally:
        os.close(fd)


def drain(path: Path, block: int = MIB) -> int:
    """Read a file to its end; how many bytes."""
    fd = os.open(path, os.O_RDONLY)
    buffer = bytearray(block)
    total = 0
    try:
        while got := os.readv(fd, [buffer]):
            total += got
    finally:
        os.close(fd)
    return total


def forget_pages(path: Path) -> None:
    """Drop the page cache of this very file (of the mount, not of what lies beneath)."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
