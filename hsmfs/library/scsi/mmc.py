"""What an optical drive says of its disc, taken from its bytes, and commands to it (MMC-6)."""

from __future__ import annotations

from dataclasses import dataclass

from hsmfs.library.ports import DiscStatus
from hsmfs.library.scsi.sense import Key
from hsmfs.library.scsi.sg import CheckCondition, Device
from hsmfs.types import SECTOR

_READ_10, _READ_12 = 0x28, 0xA8
_READ_CAPACITY, _READ_DISC_INFORMATION, _READ_TRACK_INFORMATION = 0x25, 0x51, 0x52
_GET_CONFIGURATION, _START_STOP_UNIT, _PREVENT_ALLOW = 0x46, 0x1B, 0x1E
READ_TIMEOUT_S = 120.0
"""A drive may try hard before it gives a sector up."""
TRAY_TIMEOUT_S = 120.0

PROFILES = {
    0x08: "CD-ROM", 0x09: "CD-R", 0x0A: "CD-RW",
    0x10: "DVD-ROM", 0x11: "DVD-R", 0x12: "DVD-RAM", 0x13: "DVD-RW", 0x14: "DVD-RW",
    0x15: "DVD-R DL", 0x16: "DVD-R DL", 0x1A: "DVD+RW", 0x1B: "DVD+R", 0x2B: "DVD+R DL",
    0x40: "BD-ROM", 0x41: "BD-R", 0x42: "BD-R", 0x43: "BD-RE",
}  # fmt: skip
"""Profiles in words (MMC-6 table 93)."""


@dataclass(frozen=True, slots=True)
class DiscInformation:
    """READ DISC INFORMATION, standard (MMC-6 section 6.21.3)."""

    status: DiscStatus
    erasable: bool


def parse_disc_information(data: bytes) -> DiscInformation:
    """Disc status 11b (others) counts as closed: nothing is written there."""
    flags = data[2] if len(data) > 2 else 0x02
    return DiscInformation(DiscStatus(min(flags & 0x03, 2)), bool(flags & 0x10))


def disc_information(device: Device) -> DiscInformation:
    """Whether the disc is blank, incomplete or closed. Raises ScsiError."""
    command = bytes((_READ_DISC_INFORMATION, 0, 0, 0, 0, 0, 0)) + (34).to_bytes(2, "big") + b"\0"
    return parse_disc_information(device.run(command, data_in=34))


def parse_free_bytes(data: bytes) -> int:
    """Free blocks of READ TRACK INFORMATION (MMC-6 section 6.25.3, bytes 16 to 19) in bytes."""
    return int.from_bytes(data[16:20], "big") * SECTOR if len(data) >= 20 else 0


def free_bytes(device: Device) -> int:
    """What the first track of a blank disc takes; 0 if the drive does not say. Raises ScsiError."""
    command = (
        bytes((_READ_TRACK_INFORMATION, 0x01)) + (1).to_bytes(4, "big") + b"\0"
        + (48).to_bytes(2, "big") + b"\0"
    )  # fmt: skip
    return parse_free_bytes(_if_known(device, command, 48))


def written_bytes(device: Device) -> int:
    """READ CAPACITY (MMC-6 section 6.20) in bytes; 0 for a disc with nothing that reads."""
    data = _if_known(device, bytes((_READ_CAPACITY,)) + bytes(9), 8)
    if len(data) < 8:
        return 0
    last, length = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:8], "big")
    return (last + 1) * (length or SECTOR) if last else 0


def profile(device: Device) -> str:
    """The current profile in words (GET CONFIGURATION, MMC-6 section 6.6)."""
    command = bytes((_GET_CONFIGURATION, 0x02)) + bytes(5) + (8).to_bytes(2, "big") + b"\0"
    data = _if_known(device, command, 8)
    number = int.from_bytes(data[6:8], "big") if len(data) >= 8 else 0
    return PROFILES.get(number, f"profile {number:04X}h")


def read_into(device: Device, sector: int, buffer: memoryview) -> None:
    """READ(10) or READ(12) (MMC-6 sections 6.17, 6.18) of whole sectors. Raises ScsiError.

    News that the medium may have changed are no news to read on after: they are raised.
    """
    count = len(buffer) // SECTOR
    if count <= 0xFFFF:
        command = bytes((_READ_10, 0)) + sector.to_bytes(4, "big") + b"\0"
        command += count.to_bytes(2, "big") + b"\0"
    else:
        command = bytes((_READ_12, 0)) + sector.to_bytes(4, "big") + count.to_bytes(4, "big")
        command += bytes(2)
    device.run(
        command, data_in=buffer, timeout_s=READ_TIMEOUT_S, retry=lambda sense: not sense.changed
    )


def load_tray(device: Device) -> None:
    """START STOP UNIT with LoEj and Start (MMC-6 section 6.42): take the disc in and spin up."""
    device.run(bytes((_START_STOP_UNIT, 0, 0, 0, 0x03, 0)), timeout_s=TRAY_TIMEOUT_S)


def eject_tray(device: Device) -> None:
    """START STOP UNIT with LoEj: spin down and give the disc out."""
    device.run(bytes((_START_STOP_UNIT, 0, 0, 0, 0x02, 0)), timeout_s=TRAY_TIMEOUT_S)


def hold(device: Device, fast: bool) -> None:
    """PREVENT ALLOW MEDIUM REMOVAL (MMC-6 section 6.13): hold the disc fast, or free it."""
    device.run(bytes((_PREVENT_ALLOW, 0, 0, 0, 0x01 if fast else 0x00, 0)))


def _if_known(device: Device, command: bytes, length: int) -> bytes:
    """The answer, or b'' from a drive that does not know the command or has nothing to say."""
    try:
        return device.run(command, data_in=length)
    except CheckCondition as error:
        if error.sense.key in (Key.ILLEGAL_REQUEST, Key.BLANK_CHECK):
            return b""
        raise
