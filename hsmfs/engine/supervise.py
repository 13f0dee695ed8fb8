"""Keeps the engine's workers running: a crash is logged and the worker starts again after a pause.

A worker keeps its state in the catalog, so starting it again is always right. The pause doubles
with each crash in a row, so that a worker that cannot run does not fill the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import trio

from .. import logs
from .events import Events
from .views import WorkerView

log = logs.get(__name__)
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
"""Seconds; a worker that ran longer than this starts over with the first pause."""


class Run(Protocol):
    """A worker: runs until cancelled, and tells when it is ready for work."""

    async def __call__(self, *, task_status: trio.TaskStatus[None]) -> None: ...


@dataclass(slots=True)
class Worker:
    """A task of the engine and how it does."""

    name: str
    run: Run
    running: bool = False
    restarts: int = 0
    error: str = ""

    @property
    def view(self) -> WorkerView:
        return WorkerView(self.name, self.running, self.restarts, self.error)


class _Once:
    """Passes on the first `started` only: a restarted worker tells again."""

    def __init__(self, status: trio.TaskStatus[None]) -> None:
        self._status: trio.TaskStatus[None] | None = status

    def started(self, value: None = None) -> None:
        if self._status is not None:
            status, self._status = self._status, None
            status.started()


async def supervise(
    worker: Worker,
    events: Events,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the worker until it is cancelled; started when the worker first is, or first crashed."""
    pause = FIRST_PAUSE
    once = _Once(task_status)
    while True:
        began = trio.current_time()
        worker.running = True
        try:
            await worker.run(task_status=once)
            return
        except Exception as fault:
            worker.restarts += 1
            worker.error = str(fault)
            if trio.current_time() - began > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            log.exception("worker crashed", fault, worker=worker.name, again_in_s=pause)
            events.emit("worker_crashed", worker=worker.name, error=str(fault))
        finally:
            worker.running = False
        once.started()
        await trio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)
