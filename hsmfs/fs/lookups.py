"""Which inodes the kernel knows, and the end of those that have no name any more.

The kernel counts the lookups it was answered and gives them back by `forget`. An inode without a
name lives until it is neither known, nor open, nor in the trash; then it is deleted in the
background, many at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from .. import logs
from ..engine.files import Files
from ..limits import BATCH_ROWS
from ..types import InodeNo

log = logs.get(__name__)
_GATHER_SECONDS = 0.25
_GATHER_SECONDS_AT_MOST = 5.0
_GATHER_AT_MOST = 50_000


class Lookups:
    """Counts, and the inodes that are doomed.

    Attributes:
        bare: known inodes without any extended attribute, so that the question the kernel asks
            before each write (security.capability) costs no query.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._counts: dict[int, int] = {}
        self._doomed: set[int] = set()
        self._due: set[int] = set()
        self._wake = trio.Event()
        self.bare: set[int] = set()

    def add(self, ino: int) -> None:
        """The kernel is being told of the inode once more."""
        counts = self._counts
        counts[ino] = counts.get(ino, 0) + 1

    def __contains__(self, ino: int) -> bool:
        return ino in self._counts

    def __len__(self) -> int:
        return len(self._counts)

    def forget(self, forgotten: Sequence[tuple[int, int]]) -> None:
        """The kernel gives counts back."""
        counts = self._counts
        for ino, count in forgotten:
            left = counts.get(ino, 0) - count
            if left > 0:
                counts[ino] = left
                continue
            counts.pop(ino, None)
            self.bare.discard(ino)
            if ino in self._doomed:
                self.look(ino)

    def doom(self, ino: int) -> None:
        """The inode lost its last name and is not kept in the trash."""
        self._doomed.add(ino)
        self.look(ino)

    def look(self, ino: int) -> None:
        """An inode was closed or forgotten: is it due?"""
        if ino not in self._doomed or ino in self._counts:
            return
        live = self._files.live(InodeNo(ino))
        if live is not None and (live.opens or live.holds):
            return
        self._due.add(ino)
        self._wake.set()

    async def run(self) -> None:
        """Delete what is due; for ever."""
        while True:
            await self._wake.wait()
            await self._gather()
            self._wake = trio.Event()
            while self._due:
                batch = [self._due.pop() for _ in range(min(len(self._due), BATCH_ROWS // 4))]
                await self._purge(batch)

    async def _gather(self) -> None:
        """Many together cost less, and not while their owner is still deleting."""
        with trio.move_on_after(_GATHER_SECONDS_AT_MOST):
            before = -1
            while before < len(self._due) < _GATHER_AT_MOST:
                before = len(self._due)
                await trio.sleep(_GATHER_SECONDS)

    async def _purge(self, inos: list[int]) -> None:
        """What a worker of the engine holds meanwhile stays doomed until the next start."""
        try:
            kept = await self._files.purge_many([InodeNo(ino) for ino in inos])
        except Exception as fault:  # rows stay, and the next start deletes them
            log.exception("unlinked inodes could not be deleted", fault, inodes=len(inos))
            return
        self._doomed.difference_update(set(inos) - set(kept))
        if kept:
            await trio.sleep(1)
            for ino in kept:
                self.look(ino)
