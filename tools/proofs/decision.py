"""A decision of the scheduler costs under a millisecond with a million requests queued.

    tools/prove decision [--requests 1000000]

many discs: the requests lie on the 3,336 discs of a 42U library with 18 drives; each decision is
followed by what it causes: discs come, are read and go, and new requests arrive.
a disc each: every request is on a disc of its own, so a million claims compete.
one disc: all on one disc, of which the next request to read is taken, and another one comes.
in the daemon: its own decision (hsmfs/engine/mounts.py) while all 3,336 discs are wanted, some of
which failed in a drive before.
"""

from __future__ import annotations

import argparse
import gc
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio
import trio.testing

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from _verdict import Proof, proof
from lib import traces

from hsmfs import config
from hsmfs.catalog.catalog import Catalog
from hsmfs.catalog.queues import RecallClass
from hsmfs.engine.events import Events
from hsmfs.engine.journal import CatalogJournal
from hsmfs.engine.mounts import Mounts
from hsmfs.engine.schedule import Assign, Board, ClaimView, DiscOrder, DriveView, Purpose, PutAway
from hsmfs.engine.setup import init
from hsmfs.library import configured
from hsmfs.library.robot import Robot
from hsmfs.simulate.report import quantile

DRIVES = 18
DISCS = 3336
DECISIONS = 5000
LIMIT_MS = 1.0
FAILED = 50
"""Discs that failed in a drive before; the daemon looks after them in each decision."""
CONFIG = """
[daemon]
mountpoint = "/mnt/hsmfs"
state = "{root}/state"
[[pool]]
name = "p"
path = "{root}/pool"
[engine]
spool = "{root}/spool"
[library]
kind = "simulated"
path = "{root}/library"
drives = {drives}
magazines = 278
"""
CLASSES = (RecallClass.INTERACTIVE, RecallClass.STANDARD, *[RecallClass.BULK] * 8)


class Shelf:
    """Drives that do at once what was decided, and the discs' requests."""

    def __init__(self, rng: random.Random) -> None:
        self.board = Board(traces.rules(traces.LIBRARIES["discs move singly, eighteen drives"]))
        self.orders: dict[int, DiscOrder[int]] = {}
        self.drives = [DriveView(f"d{n:02d}") for n in range(DRIVES)]
        self.now, self.number, self.rng = 0.0, 0, rng

    def ask(self, disc: int) -> None:
        self.number += 1
        self.now += 0.001
        order = self.orders.setdefault(disc, DiscOrder())
        sector = self.rng.randrange(10**8)
        order.add(self.number, self.rng.choice(CLASSES), sector, 10**8, self.now)
        self.show(disc)

    def show(self, disc: int) -> None:
        order = self.orders[disc]
        urgency = order.urgency
        since = order.since(urgency)
        self.board.put(
            ClaimView(disc, disc, Purpose.READ, urgency, since, order.bytes, len(order), self.now),
            self.now,
        )

    def act(self) -> None:
        """Decide, and carry it out."""
        for action in self.board.decide(self.now, self.drives, arms=1).actions:
            at = int(action.drive[1:])
            if isinstance(action, PutAway):
                self.drives[at] = DriveView(action.drive, idle_since=self.now)
            elif isinstance(action, Assign):
                disc = action.claim
                self.board.drop(disc)
                self.drives[at] = DriveView(
                    action.drive, volume=disc, carrier=disc, holds=True, busy=True,
                    purpose=Purpose.READ, urgency=self.orders[disc].urgency, started=self.now,
                )  # fmt: skip

    def end_one(self) -> None:
        """A drive that is busy has read its disc's most urgent request; the rest waits again."""
        busy = [n for n, drive in enumerate(self.drives) if drive.busy]
        if busy:
            at = self.rng.choice(busy)
            disc = self.drives[at].volume
            order = self.orders[disc]
            order.remove(next(order.from_sector(0)))
            self.drives[at] = DriveView(
                f"d{at:02d}", volume=disc, carrier=disc, holds=True, idle_since=self.now
            )
            if len(order):
                self.show(disc)


def timed(f: Callable[[], object]) -> float:
    """Milliseconds of processor time, so that it counts only what is done here."""
    began = time.thread_time()
    f()
    return 1000 * (time.thread_time() - began)


def told(p: Proof, label: str, times: list[float]) -> None:
    times.sort()
    p.figure(f"{label}: mean", sum(times) / len(times), "ms", at_most=LIMIT_MS)
    p.figure(f"{label}: p99", quantile(times, 0.99), "ms", at_most=LIMIT_MS)
    p.figure(f"{label}: longest", times[-1], "ms")


def prove_board(p: Proof, label: str, requests: int, discs: int) -> None:
    rng = random.Random(1)
    shelf = Shelf(rng)
    began = time.perf_counter()
    for number in range(requests):
        shelf.ask(number % discs)
    cost = 1e6 * (time.perf_counter() - began) / requests
    p.figure(f"{label}: a request that comes", cost, "us")
    times = []
    for _ in range(DECISIONS):
        times.append(timed(shelf.act))
        shelf.ask(rng.randrange(discs))
        shelf.end_one()
        shelf.now += 1.0
    queued = sum(len(order) for order in shelf.orders.values())
    p.figure(f"{label}: requests queued", queued, at_least=0.99 * requests)
    told(p, f"{label}: a decision", times)


def prove_disc(p: Proof, requests: int) -> None:
    rng = random.Random(2)
    order: DiscOrder[int] = DiscOrder()
    for number in range(requests):
        order.add(number, rng.choice(CLASSES), rng.randrange(10**8), 1, float(number))
    at = requests

    def step() -> None:
        nonlocal at
        order.remove(next(order.from_sector(rng.randrange(10**8))))
        order.add(at, rng.choice(CLASSES), rng.randrange(10**8), 1, float(at))
        at += 1

    told(p, "one disc: the next request", [timed(step) for _ in range(DECISIONS)])


class Still:
    """Stands for the nursery: what is decided begins, and goes no further."""

    def start_soon(self, *_: Any) -> None:
        pass


async def prove_daemon(p: Proof, root: Path) -> None:
    settings = config.loads(CONFIG.format(root=root, drives=DRIVES))
    await init(settings)
    catalog = Catalog.open(settings.daemon.state)
    library = configured.open_library(settings.library)
    mounts = Mounts(catalog, library, Robot(library, CatalogJournal(catalog)), Events(), settings)
    rng, bays = random.Random(3), list(mounts._bays.values())

    async def want(disc: Any) -> None:
        async with mounts.use(disc, Purpose.READ, urgency=rng.choice(CLASSES), unknown=True):
            pass

    async with trio.open_nursery() as nursery:
        await mounts.robot_care.begin(nursery)
        discs = catalog.volumes.all()
        for disc in discs[:FAILED]:
            mounts.ledger._failed[rng.choice(bays).drive.serial, disc.barcode] = False
        for disc in discs:
            nursery.start_soon(want, disc.id)
        await trio.testing.wait_all_tasks_blocked()
        times = []
        for _ in range(DECISIONS):
            times.append(timed(lambda: mounts._decide(Still())))
            bay = rng.choice(bays)
            for moved in bays:
                moved.moving = False
            if (claim := bay.claim) is not None:  # its disc is put back, and wanted again
                bay.free()
                claim.bay = None
                mounts._wait(claim)
        p.figure("in the daemon: discs wanted", len(mounts._claims), at_least=DISCS)
        told(p, "in the daemon: a decision", times)
        nursery.cancel_scope.cancel()
    await library.close()
    catalog.close()


def main(p: Proof) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    given = parser.parse_args()
    gc.disable()
    prove_board(p, "many discs", given.requests, DISCS)
    prove_board(p, "a disc each", given.requests, given.requests)
    prove_disc(p, given.requests)
    with tempfile.TemporaryDirectory(prefix="hsmfs-decision-") as folder:
        trio.run(prove_daemon, p, Path(folder))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    p.figure("memory of all of it", peak, "MiB")


if __name__ == "__main__":
    with proof("a decision costs under a millisecond with a million requests queued") as p:
        main(p)
