"""An optical drive of a real library: MMC-6 commands, and what its answers mean to us.

Reads go past the page cache, straight from the drive. A disc is held fast from load to eject, so
the robot cannot take it meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, NoReturn, TypeVar

import trio

from hsmfs.clock import MEDIA, blocking
from hsmfs.errors import (
    DriveError,
    HsmError,
    MediaError,
    UnreadableSector,
    VolumeMissing,
    WriteOnceViolation,
)
from hsmfs.library.ports import DiscStatus, MediumInfo, Progress
from hsmfs.library.scsi import burner, mmc
from hsmfs.library.scsi.config import Burner
from hsmfs.library.scsi.inquiry import test_unit_ready
from hsmfs.library.scsi.link import Link
from hsmfs.library.scsi.sense import Key, Sense
from hsmfs.library.scsi.sg import CheckCondition, Device, ScsiError
from hsmfs.types import SECTOR, ElementAddress

MAX_TRANSFER = 256 * 1024
"""Bytes of one command; more than most adapters take in one piece gains nothing."""
READY_WAIT_S = 240.0
"""How long a drive may take to spin up and know its disc."""
POLL_S = 0.5

T = TypeVar("T")
Full = Callable[[], Awaitable[bool]]
"""Asks the robot whether there is a disc in the drive."""


class ScsiDrive:
    """A `ports.Drive` behind a SCSI address."""

    def __init__(
        self,
        name: str,
        serial: str,
        address: ElementAddress,
        link: Link,
        *,
        node: Callable[[], Path | None],
        burner: Burner,
    ) -> None:
        """node finds the block device (/dev/srN) for the program that burns."""
        self.name = name
        self.serial = serial
        self.address = address
        self.full: Full | None = None
        self._link = link
        self._node = node
        self._burner: Burner = burner
        self._one_call = trio.Lock()
        self._loaded: MediumInfo | None = None
        self._ejected = False

    @property
    def loaded(self) -> MediumInfo | None:
        """What the last load or burn reported."""
        return self._loaded

    async def load(self) -> MediumInfo:
        """Wait until the drive is ready, taking the disc in if its tray is out."""
        async with self._one_call:
            if self._loaded is None:
                await self._spin_up()
                self._loaded = await self._do(self._look)
                await self._do(lambda device: mmc.hold(device, True))
            return self._loaded

    async def read(self, sector: int, count: int) -> bytes:
        """Exactly count sectors from sector on."""
        if sector < 0 or count < 0:
            raise ValueError(f"read of {count} sectors at {sector}")
        async with self._one_call:
            end = self._ready().written_bytes // SECTOR
            inside = max(0, min(sector + count, end) - sector)
            data = await blocking(partial(self._read, sector, inside), MEDIA)
            if inside < count:
                # A drive is never asked for what lies behind the end: some answer at random.
                raise self._unreadable(max(sector, end))
            return data

    async def burn(self, image: Path, on_progress: Progress) -> None:
        """Burn the image on the blank disc by the program that the configuration names."""
        async with self._one_call:
            medium = self._ready()
            if not medium.blank:
                raise WriteOnceViolation(f"the disc in drive {self.name} is not blank")
            source = await blocking(lambda: image.open("rb"), MEDIA)
            with source:
                size = os.fstat(source.fileno()).st_size
                self._check_size(size, medium)
                await self._burn(source, size, on_progress)

    async def eject(self) -> None:
        """Free the disc and give it out; an empty drive has nothing to do."""
        async with self._one_call:
            await self._do(self._give_out)
            self._loaded, self._ejected = None, True

    def close(self) -> None:
        """Let go of the device; the disc stays in the drive and is held no more."""
        if self._loaded is not None:
            with suppress(ScsiError):  # a drive that is gone holds nothing
                self._link.call(lambda device: mmc.hold(device, False))
        self._loaded = None
        self._link.close()

    # Loading

    async def _spin_up(self) -> None:
        deadline = trio.current_time() + READY_WAIT_S
        taken_in = False
        while True:
            sense = await self._do(_not_ready)
            if sense is None:
                return
            if sense.no_medium:
                if taken_in and trio.current_time() > deadline:
                    raise VolumeMissing(f"there is no disc in drive {self.name}")
                if not taken_in:
                    if self.full is None or not await self.full():
                        raise VolumeMissing(f"there is no disc in drive {self.name}")
                    await self._do(mmc.load_tray)
                    taken_in = True
                    continue
            elif not sense.becoming_ready:
                raise self._failed(sense)
            elif trio.current_time() > deadline:
                raise DriveError(f"drive {self.name} does not get ready: {sense}")
            await trio.sleep(POLL_S)

    @staticmethod
    def _look(device: Device) -> MediumInfo:
        """What is in the drive; blocking."""
        status = mmc.disc_information(device).status
        kind = mmc.profile(device)
        if status is DiscStatus.BLANK:
            return MediumInfo(status, mmc.free_bytes(device), 0, kind)
        written = mmc.written_bytes(device)
        return MediumInfo(status, written, written, kind)

    @staticmethod
    def _give_out(device: Device) -> None:
        mmc.hold(device, False)
        try:
            mmc.eject_tray(device)
        except CheckCondition as error:
            if not error.sense.no_medium:
                raise

    # Reading

    def _read(self, sector: int, count: int) -> bytes:
        """Read in steps; the first sector that fails is found by halving."""
        buffer = bytearray(count * SECTOR)
        with memoryview(buffer) as view:
            at = 0
            while at < len(buffer):
                with view[at : at + MAX_TRANSFER] as piece:
                    self._read_piece(sector + at // SECTOR, piece)
                at += MAX_TRANSFER
        return bytes(buffer)

    def _read_piece(self, sector: int, piece: memoryview) -> None:
        try:
            self._link.call(lambda device: mmc.read_into(device, sector, piece))
        except CheckCondition as error:
            sense = error.sense
            if not _medium_fault(sense):
                self._explain(error)
            count = len(piece) // SECTOR
            if count > 1:
                middle = count // 2 * SECTOR
                with piece[:middle] as first, piece[middle:] as second:
                    self._read_piece(sector, first)
                    self._read_piece(sector + middle // SECTOR, second)
                return
            raise self._unreadable(sector, sense) from error
        except ScsiError as error:
            self._explain(error)

    # Burning

    def _check_size(self, size: int, medium: MediumInfo) -> None:
        if size % SECTOR or not size:
            raise MediaError(f"an image of {size} bytes is not whole sectors")
        if medium.capacity_bytes and size > medium.capacity_bytes:
            raise MediaError(
                f"an image of {size} bytes does not fit on a disc of {medium.capacity_bytes}"
            )

    async def _burn(self, source: IO[bytes], size: int, on_progress: Progress) -> None:
        """From here on the disc is spoiled unless all goes well."""
        node = await blocking(self._node, MEDIA)
        if node is None:
            raise DriveError(f"drive {self.name} has no block device to burn through")
        words = burner.command(self._burner, node, size)

        def progress(done: int) -> None:
            trio.from_thread.check_cancelled()
            trio.from_thread.run_sync(on_progress, done)

        done = False
        await self._do(lambda device: mmc.hold(device, False))  # the program holds it itself
        await blocking(self._link.close, MEDIA)  # and wants the device for itself
        try:
            await blocking(lambda: burner.burn(words, source, size, progress), MEDIA)
            done = True
        except (burner.BurnFailed, OSError) as error:
            raise DriveError(
                f"drive {self.name} failed burning: {error}; the disc is spoiled"
            ) from error
        finally:
            with trio.CancelScope(shield=True):
                await self._see_burned(done)
        if not self._ready().written_bytes >= size:
            raise DriveError(
                f"drive {self.name} has {self._ready().written_bytes} of {size} bytes on the disc "
                "after the burn"
            )

    async def _see_burned(self, done: bool) -> None:
        """Take in what the burn left, after a reload if the drive does not know it yet.

        A burn that did not end well leaves a disc that counts for nothing, even if the drive calls
        it blank: that is what it will be told to be until the disc was out of the drive.
        """
        try:
            info = await self._do(self._look)
            if done and info.status is not DiscStatus.CLOSED:
                await self._do(self._give_out)
                await self._do(mmc.load_tray)
                await self._spin_up()
                info = await self._do(self._look)
            await self._do(lambda device: mmc.hold(device, True))
        except HsmError:
            if done:
                raise
            info = MediumInfo(DiscStatus.INCOMPLETE, 0, 0, "unknown")
        if not done:
            info = MediumInfo(DiscStatus.INCOMPLETE, info.capacity_bytes, 0, info.kind)
        self._loaded = info

    # Errors

    def _ready(self) -> MediumInfo:
        if self._loaded is None:
            raise VolumeMissing(f"drive {self.name} has no disc loaded", next_step="load one first")
        return self._loaded

    async def _do(self, act: Callable[[Device], T]) -> T:
        def run() -> T:
            try:
                return self._link.call(act)
            except ScsiError as error:
                self._explain(error)

        return await blocking(run, MEDIA)

    def _explain(self, error: ScsiError) -> NoReturn:
        """Raise the error of ours."""
        if not isinstance(error, CheckCondition):
            raise DriveError(f"drive {self.name} does not answer: {error}") from error
        raise self._failed(error.sense) from error

    def _failed(self, sense: Sense) -> HsmError:
        if sense.no_medium or sense.changed:
            self._loaded = None
            what = "has no disc any more" if sense.no_medium else "was opened by somebody"
            return VolumeMissing(f"drive {self.name} {what}")
        return DriveError(f"drive {self.name} failed: {sense}")

    def _unreadable(self, sector: int, sense: Sense | None = None) -> UnreadableSector:
        why = f": {sense}" if sense else " and never was written"
        return UnreadableSector(f"sector {sector} does not read in drive {self.name}{why}", sector)


def _not_ready(device: Device) -> Sense | None:
    """What TEST UNIT READY says, None if all is well."""
    try:
        test_unit_ready(device)
    except CheckCondition as error:
        return error.sense
    return None


def _medium_fault(sense: Sense) -> bool:
    """The disc does not read there: a medium error, a blank check, or no such sector."""
    return sense.key in (Key.MEDIUM_ERROR, Key.BLANK_CHECK) or (
        sense.key is Key.ILLEGAL_REQUEST and sense.asc in (0x21, 0x64)
    )
