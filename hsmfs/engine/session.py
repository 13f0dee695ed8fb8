"""A disc in a drive, given to one user: reads and burns with the ledger kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import trio

from .. import crash
from ..catalog.queues import RecallClass
from ..catalog.volumes import Volume
from ..errors import DriveError, HsmError, MediaError, UnreadableSector
from ..library.ports import Drive, MediumInfo, Progress
from .ledger import Ledger

T = TypeVar("T")
LOOK_AGAIN_S = 120.0
"""Seconds for a drive to tell what a burn that failed left of the disc."""
Within = Callable[[Callable[[], Awaitable[bytes]]], Awaitable[bytes]]
"""Runs a drive's call with a deadline; raises DriveError when it passes."""


class Session:
    """Made by `Mounts.use`; ends with it.

    Attributes:
        drive: the drive, of which no one else makes use meanwhile.
        volume: the disc as the catalog had it when it was given out.
        medium: what the drive says of the disc.
        urgency: of the work done here; may be raised or lowered by the user.
        broken: the drive failed; end the session.
        untouched: a burn failed, and the disc was looked at anew: it is blank.
        doubted: what did not read here says nothing good of the drive: it does not clear it.
        read_bytes, reads, read_seconds: what was read in it, in how many calls, and the drive's
            time for that.
    """

    def __init__(
        self,
        drive: Drive,
        volume: Volume,
        medium: MediumInfo,
        urgency: RecallClass,
        *,
        ledger: Ledger,
        within: Within,
        wanted: Callable[[Session], bool],
    ) -> None:
        self.drive, self.volume, self.medium, self.urgency = drive, volume, medium, urgency
        self.started = trio.current_time()
        self.broken = False
        self.worked = self.doubted = self.untouched = False
        self.read_bytes, self.reads, self.read_seconds = 0, 0, 0.0
        self._ledger = ledger
        self._within = within
        self._wanted = wanted

    @property
    def wanted_elsewhere(self) -> bool:
        """Others wait for the drive, and are more urgent or the run cap is over; or it is down."""
        return self._wanted(self)

    async def read(self, sector: int, count: int) -> bytes:
        """Exactly count sectors of 2048 bytes. Raises UnreadableSector, DriveError."""
        try:
            return await self.test(sector, count)
        except UnreadableSector as error:
            await self._ledger.unreadable(self.drive, self.volume, error)
            raise

    async def test(self, sector: int, count: int) -> bytes:
        """As `read`, but nobody is blamed yet for a sector that does not read: the caller does."""
        begun = trio.current_time()
        try:
            data = await self._within(lambda: self.drive.read(sector, count))
        except DriveError as error:
            self.broken = True
            await self._ledger.failed(self.drive, self.volume, error)
            raise
        self.worked = True
        self.read_bytes += len(data)
        self.reads += 1
        self.read_seconds += trio.current_time() - begun
        return data

    async def doubt(self, error: MediaError) -> None:
        """It did not read here: the disc goes to another drive before anybody is blamed."""
        self.doubted = True
        await self._ledger.doubt(self.drive, self.volume, error)

    async def tested(self, note: str, *, good: bool) -> None:
        """The disc's test ended here."""
        await self._ledger.tested(self.drive, self.volume, note, good=good)

    async def accuse(self, error: UnreadableSector) -> None:
        """What was read is not what was written: disc or drive is blamed."""
        await self._ledger.unreadable(self.drive, self.volume, error)

    async def _still_blank(self) -> bool:
        """Whether the disc, taken in anew, is as blank as before the burn; False in any doubt."""
        try:
            with trio.fail_after(LOOK_AGAIN_S):
                await self.drive.eject()
                return (await self.drive.load()).blank
        except (HsmError, trio.TooSlowError):
            return False

    async def burn(self, image: Path, on_progress: Progress) -> None:
        """Burn the image and close the disc; a cancellation waits for the end.

        Raises as `library.ports.Drive.burn`.
        """
        crash.point("mounts.burn.start")
        try:
            with trio.CancelScope(shield=True):
                await self.drive.burn(image, on_progress)
        except DriveError as error:
            self.broken = True
            await self._ledger.failed(self.drive, self.volume, error, writing=True)
            with trio.CancelScope(shield=True):
                self.untouched = await self._still_blank()
            raise
        finally:
            if self.drive.loaded is not None:
                self.medium = self.drive.loaded
        self.worked = True
        crash.point("mounts.burn.end")
