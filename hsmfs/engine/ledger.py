"""The health ledger at work: who is blamed for a failure, and what follows from it.

Attempts of this run are kept in memory and judged by `library.health`. Counts and states go to the
catalog, and which disc is not tried in which drive. A blamed drive is taken down, a blamed disc
becomes suspect.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from .. import clock, logs
from ..catalog.catalog import Catalog
from ..catalog.health import Apart, Entry, Kind
from ..catalog.volumes import Volume
from ..errors import ChecksumMismatch, Conflict, HsmError, MediaError, UnreadableSector
from ..library.health import Attempt, Blame, blame
from ..library.ports import Drive
from ..states import VOLUME_TRANSITIONS, VolumeState
from ..types import Barcode, VolumeId
from .events import Events

log = logs.get(__name__)
KEPT = 1000
"""Attempts remembered."""


class Ledger:
    """Counts loads and errors, and acts on them.

    Attributes:
        take_down: called with a drive's serial number and the reason when it is blamed.
        flagged: called when a disc has become suspect, or worse.
    """

    def __init__(self, catalog: Catalog, events: Events) -> None:
        self._catalog = catalog
        self._events = events
        self._history: deque[Attempt] = deque(maxlen=KEPT)
        self._failed: dict[tuple[str, Barcode], bool] = {}
        self._apart: set[tuple[str, Barcode]] = set()
        """Pairs that failed by the disc's fault: not tried again, and no drive is accused."""
        for serial, barcode, why in catalog.health.apart():
            if why is Apart.DISC:
                self._apart.add((serial, barcode))
            else:
                self._failed[serial, barcode] = why is Apart.WRITING
                self._history.append(Attempt(serial, barcode, False))
        self.take_down: Callable[[str, str], None] = lambda serial, reason: None
        self.flagged: Callable[[], None] = lambda: None

    def may_pair(self, serial: str, barcode: Barcode) -> bool:
        """Whether the disc may be tried in the drive: not if their last try together failed."""
        pair = (serial, barcode)
        return pair not in self._failed and pair not in self._apart

    def failed_in(self, barcode: Barcode) -> set[str]:
        """Drives in which the last try of the disc failed."""
        return {serial for serial, code in (*self._failed, *self._apart) if code == barcode}

    def apart(self) -> set[Barcode]:
        """Discs that are not tried in some drive."""
        return {barcode for _, barcode in (*self._failed, *self._apart)}

    def forgive(self, serial: str) -> None:
        """The drive was repaired: its past says nothing any more; in a transaction."""
        self._catalog.health.forgive(serial)
        self._failed = {pair: w for pair, w in self._failed.items() if pair[0] != serial}
        self._apart = {pair for pair in self._apart if pair[0] != serial}
        kept = [a for a in self._history if a.drive != serial]
        self._history.clear()
        self._history.extend(kept)

    async def loaded(self, drive: Drive, volume: Volume) -> None:
        """The disc was loaded in the drive."""
        async with self._catalog.write():
            self._catalog.volumes.count(volume.id, loads=1)
            self._catalog.volumes.count_drive(drive.serial, loads=1)
            self._catalog.health.count(volume.id, drive.serial, loads=1)

    async def read(self, drive: Drive, volume: Volume, size: int, seconds: float) -> None:
        """So many bytes were read in so many seconds of the drive's time."""
        async with self._catalog.write():
            self._catalog.health.count(
                volume.id, drive.serial, read_bytes=size, read_ns=int(seconds * 1e9)
            )

    async def tested(self, drive: Drive | None, volume: Volume, note: str, *, good: bool) -> None:
        """A scrub of the disc came to its end in the drive; None: it was not used in any."""
        kind = Kind.TEST if good else Kind.TEST_BAD
        serial = drive.serial if drive is not None else ""
        async with self._catalog.write():
            self._catalog.health.note(
                Entry(clock.now_ns(), volume.id, serial, kind.value, None, "", note)
            )

    async def doubt(self, drive: Drive, volume: Volume, error: HsmError) -> None:
        """Something did not read in this drive; another one is asked before anybody is blamed."""
        self._failed[drive.serial, volume.barcode] = False
        self._history.append(Attempt(drive.serial, volume.barcode, False))
        await self._note(drive, volume, error, Blame.UNDECIDED, apart=Apart.READING)
        log.warning(
            "unreadable, another drive is asked", drive=drive.name, volume=volume.barcode,
            error=error.message,
        )  # fmt: skip

    async def _note(
        self,
        drive: Drive,
        volume: Volume,
        error: HsmError,
        verdict: Blame,
        writing: bool = False,
        apart: Apart = Apart.NO,
    ) -> None:
        kind = Kind.WRITE if writing else Kind.FAILED
        if isinstance(error, UnreadableSector):
            kind = Kind.WRONG if isinstance(error, ChecksumMismatch) else Kind.UNREADABLE
        sector = getattr(error, "sector", None)
        async with self._catalog.write():
            self._catalog.health.count(volume.id, drive.serial, errors=1)
            if apart is not Apart.NO:
                self._catalog.health.set_apart(volume.id, drive.serial, apart)
            self._catalog.health.note(
                Entry(
                    clock.now_ns(), volume.id, drive.serial, kind.value, sector, verdict.value,
                    error.message,
                )
            )

    async def went_well(self, drive: Drive, volume: Volume) -> None:
        """The disc was read or written in the drive; accuses drives in which it failed."""
        pair = (drive.serial, volume.barcode)
        if not self.may_pair(*pair):
            self._failed.pop(pair, None)
            self._apart.discard(pair)
            await self._together(volume, drive.serial)
        self._history.append(Attempt(drive.serial, volume.barcode, True))
        for serial, barcode in [pair for pair in self._failed if pair[1] == volume.barcode]:
            if blame(self._history, serial, barcode) is Blame.DRIVE:
                writing = self._failed.pop((serial, barcode))
                await self._together(volume, serial)
                await self._blame_drive(
                    serial, f"failed on disc {barcode}, which drive {drive.name} took", writing
                )

    async def _together(self, volume: Volume, serial: str) -> None:
        async with self._catalog.write():
            self._catalog.health.set_apart(volume.id, serial, Apart.NO)

    async def failed(
        self, drive: Drive, volume: Volume, error: HsmError, *, writing: bool = False
    ) -> None:
        """The disc failed in the drive; blames one of them if there is evidence."""
        self._failed[drive.serial, volume.barcode] = writing
        self._history.append(Attempt(drive.serial, volume.barcode, False))
        verdict = blame(self._history, drive.serial, volume.barcode)
        log.warning(
            "drive or disc failed", drive=drive.name, volume=volume.barcode,
            blamed=verdict.value, error=error.message,
        )  # fmt: skip
        self._events.emit(
            "media_error", drive=drive.name, volume=volume.barcode, blamed=verdict.value,
            error=error.message,
        )  # fmt: skip
        apart = Apart.WRITING if writing else Apart.READING
        await self._note(drive, volume, error, verdict, writing, apart)
        if verdict is Blame.DRIVE:
            await self._blame_drive(drive.serial, error.message, writing)
        elif verdict is Blame.MEDIUM:
            async with self._catalog.write():
                self._catalog.volumes.count(volume.id, reads=not writing, writes=writing)
            await self.flag(volume.id, error.message)

    async def unreadable(self, drive: Drive, volume: Volume, error: HsmError) -> None:
        """Sectors of the disc do not read, or read wrong, in a drive that goes on working."""
        self._history.append(Attempt(drive.serial, volume.barcode, False))
        log.warning("unreadable", drive=drive.name, volume=volume.barcode, error=error.message)
        self._events.emit(
            "unreadable", drive=drive.name, volume=volume.barcode, error=error.message
        )
        verdict = blame(self._history, drive.serial, volume.barcode)
        await self._note(drive, volume, error, verdict)
        if verdict is Blame.DRIVE:
            await self._blame_drive(drive.serial, error.message, writing=False)
            return
        if verdict is Blame.MEDIUM:
            self._clear_drives(volume.barcode)
        async with self._catalog.write():
            if verdict is Blame.MEDIUM:
                self._catalog.health.clear_drives(volume.id)
            self._catalog.volumes.count(volume.id, reads=1)
        await self.flag(volume.id, error.message)

    async def flag(
        self, volume: VolumeId, reason: str, state: VolumeState = VolumeState.SUSPECT
    ) -> None:
        """Mark a disc suspect (or worse) with the reason, if it is not worse already."""
        found = self._catalog.volumes.get(volume)
        if found is None:
            return
        if state is VolumeState.SUSPECT and found.state is VolumeState.BLANK:
            state = VolumeState.DAMAGED
        if state not in VOLUME_TRANSITIONS[found.state] or found.state is VolumeState.DAMAGED:
            return
        async with self._catalog.write():
            self._catalog.volumes.set_state(volume, state, reason)
        log.warning(
            "disc is " + state.name.lower(), volume=found.barcode, reason=reason
        )
        self._events.emit(
            "volume_state", volume=found.barcode, state=state.name.lower(), reason=reason
        )
        self.flagged()

    async def quarantine(self, volume: Volume, reason: str) -> None:
        """Write nothing more to the disc, read it only if nothing else will do, and do not count on
        it; '': lift that. Raises Conflict for a disc that is being burned.
        """
        if reason and self._catalog.queues.burn(volume.id) is not None:
            raise Conflict(f"disc {volume.barcode} is being burned", next_step="wait until it is")
        await self._quarantine(volume, reason)

    async def too_small(self, volume: Volume, size: int, takes: int) -> MediaError:
        """The blank disc has no room for an image: it is spared, as others may have."""
        reason = f"takes {takes} bytes, too few for an image of {size}"
        await self._quarantine(volume, reason)
        return MediaError(
            f"disc {volume.barcode} {reason}",
            next_step="take it out, or set [library] disc to the size of the discs",
        )

    async def _quarantine(self, volume: Volume, reason: str) -> None:
        async with self._catalog.write():
            self._catalog.volumes.set_quarantine(volume.id, reason)
        log.info("quarantine", volume=volume.barcode, reason=reason or "lifted")
        self._events.emit("quarantine", volume=volume.barcode, reason=reason, lifted=not reason)

    async def set_aside(self, volume: Volume, what: str) -> None:
        """A disc that lay among the blank ones was written by others: it is never written on."""
        await self.flag(volume.id, what, VolumeState.DAMAGED)
        self._events.emit(
            "foreign_disc", volume=volume.barcode, message=f"set aside, take it out: {what}"
        )

    def _clear_drives(self, barcode: Barcode) -> None:
        """It was the disc: that it failed in a drive says nothing of the drive."""
        pairs = {pair for pair in self._failed if pair[1] == barcode}
        self._apart |= pairs
        self._failed = {pair: w for pair, w in self._failed.items() if pair not in pairs}
        kept = [a for a in self._history if a.ok or a.volume != barcode]
        self._history.clear()
        self._history.extend(kept)

    async def _blame_drive(self, serial: str, reason: str, writing: bool) -> None:
        async with self._catalog.write():
            self._catalog.volumes.count_drive(serial, reads=not writing, writes=writing)
        self.take_down(serial, reason)
