"""What the engine may ask of a disc library: the protocols of a changer, its drives and the whole.

Every implementation has exactly these calls and errors and passes the same tests. The words follow
SMC-3 (elements, READ ELEMENT STATUS, MOVE MEDIUM) and MMC-6 (READ DISC INFORMATION).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from hsmfs.types import Barcode, ElementAddress

Progress = Callable[[int], None]
"""Called on the event loop with the bytes burned so far; it must return at once."""


class ElementKind(Enum):
    """The element types of SMC-3; the values are its element type codes."""

    TRANSPORT = 1
    STORAGE = 2
    IMPORT_EXPORT = 3
    DRIVE = 4


@dataclass(frozen=True, slots=True)
class Element:
    """One place that can hold one disc, and what the robot says is in it (SMC-3 element status)."""

    address: ElementAddress
    kind: ElementKind
    full: bool = False
    barcode: Barcode | None = None
    """None if empty, or if the label does not read."""
    accessible: bool = True
    """False while the robot cannot reach in: a drive not ejected, a magazine pulled out."""
    source: ElementAddress | None = None
    """The slot that the disc left last, if the robot knows."""
    magazine: int | None = None
    """Storage: number of the magazine that the slot belongs to, from 1, wherever that is;
    transport: the magazine that the robot holds."""
    slot: int | None = None
    """Storage: place in the magazine from 1; import/export: number of the mail slot from 1;
    transport: number of the arm from 1, if there are several."""
    drive: str | None = None
    """Drives only: the name of the drive."""
    unit: int | None = None
    """Where magazines move whole. Drives: the unit that it belongs to, from 1; storage: the unit
    that its magazine is in. None: discs move singly; the magazine is in the rack."""

    @property
    def place(self) -> str:
        """Where it is, in an admin's words."""
        if self.kind is ElementKind.STORAGE:
            return f"magazine {self.magazine} slot {self.slot}"
        if self.kind is ElementKind.IMPORT_EXPORT:
            return f"mail slot {self.slot}"
        if self.kind is ElementKind.DRIVE:
            return f"drive {self.drive}"
        return "the robot's gripper" + ("" if self.slot is None else f" {self.slot}")


class DiscStatus(Enum):
    """What may be done with a disc; the values are the disc status codes of MMC-6."""

    BLANK = 0
    INCOMPLETE = 1
    """A burn was begun and never finished: never blank again, nothing on it counts."""
    CLOSED = 2


@dataclass(frozen=True, slots=True)
class MediumInfo:
    """What a drive says of the disc in it; sizes in bytes."""

    status: DiscStatus
    capacity_bytes: int
    written_bytes: int
    """What reads; a drive may have rounded a burn up to its block of error correction."""
    kind: str
    """The profile in words, such as "BD-R"."""

    @property
    def blank(self) -> bool:
        return self.status is DiscStatus.BLANK


class Changer(Protocol):
    """The robot. Only `library.robot.Robot` calls `move` and `carry`, several at once only if they
    share no arm and no unit; `inventory` and `rescan` are called alone.

    Where magazines move whole the drives are divided into units. A unit takes one magazine, and
    moves its discs between their slots and its drives by itself.
    """

    async def inventory(self) -> list[Element]:
        """Every element, by address, as the robot knows it now.

        Raises DoorOpen, or ChangerError if the robot does not answer.
        """
        ...

    async def rescan(self) -> None:
        """Make the robot look at every label again (SMC-3 INITIALIZE ELEMENT STATUS); may be slow.

        Raises DoorOpen, ChangerError.
        """
        ...

    async def move(self, src: ElementAddress, dst: ElementAddress) -> None:
        """Take the disc in src to dst; returns when it lies there. Not ended by a cancellation.

        A disc left in the gripper is moved on by giving the transport element as src. A drive must
        have been ejected. Raises VolumeMissing (src is empty), DoorOpen, ChangerError (jam, dst
        full, drive not ejected; where magazines move whole all moves but those between a drive and
        the magazine in its unit); after an error only an inventory tells where the disc is.
        """
        ...

    async def carry(self, magazine: int, unit: int | None) -> None:
        """Bring a magazine from the rack into an empty unit, or (None) back into the rack.

        Its discs are all in slots when it leaves a unit. One that a jam left in the gripper is
        carried on so. Returns and raises as `move`; ChangerError where discs move singly.
        """
        ...


class Drive(Protocol):
    """One drive. Its calls are serialised by the implementation; sectors are 2048 bytes."""

    @property
    def name(self) -> str: ...

    @property
    def serial(self) -> str: ...

    @property
    def address(self) -> ElementAddress: ...

    @property
    def loaded(self) -> MediumInfo | None:
        """What the last load or burn reported; None before a load and after an eject."""
        ...

    async def load(self) -> MediumInfo:
        """Spin up what the robot put in and wait until it is ready; a second load is free.

        Raises VolumeMissing if there is no disc in the drive, DriveError.
        """
        ...

    async def read(self, sector: int, count: int) -> bytes:
        """Exactly count sectors from sector on.

        Raises UnreadableSector with the first bad sector (one that was never written too),
        DriveError, VolumeMissing if no disc is loaded.
        """
        ...

    async def burn(self, image: Path, on_progress: Progress) -> None:
        """Burn the image as the disc's one session, close it and leave it loaded.

        The image must be whole sectors and no larger than the disc, else MediaError and the disc
        stays blank. Raises WriteOnceViolation if it is not blank, DriveError, VolumeMissing, and
        OSError if the image does not open. After a DriveError or a cancellation in the middle the
        disc is INCOMPLETE: shield what must end.
        """
        ...

    async def eject(self) -> None:
        """Spin down and free the disc for the robot; nothing need be loaded. Raises DriveError."""
        ...


class Library(Protocol):
    """A changer, its drives and what its blank discs hold."""

    @property
    def changer(self) -> Changer: ...

    @property
    def drives(self) -> Sequence[Drive]: ...

    @property
    def disc_bytes(self) -> int:
        """Bytes on one blank disc, for planning; a loaded disc tells its own capacity."""
        ...

    async def close(self) -> None:
        """Let go of devices and files; discs stay where they are."""
        ...
