"""What a changer holds, taken from its bytes: READ ELEMENT STATUS and the address page (SMC-3).

Commands and answers only; what they mean for a library is decided in changer.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hsmfs.library.ports import ElementKind
from hsmfs.library.scsi.inquiry import text
from hsmfs.library.scsi.sense import Key
from hsmfs.library.scsi.sg import CheckCondition, Device

_READ_ELEMENT_STATUS, _MODE_SENSE_6 = 0xB8, 0x1A
_ADDRESS_PAGE = 0x1D
_ANSWER_BYTES = 64 * 1024
_TIMEOUT_S = 300.0
"""A changer may look at its elements first."""
_TAG_BYTES = 36
_VOLUME_BYTES = 32


@dataclass(frozen=True, slots=True)
class Span:
    """The elements of one kind: consecutive addresses from first on."""

    kind: ElementKind
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Status:
    """One element descriptor (SMC-3 section 6.11.5)."""

    address: int
    kind: ElementKind
    full: bool
    access: bool
    exception: tuple[int, int] | None
    """Sense codes of what is wrong with it."""
    source: int | None
    label: str
    """The primary volume tag; '' if there is none."""
    designator: bytes = b""
    """The identification of the device that is this element (drives)."""


def spans(device: Device) -> list[Span]:
    """Which elements there are: mode page 1Dh (SMC-3 section 7.4.2). Raises ScsiError."""
    command = bytes((_MODE_SENSE_6, 0x08, _ADDRESS_PAGE, 0, 0xFF, 0))
    return parse_spans(device.run(command, data_in=0xFF))


def parse_spans(data: bytes) -> list[Span]:
    """The element address assignment page of a MODE SENSE(6) answer; kinds with no element go."""
    start = 4 + (data[3] if len(data) > 3 else 0)
    page = data[start:]
    if len(page) < 18 or page[0] & 0x3F != _ADDRESS_PAGE:
        return []
    kinds = (
        ElementKind.TRANSPORT, ElementKind.STORAGE, ElementKind.IMPORT_EXPORT, ElementKind.DRIVE
    )  # fmt: skip
    found = [
        Span(
            kind,
            int.from_bytes(page[at : at + 2], "big"),
            int.from_bytes(page[at + 2 : at + 4], "big"),
        )
        for kind, at in zip(kinds, range(2, 18, 4), strict=True)
    ]
    return [span for span in found if span.count]


def read(device: Device, span: Span) -> list[Status]:
    """The status of all elements of the span, by address. Raises ScsiError.

    Labels and identifications are asked for; a changer that refuses is asked again without.
    """
    found: dict[int, Status] = {}
    start, end = span.first, span.first + span.count
    while start < end:
        answer = [
            status
            for status in parse(_ask(device, span.kind, start, end - start))
            if status.kind is span.kind and start <= status.address < end
        ]
        if not answer:
            break
        found.update((status.address, status) for status in answer)
        start = max(found) + 1
    return [found[address] for address in sorted(found)]


def _ask(device: Device, kind: ElementKind, start: int, count: int) -> bytes:
    """READ ELEMENT STATUS (SMC-3 section 6.11) with as much as the changer is able to tell."""
    identify = kind is ElementKind.DRIVE
    attempts = [(True, True), (True, False), (False, True), (False, False)]
    for labels, ids in attempts:
        if ids and not identify:
            continue
        command = (
            bytes((_READ_ELEMENT_STATUS, (0x10 if labels else 0) | kind.value))
            + start.to_bytes(2, "big")
            + count.to_bytes(2, "big")
            + bytes((0x01 if ids else 0,))
            + _ANSWER_BYTES.to_bytes(3, "big")
            + bytes(2)
        )
        try:
            return device.run(command, data_in=_ANSWER_BYTES, timeout_s=_TIMEOUT_S)
        except CheckCondition as error:
            plainest = not labels and not ids
            if error.sense.key is not Key.ILLEGAL_REQUEST or plainest:
                raise
    return b""


def parse(data: bytes) -> Iterator[Status]:
    """Each whole element descriptor of an answer (SMC-3 sections 6.11.2 to 6.11.5)."""
    if len(data) < 8:
        return
    end = 8 + int.from_bytes(data[5:8], "big")
    at = 8
    while at + 8 <= min(end, len(data)):
        try:
            kind = ElementKind(data[at] & 0x0F)
        except ValueError:
            return
        flags = data[at + 1]
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        page_end = min(end, at + 8 + int.from_bytes(data[at + 5 : at + 8], "big"))
        at += 8
        if length < 12:
            return
        while at < page_end:
            piece = data[at : at + length]
            # Some changers send less than they counted: only the identification may be cut off.
            if len(piece) < length and (len(piece) < _needed(flags) or len(data) >= _ANSWER_BYTES):
                return
            yield _descriptor(piece.ljust(length, b"\0"), kind, flags)
            at += length


def _needed(flags: int) -> int:
    """Bytes of a descriptor up to the end of its label."""
    return 12 + (_VOLUME_BYTES if flags & 0x80 else 0)


def _descriptor(data: bytes, kind: ElementKind, flags: int) -> Status:
    bits = data[2]
    at = 12
    label = ""
    if flags & 0x80:
        label = text(data[at : at + _VOLUME_BYTES])
        at += _TAG_BYTES
    if flags & 0x40:
        at += _TAG_BYTES
    length = data[at + 3] if at + 4 <= len(data) else 0
    return Status(
        address=int.from_bytes(data[0:2], "big"),
        kind=kind,
        full=bool(bits & 0x01),
        # The gripper always reaches itself; only slots and drives have the bit.
        access=kind is ElementKind.TRANSPORT or bool(bits & 0x08),
        exception=(data[4], data[5]) if bits & 0x04 else None,
        source=int.from_bytes(data[10:12], "big") if data[9] & 0x80 else None,
        label=label,
        designator=bytes(data[at + 4 : at + 4 + length]),
    )
