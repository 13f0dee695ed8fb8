"""The rest of a study, or of a folder, brought in while its disc is in the drive anyway.

A reader who opens one image of a study opens the others next. So when a reader's recall is queued
at a disc, the study's other files on it are put into the disc's queue, after whatever else is
wanted of it, and whoever else wants the drive gets it. The disc stays in the drive until they were
looked for, even if the reader's file came before. They cost no exchange: when the disc is put down
they are forgotten, and so they are no rows of the catalog. How much is the prefetcher's to say.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping

import trio

from .. import clock, logs
from ..catalog.catalog import Catalog
from ..catalog.queues import RecallClass
from ..errors import HsmError, PosixError
from ..types import InodeNo, VolumeId
from .files import Files
from .recall_queue import Job, VolumeQueue, Work
from .trust.audit import Note, unheard
from .trust.words import path_of

log = logs.get(__name__)
WAITING = 64
"""Recalls whose siblings are still to be looked for; those of more are not."""
WHO = "prefetch of siblings"
Choose = Callable[[InodeNo, VolumeId], Awaitable[list[InodeNo]]]
"""The files to bring in beside one that is read from a disc; marked as prefetched."""


class Beside:
    """Adds work to the queues of discs that are read for others.

    Attributes:
        choose: says which files; set by who wires the engine.
    """

    def __init__(
        self,
        catalog: Catalog,
        files: Files,
        jobs: MutableMapping[InodeNo, Job],
        queues: MutableMapping[VolumeId, VolumeQueue],
        press: Callable[[VolumeQueue], None],
        end: Callable[[Job, HsmError | None], Awaitable[None]],
    ) -> None:
        self._catalog, self._files = catalog, files
        self._jobs, self._queues = jobs, queues
        self._press, self._end = press, end
        self._send, self._receive = trio.open_memory_channel[tuple[InodeNo, VolumeQueue]](WAITING)
        self.choose: Choose = _nothing
        self.note: Note = unheard

    def queued(self, job: Job, queue: VolumeQueue) -> None:
        """A recall was queued at a disc."""
        if job.urgency is RecallClass.INTERACTIVE and self.choose is not _nothing:
            try:
                self._send.send_nowait((job.ino, queue))
            except trio.WouldBlock:
                log.debug("siblings passed over", ino=job.ino)
            else:
                queue.coming += 1

    async def run(self) -> None:
        """For ever."""
        while True:
            ino, queue = await self._receive.receive()
            try:
                await self._bring(ino, queue)
            finally:
                queue.coming -= 1

    async def _bring(self, ino: InodeNo, queue: VolumeQueue) -> None:
        for sibling in await self.choose(ino, queue.volume):
            await self._catalog.settled()
            if self._queues.get(queue.volume) is not queue or not (len(queue) or queue.session):
                return  # the disc was put down meanwhile
            work = self._work(sibling, queue.volume)
            if work is None:
                continue
            self._jobs[sibling] = work.job
            queue.add(work)
            self._press(queue)
            async with self._catalog.write():
                self.note("file.recalled", WHO, path_of(self._catalog, sibling), ino=sibling)

    def _work(self, ino: InodeNo, volume: VolumeId) -> Work | None:
        if ino in self._jobs or self._catalog.queues.recall(ino) is not None:
            return None  # it comes by itself
        try:
            live = self._files.hold(ino)
        except PosixError:
            return None
        try:
            version, size = live.attr.base_version, live.attr.size
            found = [c for c in self._catalog.copies.readable(ino, version)
                     if c.where.volume == volume]  # fmt: skip
            if not live.absent or not found:
                return None
        finally:
            self._files.drop(live)
        job = Job(ino, RecallClass.IDLE, WHO, clock.now_ns(), 0, size, for_readers=False)
        job.beside, job.volume = True, volume
        return Work(job, found[0])

    async def put_down(self, queue: VolumeQueue) -> None:
        """The disc leaves its drive, or nobody else wants it: what was only beside is forgotten."""
        for work in queue.works():
            if work.job.beside:
                await self._end(work.job, None)


async def _nothing(ino: InodeNo, volume: VolumeId) -> list[InodeNo]:
    return []
