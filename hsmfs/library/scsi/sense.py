"""Sense data: what a SCSI device says is wrong, taken from its bytes (SPC-4 section 4.5).

Both formats are read, fixed (70h, 71h) and descriptor (72h, 73h). Nothing here knows of drives or
robots; those decide what a sense means for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Key(IntEnum):
    """Sense keys (SPC-4 table 48)."""

    NO_SENSE = 0x0
    RECOVERED_ERROR = 0x1
    NOT_READY = 0x2
    MEDIUM_ERROR = 0x3
    HARDWARE_ERROR = 0x4
    ILLEGAL_REQUEST = 0x5
    UNIT_ATTENTION = 0x6
    DATA_PROTECT = 0x7
    BLANK_CHECK = 0x8
    VENDOR_SPECIFIC = 0x9
    COPY_ABORTED = 0xA
    ABORTED_COMMAND = 0xB
    RESERVED = 0xC
    VOLUME_OVERFLOW = 0xD
    MISCOMPARE = 0xE
    COMPLETED = 0xF


_TEXTS: dict[tuple[int, int | None], str] = {
    (0x02, None): "no seek complete",
    (0x04, 0x00): "not ready, no reason given",
    (0x04, 0x01): "becoming ready",
    (0x04, 0x02): "a start command is needed",
    (0x04, 0x03): "somebody must see to it",
    (0x04, 0x07): "busy with a command before",
    (0x04, 0x08): "a long write is under way",
    (0x04, 0x12): "switched offline at its panel",
    (0x04, 0x15): "the robot is disabled",
    (0x04, 0x18): "a door is open",
    (0x06, None): "no reference position found",
    (0x08, None): "the drive does not answer inside the library",
    (0x0C, None): "write error",
    (0x11, None): "unrecovered read error",
    (0x15, None): "mechanical positioning error",
    (0x20, None): "command not known",
    (0x21, 0x00): "no such sector",
    (0x21, 0x01): "no such element",
    (0x24, None): "invalid field in the command",
    (0x27, None): "write protected",
    (0x28, 0x00): "the medium may have changed",
    (0x28, 0x01): "a mail slot was opened",
    (0x29, None): "power on or reset",
    (0x2C, None): "command out of sequence",
    (0x30, None): "medium that cannot be used",
    (0x31, None): "the medium's format is damaged",
    (0x3A, None): "no medium",
    (0x3B, 0x0D): "the destination is full",
    (0x3B, 0x0E): "the source is empty",
    (0x3B, 0x11): "the magazine cannot be reached",
    (0x3B, 0x12): "a magazine was taken out",
    (0x3B, 0x13): "a magazine was put in",
    (0x3B, 0x18): "the element is disabled",
    (0x3B, 0x1A): "a drive was taken out",
    (0x3E, None): "self-configuration or failure",
    (0x40, None): "diagnostic failure",
    (0x44, None): "internal failure",
    (0x53, 0x00): "loading or ejecting failed",
    (0x53, 0x02): "the medium is held fast",
    (0x57, None): "the table of contents does not read",
    (0x64, None): "illegal mode for this track",
    (0x72, None): "error in the session",
    (0x73, None): "error in the power calibration or a control area",
}


@dataclass(frozen=True, slots=True)
class Sense:
    """One report. `information` is the block that it is about, if the device says so."""

    key: Key
    asc: int = 0
    ascq: int = 0
    information: int | None = None
    deferred: bool = False
    """It is about a command before the one that was answered."""

    @property
    def code(self) -> str:
        """Key and codes as manuals give them: `3/11/05`."""
        return f"{self.key:X}/{self.asc:02X}/{self.ascq:02X}"

    @property
    def becoming_ready(self) -> bool:
        """It will be ready by itself (SPC-4 table 49: 04h/01h, 07h, 08h)."""
        return self.key is Key.NOT_READY and (self.asc, self.ascq) in (
            (0x04, 0x01), (0x04, 0x07), (0x04, 0x08),
        )  # fmt: skip

    @property
    def no_medium(self) -> bool:
        """There is no disc, or the tray is open (3Ah)."""
        return self.key is Key.NOT_READY and self.asc == 0x3A

    @property
    def changed(self) -> bool:
        """Somebody may have had their hands in it (28h), or a magazine went (3Bh/12h, 13h)."""
        return self.key is Key.UNIT_ATTENTION and (
            self.asc == 0x28 or (self.asc, self.ascq) in ((0x3B, 0x12), (0x3B, 0x13))
        )

    def __str__(self) -> str:
        text = _TEXTS.get((self.asc, self.ascq)) or _TEXTS.get((self.asc, None))
        words = self.key.name.lower().replace("_", " ")
        return f"{text or words} (sense {self.code})"


def parse(data: bytes) -> Sense | None:
    """The sense in the bytes, or None if they hold none."""
    if len(data) < 4:
        return None
    response = data[0] & 0x7F
    if response in (0x72, 0x73):
        return Sense(
            Key(data[1] & 0x0F), data[2], data[3], _information(data), deferred=response == 0x73
        )
    if response not in (0x70, 0x71):
        return None
    asc, ascq = (data[12], data[13]) if len(data) >= 14 and data[7] >= 6 else (0, 0)
    valid = bool(data[0] & 0x80) and len(data) >= 7
    information = int.from_bytes(data[3:7], "big") if valid else None
    return Sense(Key(data[2] & 0x0F), asc, ascq, information, deferred=response == 0x71)


def _information(data: bytes) -> int | None:
    """The information descriptor of descriptor format (SPC-4 section 4.5.2.2)."""
    at, end = 8, min(len(data), 8 + (data[7] if len(data) > 7 else 0))
    while at + 2 <= end:
        kind, length = data[at], data[at + 1]
        if kind == 0x00 and length >= 0x0A and at + 12 <= end and data[at + 2] & 0x80:
            return int.from_bytes(data[at + 4 : at + 12], "big")
        at += 2 + length
    return None
