"""How good expected times are: readers of a busy simulated library, and what each was told.

    tools/bench/eta.py [--seconds N] [--rate N] [--seed N] [--wrong]

A whole engine on a library with real times (a move 60 s, a load 20 s) lives `seconds` of its clock,
which runs `rate` times as fast as ours. Readers come one by one and in bursts, some discs more than
others, and orders for whole discs beside them. Each reader is asked for its expected time when it
begins to wait and once more at a random moment; then it is timed. So is each order, which is
estimated before it is given (`hsmctl recall --estimate`). With --wrong the configuration says half
and double of the true times, as on a library that nobody measured. Prints the share of answers
within a factor of 2 (or a second); exits 0 only if it is nine of ten of the readers'. Estimates of
orders rest on who waits just then, and readers who come later go before them: they are printed.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio
from trio.testing import MockClock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from hsmfs import config
from hsmfs.catalog.catalog import Catalog
from hsmfs.catalog.queues import RecallClass
from hsmfs.engine import acts
from hsmfs.engine.preview import preview
from hsmfs.engine.service import Engine
from hsmfs.engine.setup import init, open_pools
from hsmfs.library import configured
from hsmfs.types import ROOT, InodeNo, Requester

DISCS, FILES, SIZE = 16, 40, 200_000
TRUE = {"exchange": 60, "load": 20, "seek": 0.2, "rate": 60}
WRONG = {"exchange": 120, "load": 10, "seek": 0.2, "rate": 30}
ZERO = {"exchange": 0, "load": 0, "seek": 0, "rate": 10_000}
"""Seconds, and MB a second."""
EVERY_S = 200.0
"""Mean seconds between readers, or bursts of them."""
BULK_S = 2500.0
"""Mean seconds between orders for a whole disc."""
TEXT = """
[daemon]
mountpoint = "/mnt/hsmfs-eta"
state = "{0}/state"
socket = "{0}/sock"
[[pool]]
name = "pool"
path = "{0}/pool"
[library]
kind = "simulated"
path = "{0}/library"
drives = 3
magazines = 2
disc = "16 MiB"
exchange = "{exchange} s"
load = "{load} s"
seek = "{seek} s"
read_rate = "{rate} MB/s"
[engine]
spool = "{0}/spool"
spool_limit = "1 GiB"
burn_wait = "0 s"
[guard]
mode = "off"
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a reader, or who gave an order, was told, and how long it took from then."""

    told: float | None
    took: float

    @property
    def good(self) -> bool:
        if self.told is None:
            return False
        if max(self.told, self.took) <= 1.0:
            return True
        return self.took / 2 <= self.told <= self.took * 2


@asynccontextmanager
async def running(folder: Path, *, timed: bool, wrong: bool) -> AsyncIterator[Engine]:
    """An engine over the folder."""
    settings = config.loads(TEXT.format(folder, **((WRONG if wrong else TRUE) if timed else ZERO)))
    if not timed:
        await init(settings)
    catalog = Catalog.open(settings.daemon.state)
    pools = await open_pools(settings.pool, catalog)
    really = config.loads(TEXT.format(folder, **(TRUE if timed else ZERO))).library
    library = configured.open_library(really)
    engine = Engine(settings, catalog, pools, library)
    async with engine.running():
        yield engine
    await library.close()
    catalog.close()


async def fill(folder: Path) -> list[list[InodeNo]]:
    """Stubs, by disc."""
    discs: list[list[InodeNo]] = []
    async with running(folder, timed=False, wrong=False) as engine:
        for disc in range(DISCS):
            inos = [await one_file(engine, b"%d-%d" % (disc, n)) for n in range(FILES)]
            discs.append(inos)
            roots = [attr for attr in map(engine.catalog.inodes.get_raw, inos) if attr]
            async for _ in acts.archive(
                engine, roots, copies=1, now=True, release=False, wait=True, who="bench"
            ):
                pass
            await release(engine, inos)
    return discs


async def one_file(engine: Engine, name: bytes) -> InodeNo:
    async with engine.catalog.write():
        pool = engine.pools.for_new().id
        attr = engine.catalog.names.create(ROOT, name, 0o100644, 0, 0, 1, pool=pool)
    engine.files.born(attr)
    live = engine.files.open(attr.ino, write=True)
    await engine.files.write(live, 0, os.urandom(SIZE))
    engine.files.close(live, write=True)
    await engine.files.flush_closed()
    return attr.ino


async def release(engine: Engine, inos: list[InodeNo]) -> None:
    for ino in inos:
        live = engine.files.hold(ino)
        try:
            if not live.absent:
                await engine.files.release(live, 0)
        finally:
            engine.files.drop(live)


class Life:
    """Readers of an engine, and the answers that they got."""

    def __init__(self, engine: Engine, discs: list[list[InodeNo]], seed: int) -> None:
        self.engine, self.discs = engine, discs
        self.random = random.Random(seed)
        self.answers: list[Answer] = []
        self.estimates: list[Answer] = []
        self.waits: list[float] = []
        self.reading: set[InodeNo] = set()

    def some_disc(self) -> list[InodeNo]:
        """A few discs are asked for more than others."""
        return self.discs[min(int(self.random.expovariate(0.25)), DISCS - 1)]

    async def readers(self, nursery: trio.Nursery) -> None:
        while True:
            await trio.sleep(self.random.expovariate(1 / EVERY_S))
            burst = self.random.choice((1, 1, 1, 2, 8))
            for ino in self.random.sample(self.some_disc(), burst):
                if ino not in self.reading:
                    nursery.start_soon(self.read, ino)
                await trio.sleep(self.random.uniform(0, 2))

    async def orders(self, nursery: trio.Nursery) -> None:
        while True:
            await trio.sleep(self.random.expovariate(1 / BULK_S))
            nursery.start_soon(self.order, self.some_disc())

    async def order(self, inos: list[InodeNo]) -> None:
        """Estimated, given, and timed."""
        engine = self.engine
        roots = [attr for attr in map(engine.files.attr, inos) if attr is not None]
        told, began = await preview(engine, roots, RecallClass.BULK), trio.current_time()
        async for _ in acts.recall(
            engine, roots, urgency=RecallClass.BULK, wait=True, who="bench"
        ):
            pass
        if told.files:
            self.estimates.append(Answer(told.seconds, trio.current_time() - began))

    async def read(self, ino: InodeNo) -> None:
        """One reader, who asks twice how long it will take."""
        self.reading.add(ino)
        began, told = trio.current_time(), []
        who = Requester(os.getpid(), len(self.reading), 0, "reader")

        async def ask(after: float) -> None:
            await trio.sleep(after)
            views = [view for view in self.engine.waiters() if view.ino == ino]
            told.extend((trio.current_time(), view.expected_s) for view in views)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, 0.5)
            nursery.start_soon(ask, self.random.uniform(5, 150))
            live = self.engine.files.open(ino, write=False)
            try:
                await self.engine.files.read(live, 0, 1000, who)
            finally:
                self.engine.files.close(live, write=False)
            nursery.cancel_scope.cancel()
        ended = trio.current_time()
        self.waits.append(ended - began)
        self.answers += [Answer(seconds, ended - at) for at, seconds in told]
        await trio.sleep(300)
        await release(self.engine, [ino])
        self.reading.discard(ino)


async def live(folder: Path, given: argparse.Namespace) -> Life:
    discs = await fill(folder)
    async with running(folder, timed=True, wrong=given.wrong) as engine:
        life = Life(engine, discs, given.seed)
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, MockClock)
        clock.rate = given.rate
        with trio.move_on_after(given.seconds):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(life.readers, nursery)
                nursery.start_soon(life.orders, nursery)
        clock.rate = 1000 * given.rate  # what is under way ends
    return life


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=9000)
    parser.add_argument("--rate", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--wrong", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hsmfs-eta-") as name:
        life = trio.run(live, Path(name), given, clock=MockClock(rate=1.0))
    answers = life.answers
    share = sum(a.good for a in answers) / len(answers)
    print(f"readers                     {len(life.waits)}")
    print(f"their wait, median          {statistics.median(life.waits):.1f} s")
    print(f"answers                     {len(answers)}")
    for answer in sorted((a for a in answers if not a.good), key=lambda a: a.took)[:40]:
        told = "nothing" if answer.told is None else f"{answer.told:.1f} s"
        print(f"  off: told {told}, took {answer.took:.1f} s")
    good = sum(e.good for e in life.estimates)
    print(f"orders as estimated         {good} of {len(life.estimates)}")
    for order in life.estimates:
        print(f"  told {order.told or 0:.0f} s, took {order.took:.0f} s")
    print(f"within a factor of 2        {100 * share:.1f} %  (at least 90 %)")
    sys.exit(0 if share >= 0.9 else 1)


if __name__ == "__main__":
    main()
