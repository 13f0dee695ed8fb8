"""The spool: room for images and compressed files before they are burned, given out in advance.

One folder a batch, one image a volume; whatever a crash left is removed at the next start.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable, Container
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from .. import clock
from ..types import VolumeId
from ..units import format_size

_LOOK_AGAIN = 10.0
"""Seconds until a filesystem without room is looked at again."""
_RESERVE = 16 * 1024 * 1024
"""Bytes that are left free on the spool's filesystem."""


class Spool:
    """Made once by the migrator.

    Attributes:
        full: called with the reason when somebody has to wait for room.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.path, self.limit = path, limit
        self.full: Callable[[str], None] = lambda reason: None
        self._used = 0
        self._freed = trio.Event()

    def image(self, volume: VolumeId) -> str:
        """The name of a volume's image."""
        return f"volume-{volume}.iso"

    @asynccontextmanager
    async def room(self, size: int) -> AsyncIterator[None]:
        """Wait for size bytes (at most the limit) and keep them as long as the block runs."""
        size = min(size, self.limit)
        await self._wait(size)
        self._used += size
        try:
            yield
        finally:
            self._used -= size
            self._freed.set()
            self._freed = trio.Event()

    async def _wait(self, size: int) -> None:
        told = False
        while True:
            freed = self._freed
            reason = ""
            if self._used + size > self.limit:
                reason = f"the spool's limit of {format_size(self.limit)} is in use"
            elif (free := await clock.blocking(self._free)) < size:
                reason = (
                    f"{self.path} has {format_size(max(free, 0))} free, {format_size(size)} are"
                    " needed"
                )
            elif self._used + size <= self.limit:
                return
            else:
                continue
            if not told and not self._used:
                self.full(reason)
                told = True
            with trio.move_on_after(_LOOK_AGAIN):
                await freed.wait()

    def _free(self) -> int:
        self.path.mkdir(parents=True, exist_ok=True)
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize - _RESERVE

    async def remove(self, *names: str) -> None:
        """Delete images or folders, if they are there."""
        await clock.blocking(lambda: [_remove(self.path / name) for name in names])

    async def clear(self, keep: Container[str]) -> None:
        """Delete whatever a former run left, but for the names in keep."""
        await clock.blocking(lambda: self._clear(keep))

    def _clear(self, keep: Container[str]) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        for item in self.path.iterdir():
            ours = item.name.startswith(("volume-", "batch-"))
            if ours and item.name not in keep:
                _remove(item)


def _remove(path: Path) -> bool:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return True
