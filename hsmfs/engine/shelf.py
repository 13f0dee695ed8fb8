"""Recalls of what lies outside the library: parked, with a request to the operator.

The request is a row of the catalog; which recalls wait for it is known from their own rows, which
are placed anew at each start. A reader waits recall.shelf_wait and then gets an error; its recall
stays, so that the file comes in once the disc is back.
"""

from __future__ import annotations

from typing import Any

from .. import clock, crash, logs
from ..catalog.catalog import Catalog
from ..errors import OnShelf, RecallFailed
from ..types import VolumeId
from .events import Events
from .recall_queue import Job

log = logs.get(__name__)


class Shelf:
    """Jobs that wait for an operator, by disc."""

    def __init__(self, catalog: Catalog, events: Events) -> None:
        self._catalog, self._events = catalog, events
        self._parked: dict[VolumeId, list[Job]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._parked.values()))

    def waits_for(self, volume: VolumeId) -> bool:
        """Jobs wait for the disc."""
        return volume in self._parked

    def holds(self, job: Job) -> bool:
        """The job waits for an operator."""
        return job.volume is not None and job in self._parked.get(job.volume, ())

    def waiting_for(self, volume: VolumeId) -> list[Job]:
        """Jobs that wait for a disc."""
        return list(self._parked.get(volume, ()))

    async def park(self, job: Job, volume: VolumeId) -> None:
        """The job waits for the disc; the operator is asked for it unless that was done."""
        job.volume = volume
        jobs = self._parked.setdefault(volume, [])
        jobs.append(job)
        if len(jobs) > 1:
            return
        async with self._catalog.write():
            self._catalog.vault.ask(volume, job.requester, clock.now_ns())
        crash.point("request.asked")
        found = self._catalog.volumes.get(volume)
        if found is not None:
            log.warning("operator must bring a disc", volume=found.barcode, place=found.location)
            self._events.emit(
                "disc_wanted", barcode=found.barcode, place=found.location,
                requester=job.requester, message="operator must bring a disc",
            )  # fmt: skip

    async def unpark(self, volume: VolumeId) -> list[Job]:
        """The disc is there, or will never be: forget the request; returns who waited."""
        jobs = self._parked.pop(volume, [])
        await self._answer(volume)
        return [job for job in jobs if not job.ended]

    async def forget(self, job: Job) -> None:
        """The job ended; a request that nobody waits for any more goes."""
        if job.volume is None or not self.holds(job):
            return
        jobs = self._parked[job.volume]
        jobs.remove(job)
        if not jobs:
            del self._parked[job.volume]
            await self._answer(job.volume)

    async def _answer(self, volume: VolumeId) -> None:
        async with self._catalog.write():
            self._catalog.vault.answer(volume)
        crash.point("request.answered")

    def clear(self) -> None:
        """The recaller stops; rows of the catalog say what to take up again."""
        self._parked.clear()

    def too_late(self, job: Job) -> OnShelf:
        """What a reader is told that has waited long enough."""
        barcode, place = self._named(job.volume)
        return OnShelf(
            f"disc {barcode} with inode {job.ino} lies in {place}; an operator was asked for it"
        )

    def refusal(self, volume: VolumeId, reason: str) -> RecallFailed:
        """What readers are told when the operator will not bring the disc."""
        barcode, place = self._named(volume)
        return RecallFailed(
            f"the operator does not bring disc {barcode} from {place}"
            + (f": {reason}" if reason else ""),
            next_step="ask the operator, then read the file again",
        )

    def why(self, job: Job) -> dict[str, Any]:
        """What `why` says of a parked job; nothing of another one."""
        if not self.holds(job):
            return {}
        barcode, place = self._named(job.volume)
        return {"state": "on the shelf", "volume": barcode, "shelf": place}

    def _named(self, volume: VolumeId | None) -> tuple[str, str]:
        found = self._catalog.volumes.get(volume) if volume is not None else None
        return (found.barcode, found.location) if found is not None else ("unknown", "unknown")
