"""The spool: room for images and compressed files before they are burned, given out in advance.

One folder a batch, one image a volume; whatever a crash left is removed at the next start. While
burns follow each other the next image is written over an old one, whose blocks and memory are there
already: new ones cost several times as much.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Callable, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from .. import clock
from ..types import SetId, VolumeId
from ..units import format_size

_LOOK_AGAIN = 10.0
"""Seconds until a filesystem without room is looked at again."""
IMAGE_SUFFIX = ".iso"
_BATCH, _OLD, _PARITY = "batch-", "old-", "set-"
_RESERVE = 16 * 1024 * 1024
"""Bytes that are left free on the spool's filesystem."""


@dataclass(slots=True)
class Room:
    """Bytes that somebody has: size in all, for images and for compressed files."""

    images: int
    size: int


class Spool:
    """Made once by the migrator.

    Attributes:
        for_parity: bytes that are kept for parity rows: images and batches do not get them.
        full: called with the reason when somebody has to wait for room.
        pressed: called whenever somebody begins to wait for room.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.path, self._whole = path, limit
        self.for_parity = 0
        self.full: Callable[[str], None] = lambda reason: None
        self.pressed: Callable[[], None] = lambda: None
        self._used = 0
        self._freed = trio.Event()
        self._batches = 0
        self._busy: set[str] = set()

    @property
    def limit(self) -> int:
        """Bytes for all but parity."""
        return max(0, self._whole - self.for_parity)

    def image(self, volume: VolumeId) -> str:
        """The name of a volume's image."""
        return image_name(volume)

    def parity(self, set_id: SetId, row: int, folded: int) -> str:
        """The name of a set's parity row with the discs whose bits are in folded."""
        name = f"{_PARITY}{set_id}-row{row}-{folded:x}"
        self._busy.add(name)
        return name

    def hold(self, size: int) -> None:
        """An image stays beyond its burn: that many bytes are in use until `let_go`."""
        self._used += size

    def let_go(self, size: int) -> None:
        """Bytes that were held are free."""
        self._used -= size
        self._freed.set()
        self._freed = trio.Event()

    @asynccontextmanager
    async def batch(self) -> AsyncIterator[Path]:
        """A folder for a new batch, not yet made; it is gone after the block."""
        self._batches += 1
        name = f"{_BATCH}{self._batches}"
        self._busy.add(name)
        try:
            yield self.path / name
        finally:
            with trio.CancelScope(shield=True):
                await self.remove(name)

    def keeps(self, name: str) -> bool:
        """Whether what lies there under that name is in use, or kept to be used again."""
        return is_old(name) or name in self._busy

    @asynccontextmanager
    async def room(self, images: int, packed: int = 0) -> AsyncIterator[Room]:
        """Wait for so many bytes (at most the limit) and keep them as long as the block runs."""
        room = Room(images, min(images + packed, self.limit))
        await self._wait(room.size)
        self._used += room.size
        try:
            yield room
        finally:
            self.let_go(room.size)

    def packed(self, room: Room, size: int) -> None:
        """So much the compressed files really take: the rest of the room is for others."""
        before, room.size = room.size, min(room.size, room.images + size)
        self.let_go(before - room.size)

    async def has(self, size: int) -> bool:
        """Whether there is room for so many bytes (at most the limit) now."""
        return not await self._lack(min(size, self.limit))

    async def _lack(self, size: int) -> str:
        """Why there is no room now; '' if there is some."""
        if self._used + size <= self.limit and await clock.blocking(self._free) < size:
            free = await clock.blocking(self._free_without_old)
            if free < size:
                return (
                    f"{self.path} has {format_size(max(free, 0))} free, {format_size(size)} are"
                    " needed"
                )
        if self._used + size > self.limit:  # perhaps only since it was looked at
            return f"the spool's limit of {format_size(self.limit)} is in use"
        return ""

    async def _wait(self, size: int) -> None:
        told = False
        while True:
            freed = self._freed
            if not (reason := await self._lack(size)):
                return
            self.pressed()
            if not told and not self._used:
                self.full(reason)
                told = True
            with trio.move_on_after(_LOOK_AGAIN):
                await freed.wait()

    def _free(self) -> int:
        self.path.mkdir(parents=True, exist_ok=True)
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize - _RESERVE

    def _free_without_old(self) -> int:
        self._forget_old()
        return self._free()

    async def reuse(self, name: str) -> None:
        """Give an old image that name, if there is one, to be written over; the name is in use."""
        self._busy.add(name)
        await clock.blocking(lambda: self._reuse(name))

    def _reuse(self, name: str) -> None:
        for old in self.path.glob(f"{_OLD}*"):
            with contextlib.suppress(FileNotFoundError):  # another burn was faster
                old.rename(self.path / name)
                return

    async def retire(self, name: str) -> None:
        """An image is not needed any more, if it is there; `reuse` may take it."""

        def retire() -> None:
            with contextlib.suppress(FileNotFoundError):
                (self.path / name).rename(self.path / f"{_OLD}{name}")

        await clock.blocking(retire)
        self._busy.discard(name)

    async def forget_old(self) -> None:
        """Delete old images."""
        await clock.blocking(self._forget_old)

    def _forget_old(self) -> None:
        for old in self.path.glob(f"{_OLD}*"):
            _remove(old)

    async def remove(self, *names: str) -> None:
        """Delete images or folders, if they are there."""
        await clock.blocking(lambda: [_remove(self.path / name) for name in names])
        self._busy.difference_update(names)

    async def clear(self, keep: Set[str]) -> None:
        """Delete whatever a former run left, but for the names in keep, which are in use."""
        self._busy |= keep
        await clock.blocking(lambda: self._clear(keep))

    def _clear(self, keep: Set[str]) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        for item in self.path.iterdir():
            ours = item.name.startswith(("volume-", _BATCH, _OLD, _PARITY))
            if ours and item.name not in keep:
                _remove(item)


def burns_at_once(drives: int, discs: int) -> int:
    """Batches to be at work on with so many drives that burn, and a spool of so many discs.

    Images are made ahead, as drives may end at almost the same time, and a set's parity takes its
    time. They get half of the spool: the other half is for images that wait for their set's parity.
    """
    return drives + max(2, min(drives // 2 + 1, discs // 2 - drives))


def image_name(volume: VolumeId) -> str:
    """The name of a volume's image in the spool."""
    return f"volume-{volume}{IMAGE_SUFFIX}"


def is_old(name: str) -> bool:
    """Whether it names an image that is kept to be written over."""
    return name.startswith(_OLD)


def _remove(path: Path) -> bool:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return True
