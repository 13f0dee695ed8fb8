"""Why is it not there yet: the state of a recall in an admin's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..catalog.catalog import Catalog
from ..config import Config
from ..types import CHUNK, VolumeId
from . import eta
from .mounts import Mounts
from .recall_queue import Job, VolumeQueue
from .shelf import Shelf
from .slow_lane import SlowLane
from .waiters import Waiter, WaiterView


class Why:
    """Answers from the recaller's queues and the mounts."""

    def __init__(
        self,
        catalog: Catalog,
        mounts: Mounts,
        queues: Mapping[VolumeId, VolumeQueue],
        shelf: Shelf,
        slow: SlowLane,
        config: Config,
    ) -> None:
        self._catalog, self._mounts, self._queues = catalog, mounts, queues
        self._shelf, self._slow = shelf, slow
        library = config.library
        self._speeds = eta.Speeds(library.exchange, library.load, library.seek, library.read_rate)
        self._run_cap = config.engine.run_cap

    def waiter(self, waiter: Waiter, job: Job | None) -> WaiterView:
        """A reader, and how long it may have to wait for what."""
        who = waiter.who
        state, ahead = self._state(job) if job is not None else ("", 0)
        return WaiterView(
            waiter.ino, waiter.range.start, waiter.range.end, who.pid, who.uid, who.process,
            who.via, who.client, waiter.since_ns, waiter.slow, self._barcode(job), state, ahead,
            self._drive(job), self._seconds(job) if job is not None else None,
        )  # fmt: skip

    def job(self, job: Job) -> dict[str, Any]:
        """One recall that is under way."""
        queue = self._queues.get(job.volume) if job.volume is not None else None
        state, ahead = self._state(job)
        return {
            "state": state,
            "class": job.urgency.name.lower(),
            "requester": job.requester,
            "since_ns": job.created_ns,
            "volume": self._barcode(job),
            "drive": self._drive(job),
            "discs_ahead": ahead,
            "files_on_disc": len(queue) if queue is not None else 0,
            "expected_s": self._seconds(job),
            "waiters": len(job.waiters),
            "faults": list(job.faults),
            "robot": self._mounts.robot_care.trouble or "ready",
        }

    def _state(self, job: Job) -> tuple[str, int]:
        """What the recall does, and how many discs go before its own."""
        if job.volume is None:
            return "queued", 0
        if self._shelf.holds(job):
            return "on the shelf", 0
        if self._slow.holds(job):
            return "slow lane", self._slow.ahead(job.volume)
        queue = self._queues.get(job.volume)
        if queue is not None and queue.session is not None:
            return "reading", 0
        ahead, active = self._mounts.place(job.volume)
        return ("mounting", 0) if active else ("queued", ahead)

    def _drive(self, job: Job | None) -> str | None:
        if job is None or job.volume is None:
            return None
        return self._mounts.drive_with(job.volume)

    def _barcode(self, job: Job | None) -> str | None:
        if job is None or job.volume is None:
            return None
        volume = self._catalog.volumes.get(job.volume)
        return volume.barcode if volume else None

    def _seconds(self, job: Job) -> float | None:
        queue = self._queues.get(job.volume) if job.volume is not None else None
        if queue is None:
            return None
        before = sum(1 for work in queue.works() if work.job.created_ns < job.created_ns)
        ahead, _ = self._mounts.place(queue.volume)
        size = CHUNK if job.waiters else job.end - job.start
        others = (q for q in self._queues.values() if q is not queue)
        return eta.expected(
            self._speeds,
            size=size,
            in_drive=self._mounts.drive_with(queue.volume) is not None,
            before_on_disc=before * CHUNK if job.waiters else queue.bytes,
            discs_before=ahead,
            bytes_before=sum(q.bytes for q in others),
            drives=self._mounts.drives_up,
            run_cap=self._run_cap,
        )
