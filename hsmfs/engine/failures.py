"""Recalls that failed: why, in words that name each disc, until the file is asked for again."""

from __future__ import annotations

from .. import logs
from ..catalog.catalog import Catalog
from ..errors import HsmError, RecallCancelled, RecallFailed
from ..states import VolumeState
from ..types import InodeNo
from .events import Events
from .live import Live
from .recall_queue import Job

log = logs.get(__name__)
KEPT = 1000
"""Failures remembered."""


class Failures:
    """The last failure of each file."""

    def __init__(self, catalog: Catalog, events: Events) -> None:
        self._catalog, self._events = catalog, events
        self._failed: dict[InodeNo, HsmError] = {}

    def get(self, ino: InodeNo) -> HsmError | None:
        """Why the last recall of a file failed."""
        return self._failed.get(ino)

    def forget(self, ino: InodeNo) -> None:
        """It is asked for again."""
        self._failed.pop(ino, None)

    def note(self, ino: InodeNo, requester: str, error: HsmError) -> None:
        """A recall, or the wait for one, failed."""
        self._failed[ino] = error
        while len(self._failed) > KEPT:
            self._failed.pop(next(iter(self._failed)))
        if not isinstance(error, RecallCancelled):
            log.error("recall failed", ino=ino, requester=requester, error=error.message)
        self._events.emit(
            "recall_failed", ino=ino, requester=requester, error=error.message,
            next_step=error.next_step,
        )  # fmt: skip

    def no_copy_left(self, job: Job, live: Live) -> RecallFailed:
        """Names each disc, what is wrong with it, and what to do."""
        faults = list(job.faults)
        for copy in self._catalog.copies.of(job.ino, live.attr.base_version):
            volume = self._catalog.volumes.get(copy.where.volume)
            if volume is None or copy.id in job.bad:
                continue
            state = volume.state.name.lower()
            if volume.state is VolumeState.FULL:
                state = f"copy {copy.state.name.lower()}"
            faults.append(f"disc {volume.barcode}: {state} {volume.reason}".rstrip())
        what = "; ".join(faults) or "it has no copy"
        return RecallFailed(
            f"no copy of inode {job.ino} version {live.attr.base_version} can be read: {what}",
            next_step="bring a disc back or repair one (see 'hsmctl volume'), then read again",
        )
