"""What each drive is doing, for those who watch: a wrapper around any library.

Every call into a drive passes through here and is noted, so neither the drives nor those who use
them have to tell. Relies on the protocols of ports.py alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import trio

from hsmfs.clock import blocking
from hsmfs.library.ports import Changer, Drive, Library, MediumInfo, Progress
from hsmfs.types import SECTOR, ElementAddress

LINGER_S = 0.5
"""A drive between two reads is shown as reading for so long."""


class Work(Enum):
    """What a drive does."""

    IDLE = "idle"
    LOADING = "loading"
    READING = "reading"
    BURNING = "burning"
    EJECTING = "ejecting"


@dataclass(frozen=True, slots=True)
class Activity:
    """A drive's work: bytes done, and of how many if that is known, else 0."""

    work: Work
    done: int = 0
    total: int = 0


IDLE = Activity(Work.IDLE)


class WatchedDrive:
    """A `ports.Drive` that knows what it is doing."""

    def __init__(self, drive: Drive) -> None:
        self._drive = drive
        self._last = IDLE
        self._calls = 0
        self._ended = 0.0

    @property
    def activity(self) -> Activity:
        """What it does now; on the event loop only."""
        if not self._calls and trio.current_time() > self._ended + LINGER_S:
            return IDLE
        return self._last

    @property
    def name(self) -> str:
        return self._drive.name

    @property
    def serial(self) -> str:
        return self._drive.serial

    @property
    def address(self) -> ElementAddress:
        return self._drive.address

    @property
    def loaded(self) -> MediumInfo | None:
        return self._drive.loaded

    async def load(self) -> MediumInfo:
        with self._doing(Activity(Work.LOADING)):
            return await self._drive.load()

    async def read(self, sector: int, count: int) -> bytes:
        before = self.activity
        done = before.done if before.work is Work.READING else 0
        with self._doing(Activity(Work.READING, done)):
            data = await self._drive.read(sector, count)
            self._last = Activity(Work.READING, done + count * SECTOR)
            return data

    async def burn(self, image: Path, on_progress: Progress) -> None:
        size = await blocking(lambda: image.stat().st_size)

        def noted(done: int) -> None:
            self._last = Activity(Work.BURNING, done, size)
            on_progress(done)

        with self._doing(Activity(Work.BURNING, 0, size)):
            await self._drive.burn(image, noted)

    async def eject(self) -> None:
        with self._doing(Activity(Work.EJECTING)):
            await self._drive.eject()

    @contextmanager
    def _doing(self, activity: Activity) -> Iterator[None]:
        self._last = activity
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
            self._ended = trio.current_time()


class WatchedLibrary:
    """A `ports.Library` whose drives know what they are doing."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._drives = tuple(WatchedDrive(drive) for drive in library.drives)

    @property
    def changer(self) -> Changer:
        return self._library.changer

    @property
    def drives(self) -> Sequence[WatchedDrive]:
        return self._drives

    @property
    def disc_bytes(self) -> int:
        return self._library.disc_bytes

    async def close(self) -> None:
        await self._library.close()


def activity_of(drive: Drive) -> Activity:
    """What the drive does, or IDLE if nobody watches it."""
    return drive.activity if isinstance(drive, WatchedDrive) else IDLE
