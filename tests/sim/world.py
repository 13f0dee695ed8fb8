"""What outlives the daemon: disks, discs, the users' memory, the clocks; and the daemon over it.

A `World` is plain data. It is pickled when the daemon dies and taken up by the next life, which is
another process (lives.py). `Site` is one daemon's life in it.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from hsmfs import clock
from hsmfs import config as configs
from hsmfs.catalog.catalog import Catalog
from hsmfs.config import Config
from hsmfs.engine.events import Event
from hsmfs.engine.service import Engine
from hsmfs.engine.setup import init, open_pools
from hsmfs.library import configured
from hsmfs.library.activity import WatchedLibrary
from hsmfs.library.simulated.layout import Geometry
from hsmfs.library.simulated.timing import Timing

from .files import UserFile
from .library import MemoryLibrary, Shelves
from .machine import Machine
from .plan import Size, Step

START_NS = 1_900_000_000 * 10**9
DAY = 86_400.0
YEAR = 365 * DAY

TEXT = """
[daemon]
mountpoint = "/mnt/hsmfs-sim"
state = "{root}/state"
socket = "{root}/socket"
[[pool]]
name = "p"
path = "{root}/pool"
capacity = "{capacity} KiB"
high = 80
low = 50
[fs]
head = "4 KiB"
sync_interval = "60 s"
wait_limit = "{wait_limit} s"
[recall]
shelf_wait = "6 h"
[guard]
mode = "off"
[trash]
keep = "30 d"
[library]
kind = "simulated"
path = "{root}/library"
drives = {drives}
magazines = {magazines}
slots_per_magazine = {slots}
import_export = {mail}
drives_per_magazine = {group}
arms = {arms}
disc = "1 MiB"
exchange = "30 s"
load = "20 s"
seek = "0.2 s"
read_rate = "100 KB/s"
write_rate = "100 KB/s"
[engine]
spool = "{root}/spool"
spool_limit = "64 MiB"
burn_wait = "1 d"
copies = 2
compression = {compression}
min_residence = "10 min"
recall_retry_wait = "20 min"
[sets]
parity = "raid5"
discs = 3
close_wait = "90 d"
release_needs = "copies"
[scrub]
interval = "{scrub_days} d"
drives = 2
[catalog]
snapshot_every = 10
"""
WAIT_LIMIT = 4 * DAY


@dataclass
class World:
    """Everything that a life leaves to the next."""

    seed: int
    root: Path
    size: Size
    steps: list[Step]
    at_step: int = 0
    lives: int = 0
    now: float = 0.0
    """trio's time."""
    wall_ns: int = START_NS
    """What the wall clock shows at `now`."""
    boots: int = 0
    booted: float = 0.0
    shelves: Shelves | None = None
    files: dict[bytes, UserFile] = field(default_factory=dict)
    folders: dict[bytes, int] = field(default_factory=dict)
    trace: str = ""
    """The chained hash of all that happened."""
    counts: Counter[str] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)
    failure: str = ""
    log: list[str] = field(default_factory=list)
    """The last lines of the trace, for people."""
    keep_log: int = 400
    cut_ahead: bool = False
    """This life will end by a power cut: what is durable is kept apart."""
    died: str = ""
    """How the last life ended."""
    mutant: str = ""
    reached: set[str] = field(default_factory=set)
    """Crash points that killed."""
    state: dict[str, Any] = field(default_factory=dict)

    def note(self, line: str) -> None:
        """One thing that happened."""
        self.trace = hashlib.sha256((self.trace + line).encode()).hexdigest()
        self.log.append(f"{self.now / DAY:11.4f} d  {line}")
        del self.log[: -self.keep_log]

    def config(self) -> Config:
        size = self.size
        return configs.loads(
            TEXT.format(
                root=self.root, drives=size.drives, magazines=size.magazines, slots=size.slots,
                capacity=size.pool_kib, wait_limit=int(WAIT_LIMIT),
                compression=self.seed % 2, scrub_days=size.scrub_days,
                group=size.drives_per_magazine, mail=0 if size.drives_per_magazine else 4,
                arms=size.arms,
            )
        )  # fmt: skip


class Failure(Exception):
    """Something that must hold does not."""


class Site:
    """One life of the daemon.

    Attributes:
        engine: the real one.
        clock: trio's, which `sleep` moves.
    """

    def __init__(self, world: World, machine: Machine, mock: trio.testing.MockClock) -> None:
        self.world, self.machine, self.clock = world, machine, mock
        self.config = world.config()
        self.engine: Engine
        self.catalog: Catalog

    def memory_library(self) -> MemoryLibrary:
        world, library = self.world, self.config.library
        if world.shelves is None:
            images = world.root / "images"
            images.mkdir(exist_ok=True)
            geometry = Geometry(
                library.drives, library.magazines, library.slots_per_magazine,
                library.import_export, library.disc, library.drives_per_magazine,
                library.arms,
            )  # fmt: skip
            world.shelves = Shelves(images, geometry)
            world.shelves.fill()
        timing = Timing(
            library.exchange, library.load, library.seek, library.read_rate, library.write_rate
        )
        return MemoryLibrary(world.shelves, timing)

    def set_clocks(self) -> None:
        """The clocks show what they must at the world's time."""
        world = self.world
        clock.WALL._offset_ns = world.wall_ns - int(world.now * 1e9)
        clock.BOOT._start, clock.BOOT._reboots = world.booted, world.boots

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Engine]:
        """The daemon from its start to a clean stop."""
        self.set_clocks()
        config = self.config
        if not Catalog.complete(config.daemon.state):
            (self.world.root / "pool").mkdir(exist_ok=True)
            configured.build = lambda library: True  # the library in memory needs none
            await init(config)
        self.catalog = catalog = Catalog.open(config.daemon.state)
        pools = await open_pools(config.pool, catalog)
        for pool in pools:
            _own_space(pool)
        library = WatchedLibrary(self.memory_library())
        self.engine = engine = Engine(config, catalog, pools, library)
        engine.housekeeper._interval = 900.0
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._trace_events)
                async with engine.running():
                    yield engine
                nursery.cancel_scope.cancel()
        finally:
            await library.close()
            catalog.close()

    async def _trace_events(self) -> None:
        async for event in self.engine.events.follow():
            self.world.now = trio.current_time()
            self.world.note(f"{event.kind} {sorted(event.fields.items())}")
            self.world.counts[f"event {event.kind}"] += 1
            self.heard(event)

    def heard(self, event: Event) -> None:
        """Told of everything that happens in the engine."""

    def tick(self) -> None:
        """The world's clocks follow trio's."""
        now = trio.current_time()
        self.world.wall_ns += int((now - self.world.now) * 1e9)
        self.world.now = now


def _own_space(pool: Any) -> None:
    """The filesystem below is not the simulation's: only the pool's own bound counts."""
    from hsmfs.pool.store import Usage

    pool.usage = lambda: Usage(pool.capacity, pool.used)


def sizes(root: Path) -> int:
    """Bytes below a folder."""
    return sum(
        os.stat(os.path.join(folder, name)).st_size
        for folder, _, names in os.walk(root)
        for name in names
    )
