"""The engine: makes and wires its parts, starts and stops them in order, and keeps them running.

What the filesystem and the API ask for goes through here; what each answer is made of is the job
of overview.py (questions) and acts.py (orders).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from .. import __version__, clock, logs
from ..catalog.catalog import Catalog
from ..config import Config
from ..library.ports import Library
from ..library.robot import Robot
from ..pool.pools import Pools
from ..watchdog import LoopWatch
from .events import Events
from .files import Files
from .journal import CatalogJournal
from .mounts import Mounts
from .supervise import Worker, supervise
from .views import WorkerView

log = logs.get(__name__)


class Engine:
    """All of hsmfs but the mount and the API.

    Attributes:
        config, catalog, pools, library: what it was given; the caller closes them after it.
        robot, files, events: parts that everybody may use.
        stopping: a clean stop has begun; new work is refused.
        stop_asked: set by the API's order to stop; the daemon waits for it.
    """

    version = __version__

    def __init__(
        self,
        config: Config,
        catalog: Catalog,
        pools: Pools,
        library: Library,
        watch: LoopWatch | None = None,
    ) -> None:
        self.config, self.catalog, self.pools, self.library = config, catalog, pools, library
        self.watch = watch
        self.pid = os.getpid()
        self.started_ns = clock.now_ns()
        self.stopping = False
        self.stop_asked = trio.Event()
        self.events = Events()
        self.robot = Robot(library, CatalogJournal(catalog))
        self.files = Files(catalog, pools)
        self.mounts = Mounts(catalog, library, self.robot, self.events, config)
        self._workers = [Worker("mounts", self.mounts.run)]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Recover, start the workers, and stop them cleanly at the end."""
        recovered = await self.files.recover()
        log.info("engine started", recovered_files=recovered)
        async with trio.open_nursery() as nursery:
            for worker in self._workers:
                nursery.start_soon(supervise, worker, self.events, name=worker.name)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()
                self.stopping = True
        with trio.CancelScope(shield=True):
            while await self.files.flush_closed():
                pass
            await self.catalog.sync()

    def workers(self) -> list[WorkerView]:
        """The engine's tasks and how they do."""
        return [worker.view for worker in self._workers]

    def waiters(self) -> list[object]:
        """Readers that wait for a disc."""
        return []
