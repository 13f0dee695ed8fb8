"""Under load, nothing holds the daemon's event loop for more than 50 ms.

    tools/prove loop [--files N] [--rounds N]

The daemon's own watch (hsmfs/watchdog.py) times each step of the loop while thousands of small
files and some large ones are written, archived, released and recalled by many readers at once,
with a storm of metadata, orders and questions beside it. Time that the loop's thread stood in the
run queue because other programs had the processors is told apart, and so is what the host of a
virtual machine took from a processor meanwhile: the daemon can't help either.
Everything, the catalog too, is on the disk of the temporary folder, busy or not with other work.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from _verdict import Proof, proof
from lib.tempfs import TempFs

from hsmfs.cli.client import Client
from hsmfs.cli.links import SocketLink
from hsmfs.limits import LOOP_STALL_SECONDS

FILES, LARGE = 3000, 6
SMALL_BYTES, LARGE_BYTES = 8000, 6 << 20
WRITERS, READERS = 8, 48
QUESTIONS = ("/status", "/queue", "/df", "/volumes", "/drives", "/library", "/waiters", "/trash")


def main(p: Proof) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    tables = {"library": {"drives": 3, "disc": "64 MiB", "magazines": 8}}
    with (
        tempfile.TemporaryDirectory(prefix="hsmfs-loop-") as name,
        TempFs(tables, folder=Path(name), daemon_options=("--sample-stalls",)) as fs,
    ):
        load = Load(fs, given.files)
        with load.beside(storm), load.asking():
            for number in range(given.rounds):
                load.round(p, number)
        seen = Client(SocketLink(fs.socket)).get("/loop")
    report(p, seen, load)


class Load:
    """Files on the mount, and many who use them."""

    def __init__(self, fs: TempFs, files: int) -> None:
        self.fs, self.files = fs, files
        self.random = random.Random(1)
        self.content: dict[Path, bytes] = {}
        self.answers = self.operations = 0

    def round(self, p: Proof, number: int) -> None:
        """Write, archive while more is written, release, and let many read at once."""
        folder = self.fs.mountpoint / f"round-{number}"
        folder.mkdir()
        before = Client(SocketLink(self.fs.socket)).get("/loop")["stalls"]
        self._timed(p, "write", lambda: self.write(folder / "one"))
        orders = {"paths": [{"path": f"/round-{number}"}]}
        with ThreadPoolExecutor(1) as beside:
            more = beside.submit(self.write, folder / "two")
            self._timed(
                p, "archive on two discs",
                lambda: self.order("/archive", orders | {"copies": 2, "now": True, "wait": True}),
            )
            more.result()
        whole = orders | {"copies": 2, "now": True, "wait": True}
        self._timed(p, "archive the rest", lambda: self.order("/archive", whole))
        client = Client(SocketLink(self.fs.socket))
        self._timed(p, "release", lambda: client.post("/release", orders, timeout=None))
        with ThreadPoolExecutor(1) as beside:
            recall = beside.submit(self.order, "/recall", orders | {"wait": True})
            self._timed(p, f"recall, {READERS} readers", lambda: self.read(folder))
            recall.result()
        self._timed(p, "fsck", lambda: self.order("/fsck", {}))
        p.say(f"round {number}: {client.get('/loop')['stalls'] - before} stalls")

    def _timed(self, p: Proof, what: str, act: Callable[[], Any]) -> None:
        began = time.monotonic()
        act()
        p.say(f"  {what:<32} {time.monotonic() - began:6.1f} s")

    def write(self, folder: Path) -> None:
        """Small files in folders of 500, and large ones, by several writers."""
        (folder / "large").mkdir(parents=True)
        for number in range(0, self.files // 2, 500):
            (folder / f"{number // 500}").mkdir()
        wanted = {
            folder / f"{n // 500}" / f"{n}.dat": self.random.randbytes(SMALL_BYTES)
            for n in range(self.files // 2)
        } | {folder / f"large/{n}": self.random.randbytes(LARGE_BYTES) for n in range(LARGE // 2)}

        def one(item: tuple[Path, bytes]) -> None:
            item[0].write_bytes(item[1])

        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(one, wanted.items()))
        self.content |= wanted

    def read(self, folder: Path) -> None:
        """All files of a folder in random order, compared."""
        paths = [path for path in self.content if path.is_relative_to(folder)]
        self.random.shuffle(paths)

        def one(path: Path) -> None:
            if path.read_bytes() != self.content[path]:
                raise AssertionError(f"{path} is not what was written")

        with ThreadPoolExecutor(READERS) as pool:
            list(pool.map(one, paths))

    def order(self, path: str, body: dict[str, Any]) -> None:
        *_, end = Client(SocketLink(self.fs.socket)).lines("POST", path, body)
        if end.get("failed") or end.get("findings"):
            raise AssertionError(f"{path}: {str(end)[:1000]}")

    @contextmanager
    def beside(self, work: Callable[..., None]) -> Iterator[None]:
        """A process that works on a folder of its own until the block ends."""
        folder = self.fs.mountpoint / "storm"
        folder.mkdir()
        context = multiprocessing.get_context("fork")
        over, done = context.Event(), context.Value("L", 0)
        process = context.Process(target=work, args=(folder, over, done))
        process.start()
        try:
            yield
        finally:
            over.set()
            process.join(60)
            if process.exitcode != 0:
                process.kill()
                raise AssertionError(f"the storm ended with {process.exitcode}")
            self.operations = done.value

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Someone who asks the API for everything, all the time."""
        over = threading.Event()

        def ask() -> None:
            client = Client(SocketLink(self.fs.socket))
            while not over.wait(0.05):
                client.get(QUESTIONS[self.answers % len(QUESTIONS)])
                for _ in client.lines("GET", "/find", state="migrated", limit=2000):
                    pass
                self.answers += 1

        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(ask)
            try:
                yield
            finally:
                over.set()
                asked.result()


def storm(folder: Path, over: Any, done: Any) -> None:
    """Names come and go."""
    number = 0
    while not over.is_set():
        number += 1
        place = folder / f"{number % 7}"
        place.mkdir(exist_ok=True)
        for name in range(50):
            path = place / f"{name}"
            path.touch()
            os.chmod(path, 0o600)
            os.setxattr(path, "user.storm", b"x" * 100)
            os.rename(path, place / f"{name}-moved")
        for entry in os.scandir(place):
            entry.stat()
            os.unlink(entry.path)
        done.value += 6 * 50


def report(p: Proof, seen: dict[str, Any], load: Load) -> None:
    p.say("\nsteps of the event loop:")
    bounds = [f"up to {bound * 1000:g} ms" for bound in seen["bounds_s"]] + ["longer"]
    for bound, count in zip(bounds, seen["counts"], strict=True):
        p.say(f"  {bound:<16} {count:>12,}")
    for stall in seen["last"]:
        p.say(f"stall: {stall['task']}: {stall['seconds'] * 1000:.0f} ms\n{stall['stack']}")
    p.figure("files compared", len(load.content))
    p.figure("metadata operations of the storm", load.operations)
    p.figure("rounds of questions to the API", load.answers)
    p.figure("steps", seen["steps"], at_least=50_000)
    wall = seen["worst_wall_s"] * 1000
    p.figure("longest step with that of the run queue and the host", wall, "ms")
    p.figure("steps that only the run queue or the host made longer", seen["preempted"])
    p.figure("longest step", seen["worst_s"] * 1000, "ms", at_most=LOOP_STALL_SECONDS * 1000)
    p.figure("steps longer than 50 ms", seen["stalls"], at_most=0)


if __name__ == "__main__":
    with proof("nothing holds the event loop for more than 50 ms under load") as p:
        main(p)
