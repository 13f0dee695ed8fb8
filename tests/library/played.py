"""A SCSI device of memory: it answers as a drive or a robot does, and fails as it is told to."""

from __future__ import annotations

from collections.abc import Callable

from hsmfs.library.scsi.inquiry import DeviceType
from hsmfs.library.scsi.sense import Key, Sense
from hsmfs.library.scsi.sg import CheckCondition, DeviceGone
from hsmfs.types import SECTOR

READY, MOVE, STATUS, READ, STOP = 0x00, 0xA5, 0xB8, 0x28, 0x1B
INQUIRY, MODE_SENSE = 0x12, 0x1A
SECTORS = 1000
BLANK, CLOSED = 0x00, 0x0E
"""Flags of READ DISC INFORMATION."""


class Played:
    """A drive with a closed disc, or a changer with two slots.

    Attributes:
        faults: by operation code what is raised, one a command; the last of a list stays if it
            stands in `stuck`
        sent: every command
        gone: it was unplugged
    """

    def __init__(self, kind: int = DeviceType.OPTICAL_DRIVE, serial: str = "") -> None:
        self.kind, self.serial = kind, serial
        self.gone = False
        self.disc = CLOSED
        self.faults: dict[int, list[Exception | Sense]] = {}
        self.stuck = False
        self.bad: set[int] = set()
        self.labels = {1000: "A", 1001: ""}
        self.bays: list[int] = []
        self.sent: list[bytes] = []

    def close(self) -> None:
        pass

    def run(
        self, command: bytes, *, data_in=0, timeout_s: float = 30.0,
        retry: Callable[[Sense], bool] = lambda sense: True,
    ) -> bytes:  # fmt: skip
        self.sent.append(command)
        if self.gone:
            raise DeviceGone("gone")
        waiting = self.faults.get(command[0])
        if waiting:
            fault = waiting[0] if self.stuck else waiting.pop(0)
            error = CheckCondition(fault) if isinstance(fault, Sense) else fault
            attention = isinstance(fault, Sense) and fault.key is Key.UNIT_ATTENTION
            if not (attention and retry(fault)):
                raise error
        return self._answer(command, data_in)

    def _answer(self, command: bytes, data_in) -> bytes:
        if command[0] == READ:
            first = int.from_bytes(command[2:6], "big")
            count = int.from_bytes(command[7:9], "big")
            if self.bad & set(range(first, first + count)):
                raise CheckCondition(Sense(Key.MEDIUM_ERROR, 0x11))
            data_in[:] = b"".join(bytes((s % 251,)) * SECTOR for s in range(first, first + count))
        if command[0] == 0x51:
            return bytes((0, 0x20, self.disc)) + bytes(31)
        if command[0] == 0x25:
            return (SECTORS - 1).to_bytes(4, "big") + SECTOR.to_bytes(4, "big")
        if command[0] == STATUS:
            return self._elements(command)
        if command[0] == INQUIRY:
            return self._identity(command[2] if command[1] else None)
        if command[0] == MODE_SENSE:
            spans = ((1, 1), (min(self.labels), len(self.labels)), (0, 0),
                     (min(self.bays), len(self.bays)))  # fmt: skip
            words = b"".join(n.to_bytes(2, "big") for span in spans for n in span)
            return bytes(4) + bytes((0x1D, 0x12)) + words + bytes(2)
        return b""

    def _identity(self, page: int | None) -> bytes:
        if page is None:
            return bytes((self.kind, 0x80)) + bytes(34)
        text = self.serial.encode() if page == 0x80 else b""
        return bytes((self.kind, page)) + len(text).to_bytes(2, "big") + text

    def _elements(self, command: bytes) -> bytes:
        kind, first = command[1] & 0xF, int.from_bytes(command[2:4], "big")
        count = int.from_bytes(command[4:6], "big")
        asked = range(first, first + count)
        there = self.labels if kind == 2 else dict.fromkeys(self.bays, "") if kind == 4 else {}
        body = b"".join(
            a.to_bytes(2, "big") + bytes((0x09 if label else 0x08,)) + bytes(9)
            + label.encode().ljust(32) + bytes(4)
            for a, label in there.items() if a in asked
        )  # fmt: skip
        head = bytes((kind, 0x80, 0, 48, 0)) + len(body).to_bytes(3, "big")
        return bytes(5) + len(head + body).to_bytes(3, "big") + head + body
