"""Keeps the engine's workers running: a crash is logged and the worker starts again after a pause.

A worker keeps its state in the catalog, so starting it again is always right. The pause doubles
with each crash in a row, so that a worker that cannot run does not fill the log.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from .. import logs
from .events import Events
from .views import WorkerView

log = logs.get(__name__)
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
"""Seconds; a worker that ran longer than this starts over with the first pause."""


@dataclass(slots=True)
class Worker:
    """A task of the engine and how it does."""

    name: str
    run: Callable[[], Awaitable[None]]
    running: bool = False
    restarts: int = 0
    error: str = ""

    @property
    def view(self) -> WorkerView:
        return WorkerView(self.name, self.running, self.restarts, self.error)


async def supervise(worker: Worker, events: Events) -> None:
    """Run the worker until it returns or is cancelled."""
    pause = FIRST_PAUSE
    while True:
        started = trio.current_time()
        worker.running = True
        try:
            await worker.run()
            return
        except Exception as fault:
            worker.restarts += 1
            worker.error = str(fault)
            if trio.current_time() - started > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            log.exception("worker crashed", fault, worker=worker.name, again_in_s=pause)
            events.emit("worker-crashed", worker=worker.name, error=str(fault))
        finally:
            worker.running = False
        await trio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)
