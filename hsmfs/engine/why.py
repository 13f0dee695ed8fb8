"""Why is it not there yet: the state of a recall in an admin's words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import trio

from ..catalog.catalog import Catalog
from ..catalog.queues import Recall
from ..types import CHUNK, VolumeId
from .backpressure import Backpressure
from .eta import Outlook
from .mounts import Mounts
from .recall_queue import Job, VolumeQueue
from .shelf import Shelf
from .slow_lane import SlowLane
from .waiters import Waiter, WaiterView

_SAME_SECONDS = 0.1
"""So long a forecast is good for more questions."""


class Why:
    """Answers from the recaller's queues and the mounts."""

    def __init__(
        self,
        catalog: Catalog,
        mounts: Mounts,
        queues: Mapping[VolumeId, VolumeQueue],
        shelf: Shelf,
        slow: SlowLane,
        pressure: Backpressure,
    ) -> None:
        self._catalog, self._mounts, self._queues = catalog, mounts, queues
        self._shelf, self._slow, self._pressure = shelf, slow, pressure
        self._known: tuple[float, Mapping[VolumeId, Outlook]] | None = None

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

    def row(self, row: Recall) -> dict[str, Any]:
        """A request that waits as a row until those before it are done."""
        return self.job(
            Job(
                row.ino, row.urgency, row.requester, row.created_ns, row.start, row.end,
                for_readers=False,
            )
        )  # fmt: skip

    def _state(self, job: Job) -> tuple[str, int]:
        """What the recall does, and how many discs go before its own."""
        if self._pressure.holds(job):
            return "waiting for room", 0
        if job.volume is None:
            return "queued", 0
        if self._shelf.holds(job):
            return "on the shelf", 0
        if self._slow.holds(job):
            return "slow lane", self._slow.ahead(job.volume)
        queue = self._queues.get(job.volume)
        if queue is not None and queue.session is not None:
            return "reading", 0
        if self._mounts.under_way(job.volume):
            return "mounting", 0
        outlook = self._forecast().get(job.volume)
        return "queued", outlook.ahead if outlook is not None else 0

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
        """Until the bytes that a reader waits for have come, else until all of the file has."""
        volume = job.volume
        if volume is None or not self._mounts.drives_up or self._shelf.holds(job):
            return None
        if self._slow.holds(job):
            speeds = self._mounts.pace.of("")
            wait = max(0.0, self._slow.next_at - trio.current_time())
            wait += self._slow.ahead(volume) * self._slow.pause
            return wait + 2 * speeds.exchange + speeds.load + speeds.reading(CHUNK)
        queue = self._queues.get(volume)
        outlook = self._forecast().get(volume)
        if queue is None or outlook is None or outlook.ready == math.inf:
            return None
        size, reads = queue.before(job)
        return outlook.ready + self._mounts.speeds_of(volume).reading(size, reads)

    def _forecast(self) -> Mapping[VolumeId, Outlook]:
        """What becomes of discs; the same answer for a list of many waiters."""
        now = trio.current_time()
        if self._known is None or now - self._known[0] > _SAME_SECONDS:
            self._known = now, self._mounts.forecast(self.left())
        return self._known[1]

    def left(self) -> Mapping[VolumeId, tuple[int, int]]:
        """Bytes and files that are still to be read, by disc."""
        return {volume: (queue.bytes, len(queue)) for volume, queue in self._queues.items()}
