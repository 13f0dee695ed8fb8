"""Retention checks cost less than 3 % of create and write throughput, measured side by side.

    tools/prove retention-cost [--rounds 400]

The mount's handlers, over a real catalog and pool in memory, do the same work in turn: some
milliseconds with the checks, some with the module fs/worm.py replaced by nothing, and so on, so
that whatever else the machine does meets both alike. Counted is the processor time of the loop's
thread, in the better halves of the rounds. What the checks add to each operation is compared with
the time that the operation takes through a real mount, also in memory: with disks it takes longer.
A folder with autocommit notes each new file and writes the notes down together, and that counts.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from _verdict import Proof, proof
from lib.tempfs import TempFs

from hsmfs.catalog.catalog import Catalog
from hsmfs.catalog.retention import FOREVER, Folder
from hsmfs.config import Config, DaemonConfig, LibraryConfig, PoolConfig, TrashConfig
from hsmfs.engine.files import Files
from hsmfs.engine.trust import Trust
from hsmfs.fs.operations import Operations
from hsmfs.pool.pools import Pools
from hsmfs.pool.store import Pool
from hsmfs.states import RetentionMode
from hsmfs.types import ROOT

FILES = 40
"""Files of 4 KiB made in a round."""
BLOCKS, BLOCK = 24, os.urandom(1 << 20)
DAY = 86_400 * 10**9
CALLER = types.SimpleNamespace(uid=0, gid=0, pid=os.getpid(), umask=0o022)
SMALL = os.urandom(4096)


class Nothing:
    """In the place of fs/worm.py: nobody is asked."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


class Mount:
    """The handlers of one catalog, with and without the checks."""

    def __init__(self, path: Path) -> None:
        self.catalog = Catalog.create(path / "state")
        self.uuid = Pool.create(path / "pool")
        self.pool = Pool("p", path / "pool")
        self.config = Config(
            daemon=DaemonConfig(mountpoint=path / "mnt", state=path / "state"),
            pool=(PoolConfig(name="p", path=path / "pool"),), trash=TrashConfig(keep="0 s"),
            library=LibraryConfig(kind="simulated", path=path / "library"),
        )  # fmt: skip
        self.serial = 0

    async def start(self) -> None:
        async with self.catalog.write():
            self.pool.id = self.catalog.volumes.register_pool("p", "disk", self.uuid)
        self.files = Files(self.catalog, Pools([self.pool]))
        self.trust = Trust(self.catalog, self.files)
        self.asking = Operations(self.files, self.config, self.trust, None)
        self.plain = Operations(self.files, self.config, self.trust, None)
        self.plain.worm = Nothing()  # type: ignore[assignment]

    async def folder(self, name: bytes, autocommit_ns: int | None, *, retention: bool) -> int:
        async with self.catalog.write():
            ino = self.catalog.names.create(ROOT, name, 0o040755, 0, 0, 1).ino
        if retention:
            await self.trust.retention.set_folder(
                Folder(ino, RetentionMode.COMPLIANCE, 0, DAY, FOREVER, autocommit_ns), "proof"
            )
        return ino

    async def create(self, ops: Operations, parent: int) -> float:
        """Seconds for a round of small files."""
        names = [b"%d" % n for n in range(self.serial, self.serial + FILES)]
        self.serial += FILES
        begun = time.thread_time()
        for name in names:
            info, _ = await ops.create(parent, name, 0o644, os.O_WRONLY | os.O_CREAT, CALLER)
            await ops.write(info.fh, 0, SMALL)
            await ops.release(info.fh)
        await self.trust.autocommit.flush()
        took = time.thread_time() - begun
        while await self.files.flush_closed():
            pass
        return took

    async def write(self, ops: Operations, parent: int) -> float:
        """Seconds for a round of large blocks into one file, which is cut again."""
        name = b"large"
        info, _ = await ops.create(parent, name, 0o644, os.O_RDWR | os.O_CREAT, CALLER)
        begun = time.thread_time()
        for n in range(BLOCKS):
            await ops.write(info.fh, n << 20, BLOCK)
        took = time.thread_time() - begun
        await ops.release(info.fh)
        return took


Work = Callable[[Operations, int], Awaitable[float]]


def best(times: list[float]) -> float:
    """The mean of the better half: what others on the machine disturbed least."""
    return statistics.mean(sorted(times)[: len(times) // 2])


async def compare(
    p: Proof, m: Mount, name: str, work: Work, folders: dict[str, int], n: int, mounted: float
) -> None:
    """Rounds in turn; what the checks add to those without."""
    kinds = [("without", m.plain, folders["ordinary folder"])]
    kinds += [(word, m.asking, ino) for word, ino in folders.items()]
    took: dict[str, list[float]] = {word: [] for word, _, _ in kinds}
    for turn in range(n + 5):
        for word, ops, parent in kinds:
            seconds = await work(ops, parent)
            if turn >= 5:  # the first ones warm everything up
                took[word].append(seconds)
        kinds.append(kinds.pop(0))
    base = best(took.pop("without"))
    count = FILES if name == "create" else BLOCKS
    p.figure(f"{name}, without checks: work of the handlers", 1e6 * base / count, "us")
    for word, times in took.items():
        more = (best(times) - base) / count
        p.figure(f"{name}, {word}: more work", 1e6 * more, "us")
        p.figure(f"{name}, {word}: of the mount's time", 100 * more / mounted, "%", at_most=3)


def through_a_mount(folder: Path) -> dict[str, float]:
    """Seconds for a small file, and for a block of a large one, by a program on a real mount."""
    small, large = [], []
    with TempFs({"trash": {"keep": "0 s"}}, folder=folder) as fs:
        for turn in range(20):
            place = fs.mountpoint / str(turn)
            place.mkdir()
            names = [f"{place}/{n}" for n in range(10 * FILES)]
            begun = time.perf_counter()
            for name in names:
                fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
                os.write(fd, SMALL)
                os.close(fd)
            small.append(time.perf_counter() - begun)
            fd = os.open(place / "large", os.O_WRONLY | os.O_CREAT, 0o644)
            begun = time.perf_counter()
            for _ in range(BLOCKS):
                os.write(fd, BLOCK)
            large.append(time.perf_counter() - begun)
            os.close(fd)
    return {"create": min(small) / (10 * FILES), "write": min(large) / BLOCKS}


async def run(p: Proof, folder: Path, rounds: int, mounted: dict[str, float]) -> None:
    m = Mount(folder)
    try:
        await m.start()
        folders = {
            "retention folder": await m.folder(b"r", None, retention=True),
            "with autocommit": await m.folder(b"a", DAY, retention=True),
            "ordinary folder": await m.folder(b"o", None, retention=False),
        }
        await compare(p, m, "create", m.create, folders, rounds, mounted["create"])
        await compare(p, m, "write", m.write, folders, rounds // 4, mounted["write"])
    finally:
        m.catalog.close()


def main(p: Proof) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=400)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="hsmfs-cost-", dir="/dev/shm"))
    try:
        mounted = through_a_mount(folder / "fs")
        for name, seconds in mounted.items():
            p.figure(f"{name}, through the mount", 1e6 * seconds, "us")
        trio.run(run, p, folder, given.rounds, mounted)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    with proof("retention checks cost less than 3 % of create and write throughput") as p:
        main(p)
