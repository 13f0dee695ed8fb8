"""A simulated disc: an image file and a note of its state, written once.

A disc without files is blank, so that thousands cost nothing. A burn first notes durably that the
disc is no longer blank, so whatever ends the burn early leaves a spoiled disc, as a laser does.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from hsmfs import durable
from hsmfs.errors import MediaError, UnreadableSector, WriteOnceViolation
from hsmfs.library.ports import DiscStatus, MediumInfo
from hsmfs.library.simulated.direct import Buffer, prefer_direct
from hsmfs.library.simulated.files import replace_text
from hsmfs.types import SECTOR, Barcode

IMAGE = "disc.iso"
NOTE = "medium.json"
KIND = "BD-R (simulated)"


@dataclass(frozen=True, slots=True)
class Medium:
    """The disc in one directory; capacity_bytes is that of the library's blank discs."""

    path: Path
    capacity_bytes: int

    @property
    def barcode(self) -> Barcode:
        """What the label says, in truth (a fault may make the robot read it otherwise)."""
        return Barcode(self.path.name)

    @property
    def image(self) -> Path:
        return self.path / IMAGE

    def info(self) -> MediumInfo:
        """What a drive sees. Raises MediaError if the note of its state is damaged."""
        try:
            written = self.image.stat().st_size
        except FileNotFoundError:
            written = None
        try:
            note = json.loads((self.path / NOTE).read_text())
            status, capacity = DiscStatus[note["status"]], int(note["capacity_bytes"])
        except FileNotFoundError:
            status = DiscStatus.BLANK if written is None else DiscStatus.INCOMPLETE
            capacity = self.capacity_bytes
        except (ValueError, KeyError, TypeError) as error:
            raise MediaError(
                f"disc {self.barcode}: {self.path / NOTE} is damaged: {error}"
            ) from error
        return MediumInfo(status, capacity, written or 0, KIND)

    def open(self) -> int | None:
        """A descriptor to read the image by, None if nothing was ever burned."""
        try:
            return prefer_direct(os.open(self.image, os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            return None

    def begin_burn(self, image_bytes: int) -> int:
        """Spoil the blank disc durably and return a descriptor to burn by.

        Raises WriteOnceViolation if it is not blank; MediaError, with the disc still blank, if the
        image does not fit or is not whole sectors.
        """
        info = self.info()
        if not info.blank:
            raise WriteOnceViolation(
                f"disc {self.barcode} is {info.status.name.lower()}, not blank"
            )
        if image_bytes % SECTOR or not image_bytes:
            raise MediaError(f"an image of {image_bytes} bytes is not whole sectors")
        if image_bytes > info.capacity_bytes:
            raise MediaError(
                f"an image of {image_bytes} bytes does not fit on disc {self.barcode}"
                f" of {info.capacity_bytes}"
            )
        self._note(DiscStatus.INCOMPLETE, info.capacity_bytes)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            return prefer_direct(os.open(self.image, flags, 0o600))
        except FileExistsError:
            raise WriteOnceViolation(f"disc {self.barcode} already has an image") from None

    def close_burn(self, fd: int, *, sync: bool) -> None:
        """Close the session: the image becomes durable and read-only, then the disc is closed."""
        if sync:
            os.fsync(fd)
        os.fchmod(fd, 0o444)
        durable.sync(self.path)
        self._note(DiscStatus.CLOSED, self.info().capacity_bytes)

    def _note(self, status: DiscStatus, capacity_bytes: int) -> None:
        note = {"status": status.name, "capacity_bytes": capacity_bytes}
        replace_text(self.path / NOTE, json.dumps(note) + "\n")


def read_sectors(
    fd: int | None, buffer: Buffer, sector: int, count: int, barcode: Barcode
) -> bytes:
    """Exactly count sectors. Raises UnreadableSector for the first that was never burned."""
    want = count * SECTOR
    data = buffer.read(fd, sector * SECTOR, want) if fd is not None and want else b""
    if len(data) < want:
        first = sector + len(data) // SECTOR
        raise UnreadableSector(f"disc {barcode}: nothing was burned at sector {first}", first)
    return data
