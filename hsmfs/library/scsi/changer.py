"""The robot of a real library: SMC-3 commands, and what its answers mean to us.

It keeps in mind what it last told, so that a disc that people moved meanwhile is not taken for
another. Nothing is retried here but what did not start: see the unit attentions in `move`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NoReturn, TypeVar

import trio

from hsmfs.clock import MEDIA, blocking
from hsmfs.errors import ChangerError, DoorOpen, HsmError, VolumeMissing
from hsmfs.library.ports import Drive, Element, ElementKind
from hsmfs.library.scsi import elements
from hsmfs.library.scsi.elements import Span, Status
from hsmfs.library.scsi.inquiry import test_unit_ready
from hsmfs.library.scsi.link import Link
from hsmfs.library.scsi.sense import Key, Sense
from hsmfs.library.scsi.sg import CheckCondition, Device, ScsiError
from hsmfs.types import Barcode, ElementAddress

_INITIALIZE_ELEMENT_STATUS, _MOVE_MEDIUM = 0x07, 0xA5
MOVE_TIMEOUT_S = 900.0
RESCAN_TIMEOUT_S = 3600.0
"""A large library reads all its labels one by one."""
READY_WAIT_S = 600.0
"""How long a robot may take to get ready by itself, as after its door was closed."""
POLL_S = 1.0

T = TypeVar("T")


class ScsiChanger:
    """A `ports.Changer` behind a SCSI address."""

    def __init__(
        self, link: Link, spans: Sequence[Span], drives: Sequence[Drive], slots_per_magazine: int
    ) -> None:
        self._link = link
        self._spans = sorted(spans, key=lambda span: span.first)
        self._drives = {drive.address: drive for drive in drives}
        self._slots_per_magazine = slots_per_magazine
        self._told: dict[ElementAddress, Element] = {}

    async def inventory(self) -> list[Element]:
        """READ ELEMENT STATUS of every kind of element."""
        await self._ready()
        found = await self._do(
            lambda device: [s for span in self._spans for s in elements.read(device, span)]
        )
        self._told = {e.address: e for e in map(self._element, found)}
        return [self._told[address] for address in sorted(self._told)]

    async def holds_disc(self, address: ElementAddress) -> bool:
        """Whether there is a disc in the element now. Raises ChangerError."""
        kind = next(s.kind for s in self._spans if s.first <= address < s.first + s.count)
        found = await self._do(lambda device: elements.read(device, Span(kind, address, 1)))
        return any(status.full for status in found)

    async def rescan(self) -> None:
        """INITIALIZE ELEMENT STATUS (SMC-3 section 6.2)."""
        await self._ready()
        command = bytes((_INITIALIZE_ELEMENT_STATUS, 0, 0, 0, 0, 0))
        await self._do(lambda device: device.run(command, timeout_s=RESCAN_TIMEOUT_S))

    async def move(self, src: ElementAddress, dst: ElementAddress) -> None:
        """MOVE MEDIUM (SMC-3 section 6.6).

        News of an opened door come before the command starts; then it is sent again only if the
        source still holds the disc that was last told.
        """
        with trio.CancelScope(shield=True):
            if not self._told:
                await self.inventory()
            start, end = self._known(src), self._known(dst)
            if end.kind is ElementKind.TRANSPORT or src == dst:
                raise ChangerError(f"a disc cannot be moved from {start.place} to {end.place}")
            holder = self._drives.get(src)
            if holder is not None and holder.loaded is not None:
                raise ChangerError(f"{start.place} holds its disc fast", next_step="eject it first")
            await self._ready()
            await blocking(lambda: self._move(start, end), MEDIA)

    async def carry(self, magazine: int, unit: int | None) -> None:
        """SMC-3 has no element for a magazine."""
        raise ChangerError("a SCSI changer moves discs singly, and no magazines")

    def _move(self, start: Element, end: Element) -> None:
        gripper = next((s.first for s in self._spans if s.kind is ElementKind.TRANSPORT), 0)
        command = b"".join((
            bytes((_MOVE_MEDIUM, 0)),
            *(address.to_bytes(2, "big") for address in (gripper, start.address, end.address)),
            bytes(4),
        ))  # fmt: skip

        def send(device: Device) -> None:
            device.run(command, timeout_s=MOVE_TIMEOUT_S, retry=lambda sense: not sense.changed)

        try:
            try:
                self._link.call(send, again=False)
            except CheckCondition as error:
                if not error.sense.changed:
                    raise
                self._see_unmoved(start)
                self._link.call(send, again=False)
        except ScsiError as error:
            _explain(error, start, end)
        full, self._told[start.address] = start, replace(start, full=False, barcode=None)
        self._told[end.address] = replace(end, full=True, barcode=full.barcode)

    def _see_unmoved(self, start: Element) -> None:
        """Raise ChangerError unless the element holds the disc that it held when last told."""
        span = Span(start.kind, start.address, 1)
        now = self._link.call(lambda device: elements.read(device, span))
        label = self._element(now[0]).barcode if now else None
        if label != start.barcode:
            raise ChangerError(
                f"{start.place} held disc {start.barcode} and holds {label or 'none'} now: "
                "somebody opened the library"
            )

    def _known(self, address: ElementAddress) -> Element:
        try:
            return self._told[address]
        except KeyError:
            raise ChangerError(f"the library has no element {address}") from None

    def _element(self, status: Status) -> Element:
        """An element in our words."""
        address = ElementAddress(status.address)
        drive = self._drives.get(address)
        magazine, slot = self._place(status)
        slotted = status.kind in (ElementKind.STORAGE, ElementKind.IMPORT_EXPORT)
        loaded = drive is not None and drive.loaded is not None
        return Element(
            address,
            status.kind,
            full=status.full,
            barcode=Barcode(status.label) if status.full and status.label else None,
            accessible=(status.access or not slotted) and not loaded,
            source=None if slotted or not status.full else _address(status.source),
            magazine=magazine,
            slot=slot,
            drive=drive.name if drive is not None else None,
        )

    def _place(self, status: Status) -> tuple[int | None, int | None]:
        """SMC-3 knows no magazines: slots are counted through."""
        span = next(s for s in self._spans if s.kind is status.kind)
        index = status.address - span.first
        if status.kind is ElementKind.STORAGE:
            magazine, slot = divmod(index, self._slots_per_magazine)
            return magazine + 1, slot + 1
        return None, index + 1 if status.kind is ElementKind.IMPORT_EXPORT else None

    async def _ready(self) -> None:
        """Wait while the robot gets ready by itself. Raises DoorOpen, ChangerError."""
        deadline = trio.current_time() + READY_WAIT_S
        while True:
            sense = await blocking(self._not_ready, MEDIA)
            if sense is None:
                return
            if not sense.becoming_ready or trio.current_time() > deadline:
                _explain(CheckCondition(sense))
            await trio.sleep(POLL_S)

    def _not_ready(self) -> Sense | None:
        try:
            self._link.call(test_unit_ready)
        except CheckCondition as error:
            return error.sense
        except ScsiError as error:
            _explain(error)
        return None

    async def _do(self, act: Callable[[Device], T]) -> T:
        def run() -> T:
            try:
                return self._link.call(act)
            except ScsiError as error:
                _explain(error)

        return await blocking(run, MEDIA)


def _address(source: int | None) -> ElementAddress | None:
    return None if source is None else ElementAddress(source)


def _explain(
    error: ScsiError, start: Element | None = None, end: Element | None = None
) -> NoReturn:
    """Raise the error of ours that says what is wrong with the robot."""
    raise _error(error, start, end) from error


def _error(error: ScsiError, start: Element | None, end: Element | None) -> HsmError:
    if not isinstance(error, CheckCondition):
        return ChangerError(f"the robot does not answer: {error}")
    sense = error.sense
    code = (sense.asc, sense.ascq)
    if sense.key is Key.NOT_READY and code == (0x04, 0x18):
        return DoorOpen("the library's door is open")
    if start is not None and code == (0x3B, 0x0E):
        return VolumeMissing(f"{start.place} is empty")
    if end is not None and code == (0x3B, 0x0D):
        return ChangerError(f"{end.place} is full")
    if start is not None and sense.asc == 0x53:
        return ChangerError(f"{start.place} holds its disc fast", next_step="eject it first")
    return ChangerError(f"the robot refuses: {sense}")
