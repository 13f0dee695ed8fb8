"""Who a SCSI device is: INQUIRY and its vital product data (SPC-4 sections 6.6 and 7.8)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from hsmfs.library.scsi.sense import Key
from hsmfs.library.scsi.sg import CheckCondition, Device

_INQUIRY, _TEST_UNIT_READY = 0x12, 0x00
_SERIAL_PAGE, _IDENTIFICATION_PAGE = 0x80, 0x83


class DeviceType(IntEnum):
    """Peripheral device types that a library is made of (SPC-4 table 57)."""

    OPTICAL_DRIVE = 0x05
    CHANGER = 0x08


@dataclass(frozen=True, slots=True)
class Identity:
    """What a device says of itself; texts without their padding."""

    type: int
    vendor: str
    product: str
    revision: str
    serial: str = ""
    designators: tuple[bytes, ...] = ()
    """Of the logical unit, from page 83h."""


def identify(device: Device) -> Identity:
    """Ask the device. Pages that it does not have are left empty. Raises ScsiError."""
    data = device.run(bytes((_INQUIRY, 0, 0, 0, 96, 0)), data_in=96)
    if len(data) < 36:
        data = data.ljust(36, b" ")
    return Identity(
        data[0] & 0x1F, text(data[8:16]), text(data[16:32]), text(data[32:36]),
        text(_page(device, _SERIAL_PAGE)[4:]),
        tuple(designators(_page(device, _IDENTIFICATION_PAGE)[4:])),
    )  # fmt: skip


def _page(device: Device, page: int) -> bytes:
    try:
        data = device.run(bytes((_INQUIRY, 1, page, 1, 0, 0)), data_in=256)
    except CheckCondition as error:
        if error.sense.key is Key.ILLEGAL_REQUEST:
            return b""
        raise
    if len(data) < 4 or data[1] != page:
        return b""
    return data[: 4 + int.from_bytes(data[2:4], "big")]


def designators(data: bytes) -> list[bytes]:
    """The designators of a list of designation descriptors (SPC-4 section 7.8.6.1)."""
    found: list[bytes] = []
    at = 0
    while at + 4 <= len(data):
        length = data[at + 3]
        body = data[at + 4 : at + 4 + length]
        association = (data[at + 1] >> 4) & 0x3
        if body and association == 0:
            found.append(body)
        at += 4 + length
    return found


def test_unit_ready(device: Device) -> None:
    """TEST UNIT READY (SPC-4 section 6.47). Raises CheckCondition and so on if it is not."""
    device.run(bytes((_TEST_UNIT_READY, 0, 0, 0, 0, 0)))


def text(data: bytes) -> str:
    """An ASCII field without its padding; what is not printable is left out."""
    return "".join(chr(c) for c in data if 0x20 <= c < 0x7F).strip()
