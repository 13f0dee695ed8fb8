"""Long orders: adopt, undo and fsck go on when the one who gave them has left; verify stops, and
goes on with the same order.

One of a kind at a time. A job ends with the daemon; what it does is resumable by its own means.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import trio

from .. import logs
from ..errors import Conflict, HsmError

log = logs.get(__name__)
TELL_EVERY_S = 0.5


@dataclass(slots=True)
class Job:
    """A long order under way; progress and result are plain JSON values."""

    name: str
    progress: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] | None = None
    error: Exception | None = None
    done: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    async def lines(self, *, own: bool = False) -> AsyncGenerator[dict[str, Any], None]:
        """How it goes, until its result, which has kind `end`. Raises its error.

        own: whoever follows it is the only one who wants it: it ends when they leave.
        """
        try:
            while not self.done.is_set():
                yield {"kind": "progress", **self.progress}
                with trio.move_on_after(TELL_EVERY_S):
                    await self.done.wait()
        finally:
            if own:
                self.scope.cancel()
        if self.error is not None:
            raise self.error
        yield {"kind": "end", **(self.result or {})}


class Jobs:
    """The jobs that are under way. The engine opens `nursery` for them."""

    def __init__(self) -> None:
        self.nursery: trio.Nursery | None = None
        self._running: dict[str, Job] = {}

    def start(self, name: str, work: Callable[[Job], Awaitable[dict[str, Any]]]) -> Job:
        """Begin work, which returns its result. Raises Conflict if one of that name goes on."""
        if self.nursery is None:
            raise Conflict("hsmfsd is starting or stopping")
        if name in self._running:
            raise Conflict(f"{name} is under way already", next_step="wait until it has ended")
        job = self._running[name] = Job(name)
        self.nursery.start_soon(self._run, job, work, name=f"job {name}")
        return job

    async def _run(self, job: Job, work: Callable[[Job], Awaitable[dict[str, Any]]]) -> None:
        try:
            with job.scope:
                job.result = await work(job)
        except HsmError as fault:
            job.error = fault
            log.warning("job failed", job=job.name, error=fault.message)
        except Exception as fault:
            job.error = fault
            log.exception("job failed", fault, job=job.name)
        finally:
            if job.result is None and job.error is None:
                job.error = Conflict(f"{job.name} was ended")
            self._running.pop(job.name, None)
            job.done.set()
