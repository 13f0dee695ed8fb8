"""The simulated drive: reads by pread and burns by copying, in threads and at the drive's speed.

It works on the disc whose directory lies in its element. The image is held open from load to
eject, and the changer refuses to take the disc meanwhile, as the tray lock of a real drive does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import trio

from hsmfs import crash
from hsmfs.clock import MEDIA, blocking
from hsmfs.errors import DriveError, MediaError, UnreadableSector, VolumeMissing
from hsmfs.library.ports import MediumInfo, Progress
from hsmfs.library.simulated.direct import Buffer
from hsmfs.library.simulated.faults import Fault, FaultKind, Faults
from hsmfs.library.simulated.layout import disc_in
from hsmfs.library.simulated.medium import Medium, read_sectors
from hsmfs.library.simulated.timing import Timing, pass_until
from hsmfs.types import SECTOR, ElementAddress

BLOCK = 16 * 1024 * 1024
"""Bytes burned between two reports of progress, and so between two chances to cancel."""


class SimulatedDrive:
    """A `ports.Drive` over the directory of one drive element."""

    def __init__(
        self,
        root: Path,
        name: str,
        address: ElementAddress,
        *,
        disc_bytes: int,
        timing: Timing,
        faults: Faults,
        sync_burns: bool = True,
    ) -> None:
        self.name = name
        self.serial = f"SIM{address:05d}"
        self.address = address
        self._root = root
        self._disc_bytes = disc_bytes
        self._timing = timing
        self._faults = faults
        self._sync_burns = sync_burns
        self._one_call = trio.Lock()
        self._buffer = Buffer()
        self._medium: Medium | None = None
        self._loaded: MediumInfo | None = None
        self._fd: int | None = None
        self._position = 0
        self._read_until = 0.0

    @property
    def loaded(self) -> MediumInfo | None:
        """What the last load or burn reported."""
        return self._loaded

    async def load(self) -> MediumInfo:
        """Open the disc that lies in the drive."""
        async with self._one_call:
            if self._loaded is not None:
                return self._loaded
            started = trio.current_time()
            medium, info, fd = await blocking(self._open, MEDIA)
            crash.point("drive.loaded")
            self._medium, self._loaded, self._fd, self._position = medium, info, fd, 0
            self._read_until = 0.0
            try:
                await pass_until(started, self._timing.load_s)
            except trio.Cancelled:
                self._forget()
                raise
            return info

    async def read(self, sector: int, count: int) -> bytes:
        """Exactly count sectors from sector on."""
        if sector < 0 or count < 0:
            raise ValueError(f"read of {count} sectors at {sector}")
        async with self._one_call:
            medium = self._ready()
            started = trio.current_time()
            if self._read_until and sector == self._position:
                started = self._timing.began(self._read_until, started)
            duration = self._timing.reading(self._position, sector, count)
            self._read_until = 0.0
            try:
                data = await blocking(lambda: self._read(medium, sector, count), MEDIA)
                self._read_until = started + duration
            finally:
                self._position = sector + count
                await pass_until(started, duration)
            return data

    async def burn(self, image: Path, on_progress: Progress) -> None:
        """Copy the image onto the blank disc and close it."""
        async with self._one_call:
            medium = self._ready()
            source, size = await blocking(lambda: _open_image(image), MEDIA)
            target: int | None = None
            try:
                target = await blocking(partial(self._begin, medium, size), MEDIA)
                crash.point("drive.burn.begun")
                await self._copy(medium, source, target, size, on_progress)
                await self._close(medium, target)
            finally:
                os.close(source)
                if target is not None:
                    os.close(target)
                    await self._reopen(medium)

    async def eject(self) -> None:
        """Close the image; the robot may take the disc."""
        async with self._one_call:
            self._forget()
            crash.point("drive.ejected")

    def close(self) -> None:
        """Let go of the image without a word to anyone, at the end of the process."""
        self._forget()

    def _ready(self) -> Medium:
        if self._medium is None:
            raise VolumeMissing(f"drive {self.name} has no disc loaded", next_step="load one first")
        return self._medium

    def _forget(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
        self._medium = self._loaded = self._fd = None

    def _open(self) -> tuple[Medium, MediumInfo, int | None]:
        disc = disc_in(self._root, self.address)
        if disc is None:
            raise VolumeMissing(f"there is no disc in drive {self.name}")
        medium = Medium(disc, self._disc_bytes)
        if self._faults.strike(FaultKind.LOAD_FAILS, drive=self.name, barcode=medium.barcode):
            raise DriveError(f"drive {self.name} does not get ready with disc {medium.barcode}")
        return medium, medium.info(), medium.open()

    def _read(self, medium: Medium, sector: int, count: int) -> bytes:
        if self._faults.strike(FaultKind.READ_FAILS, drive=self.name, barcode=medium.barcode):
            raise DriveError(f"drive {self.name} failed reading disc {medium.barcode}")
        for fault in self._touched(FaultKind.UNREADABLE, medium, sector, count):
            first = fault.first_in(sector, count)
            assert first is not None
            raise UnreadableSector(
                f"drive {self.name} cannot read sector {first} of disc {medium.barcode}", first
            )
        with self._failing("reading", medium):
            data = read_sectors(self._fd, self._buffer, sector, count, medium.barcode)
        for fault in self._touched(FaultKind.CORRUPT, medium, sector, count):
            data = _spoil(data, sector, fault)
        return data

    def _touched(
        self, kind: FaultKind, medium: Medium, sector: int, count: int
    ) -> Iterator[Fault]:
        faults = self._faults.armed(kind, drive=self.name, barcode=medium.barcode)
        hits = [f for f in faults if f.first_in(sector, count) is not None]
        return filter(self._faults.spend, sorted(hits, key=lambda fault: fault.sector))

    async def _copy(
        self, medium: Medium, source: int, target: int, size: int, on_progress: Progress
    ) -> None:
        started = trio.current_time()
        done = 0
        while done < size:
            await blocking(partial(self._burn_block, medium, source, target, done, size), MEDIA)
            crash.point("drive.burn.written")
            done = min(done + BLOCK, size)
            await pass_until(started, self._timing.writing(done))
            on_progress(done)

    def _burn_block(self, medium: Medium, source: int, target: int, at: int, size: int) -> None:
        end = min(at + BLOCK, size)
        faults = self._faults.armed(FaultKind.BURN_FAILS, drive=self.name, barcode=medium.barcode)
        hits = sorted((f for f in faults if f.at_byte < end), key=lambda fault: fault.at_byte)
        fault = next(filter(self._faults.spend, hits), None)
        if fault is not None:
            end = max(at, fault.at_byte)
        with self._failing("burning", medium):
            copied = self._buffer.copy(source, target, at, end - at)
        if fault is not None:
            raise DriveError(
                f"drive {self.name} failed burning disc {medium.barcode} at byte {end};"
                " the disc is spoiled"
            )
        if copied < end - at:
            raise MediaError(f"the image became shorter while disc {medium.barcode} was burned")

    async def _close(self, medium: Medium, target: int) -> None:
        with trio.CancelScope(shield=True):
            await blocking(partial(self._end, medium, target), MEDIA)
            crash.point("drive.burn.closed")

    def _begin(self, medium: Medium, size: int) -> int:
        if self._faults.strike(FaultKind.BURN_REFUSED, drive=self.name, barcode=medium.barcode):
            raise DriveError(f"drive {self.name} does not begin to burn disc {medium.barcode}")
        with self._failing("burning", medium):
            return medium.begin_burn(size)

    def _end(self, medium: Medium, target: int) -> None:
        with self._failing("closing", medium):
            medium.close_burn(target, sync=self._sync_burns)

    @contextmanager
    def _failing(self, doing: str, medium: Medium) -> Iterator[None]:
        """The files beneath fail as a drive does, as when their disk is full."""
        try:
            yield
        except OSError as error:
            raise DriveError(
                f"drive {self.name} failed {doing} disc {medium.barcode}: {error}"
            ) from error

    async def _reopen(self, medium: Medium) -> None:
        """Take in what the burn left on the disc."""
        with trio.CancelScope(shield=True):
            info, fd = await blocking(lambda: (medium.info(), medium.open()), MEDIA)
        if self._fd is not None:
            os.close(self._fd)
        self._loaded, self._fd, self._position = info, fd, 0
        self._read_until = 0.0


def _open_image(image: Path) -> tuple[int, int]:
    fd = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    return fd, os.fstat(fd).st_size


def _spoil(data: bytes, sector: int, fault: Fault) -> bytes:
    """The data with the fault's sectors inverted."""
    start = max(0, fault.sector - sector) * SECTOR
    end = min(len(data), (fault.sector + fault.count - sector) * SECTOR)
    wrong = bytes(byte ^ 0xFF for byte in data[start:end])
    return data[:start] + wrong + data[end:]
