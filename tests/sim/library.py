"""A library in memory: what robot, drives and discs are in truth, and the `ports.Library` over it.

`Shelves` is the truth that outlives the daemon; it is pickled from life to life. Discs keep their
images as files, so that their bytes can be compared. It passes the tests that every library must.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import trio

from hsmfs import crash
from hsmfs.errors import (
    ChangerError,
    DoorOpen,
    DriveError,
    MediaError,
    UnreadableSector,
    VolumeMissing,
    WriteOnceViolation,
)
from hsmfs.library.ports import DiscStatus, Element, ElementKind, MediumInfo, Progress
from hsmfs.library.simulated.config import SimulatedConfig
from hsmfs.library.simulated.layout import Geometry, blank_barcode
from hsmfs.library.simulated.magazines import check_carry, check_move, with_magazines
from hsmfs.library.simulated.timing import Timing, pass_until
from hsmfs.types import SECTOR, Barcode, ElementAddress

SLOTS = (ElementKind.STORAGE, ElementKind.IMPORT_EXPORT)
HANG = 1800.0
"""Seconds between two looks of a hung drive at whether somebody switched it off and on."""
PARTS = 4
"""Steps of a burn, between which the process may die."""
_elements = lru_cache(maxsize=1)(Geometry.elements)


@dataclass(slots=True)
class Disc:
    """One disc in truth. The label is what the robot reads, and may be another disc's."""

    name: str
    label: Barcode | None
    capacity: int
    status: DiscStatus = DiscStatus.BLANK
    written: int = 0
    source: int | None = None
    bad: set[int] = field(default_factory=set)
    """Sectors that do not read any more."""
    bad_since: float = float("inf")
    wrong: set[int] = field(default_factory=set)
    """Sectors that read without an error, but wrong."""
    fragile: bool = False
    """The next burn goes wrong without a word."""
    burned_at: float = 0.0
    fails_at: float = float("inf")
    """When its first sectors decay."""

    @property
    def sound(self) -> bool:
        return not self.bad and not self.wrong


@dataclass(slots=True)
class DriveState:
    """A drive in truth."""

    dead: bool = False
    hangs: bool = False
    flaky: int = 0
    """Calls that fail before it works again."""
    spoils: int = 0
    """Burns that fail half-way."""


@dataclass
class Shelves:
    """Where every disc is, and what ails the machine."""

    images: Path
    geometry: Geometry
    places: dict[int, Disc] = field(default_factory=dict)
    outside: dict[str, Disc] = field(default_factory=dict)
    drives: dict[int, DriveState] = field(default_factory=dict)
    door_open: bool = False
    jams: int = 0
    """Moves that fail before it works again."""
    jam_keeps: bool = False
    """A jam leaves the disc in the gripper."""
    moves: int = 0
    carries: int = 0
    burns: int = 0
    magazines: dict[int, int | None] = field(default_factory=dict)
    """Those that are not in the rack: the unit of each, None for the gripper."""

    @property
    def elements(self) -> Sequence[Element]:
        """All places, empty, by address."""
        return _elements(self.geometry)

    def fill(self) -> None:
        """A blank disc in every slot."""
        for element in self.elements:
            if element.kind is ElementKind.STORAGE:
                assert element.magazine is not None and element.slot is not None
                barcode = blank_barcode(element.magazine, element.slot)
                self.places[element.address] = Disc(barcode, barcode, self.geometry.disc_bytes)
            elif element.kind is ElementKind.DRIVE:
                self.drives[element.address] = DriveState()

    def image(self, disc: Disc) -> Path:
        return self.images / disc.name

    def all_discs(self) -> list[Disc]:
        return [*self.places.values(), *self.outside.values()]

    def where(self, disc: Disc) -> int | None:
        return next((at for at, there in self.places.items() if there is disc), None)


class MemoryLibrary:
    """A `ports.Library` over shelves."""

    def __init__(self, shelves: Shelves, timing: Timing) -> None:
        self.shelves = shelves
        self.disc_bytes = shelves.geometry.disc_bytes
        elements = shelves.elements
        self.drives = tuple(
            MemoryDrive(shelves, timing, element)
            for element in elements
            if element.kind is ElementKind.DRIVE
        )
        self.changer = MemoryChanger(shelves, timing, elements, self.drives)

    @classmethod
    def made(cls, config: SimulatedConfig) -> MemoryLibrary:
        """A new one, full of blank discs."""
        shelves = Shelves(config.path, Geometry.of(config))
        config.path.mkdir(parents=True, exist_ok=True)
        shelves.fill()
        return cls(shelves, Timing.of(config))

    async def close(self) -> None:
        for drive in self.drives:
            drive.forget()


class MemoryChanger:
    """The robot."""

    def __init__(
        self,
        shelves: Shelves,
        timing: Timing,
        elements: Sequence[Element],
        drives: Sequence[MemoryDrive],
    ) -> None:
        self._shelves, self._timing = shelves, timing
        self._elements = {element.address: element for element in elements}
        self._drives = {drive.address: drive for drive in drives}
        self._grippers = [e.address for e in elements if e.kind is ElementKind.TRANSPORT]
        self._whole = shelves.geometry.drives_per_magazine > 0
        self._full: dict[ElementAddress, Element] = {}
        """Slots as they were told last with a disc: of thousands hardly one changes."""

    async def inventory(self) -> list[Element]:
        self._check_door()
        await trio.lowlevel.checkpoint()
        places, slots, found = self._shelves.places, self._full, []
        for address, element in self._elements.items():
            disc, known = places.get(address), slots.get(address)
            if disc is None:
                found.append(element)
            elif known is not None and known.barcode == disc.label:
                found.append(known)
            else:
                found.append(self._status(element, disc))
        return with_magazines(found, self._shelves.magazines) if self._whole else found

    async def rescan(self) -> None:
        self._check_door()
        await pass_until(trio.current_time(), self._timing.exchange_s)

    async def move(self, src: ElementAddress, dst: ElementAddress) -> None:
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
            if self._whole:
                self._shift(src, dst)
                return
            gripper = self._lift(src, dst)
            crash.point("robot.lifted")
            await pass_until(trio.current_time(), self._timing.exchange_s)
            self._put(gripper, dst)
            crash.point("robot.put")
            await trio.lowlevel.checkpoint()

    async def carry(self, magazine: int, unit: int | None) -> None:
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
            self._lift_magazine(magazine, unit)
            crash.point("robot.magazine.lifted")
            await pass_until(trio.current_time(), self._timing.exchange_s)
            if unit is None:
                del self._shelves.magazines[magazine]
            else:
                self._shelves.magazines[magazine] = unit
            crash.point("robot.magazine.put")
            await trio.lowlevel.checkpoint()

    def _lift_magazine(self, magazine: int, unit: int | None) -> None:
        self._check_door()
        shelves, places = self._shelves, self._shelves.places
        if not self._whole:
            raise ChangerError("discs move singly here, and magazines do not")
        elements = [replace(e, full=e.address in places) for e in self._elements.values()]
        check_carry(elements, shelves.magazines, magazine, unit)
        jammed = shelves.jams > 0
        if not jammed or shelves.jam_keeps:
            shelves.magazines[magazine] = None
        if jammed:
            shelves.jams -= 1
            raise ChangerError(f"the robot jammed carrying magazine {magazine}")
        shelves.carries += 1

    def _status(self, element: Element, disc: Disc) -> Element:
        if element.kind in SLOTS:
            known = self._full[element.address] = Element(
                element.address, element.kind, full=True, barcode=disc.label,
                magazine=element.magazine, slot=element.slot,
            )  # fmt: skip
            return known
        source = ElementAddress(disc.source) if disc.source is not None else None
        drive = self._drives.get(element.address)
        reachable = drive is None or drive.loaded is None
        return replace(element, full=True, barcode=disc.label, source=source, accessible=reachable)

    def _check_door(self) -> None:
        if self._shelves.door_open:
            raise DoorOpen("the library's door is open")

    def _asked(self, src: ElementAddress, dst: ElementAddress) -> tuple[Element, Element, Disc]:
        """Both ends of a move and the disc to be moved, if it can be."""
        self._check_door()
        shelves, start, end = self._shelves, self._element(src), self._element(dst)
        if end.kind is ElementKind.TRANSPORT or start == end:
            raise ChangerError(f"a disc cannot be moved from {start.place} to {end.place}")
        disc = shelves.places.get(src)
        if disc is None:
            raise VolumeMissing(f"{start.place} is empty")
        drive = self._drives.get(src)
        if drive is not None and drive.loaded is not None:
            raise ChangerError(f"{start.place} holds its disc fast", next_step="eject it first")
        if shelves.places.get(dst) is not None:
            raise ChangerError(f"{end.place} is full")
        return start, end, disc

    def _shift(self, src: ElementAddress, dst: ElementAddress) -> None:
        """Have a unit take a disc of its magazine into a drive, or out of it."""
        shelves = self._shelves
        start, end, disc = self._asked(src, dst)
        check_move(start, end, shelves.magazines)
        if shelves.jams > 0:
            shelves.jams -= 1
            raise ChangerError(f"the unit jammed moving disc {disc.label} to {end.place}")
        if start.kind in SLOTS:
            disc.source = src
        shelves.places[dst] = shelves.places.pop(src)
        shelves.moves += 1
        crash.point("robot.shifted")

    def _lift(self, src: ElementAddress, dst: ElementAddress) -> ElementAddress:
        """Returns the gripper that has it."""
        start, end, disc = self._asked(src, dst)
        shelves = self._shelves
        free = (at for at in self._grippers if at not in shelves.places or at == src)
        gripper = next(free, None)
        if gripper is None:
            held = shelves.places[self._grippers[0]]
            raise ChangerError(f"the robot's gripper still holds disc {held.label}")
        jammed = shelves.jams > 0
        if not jammed or shelves.jam_keeps:
            if start.kind in SLOTS:
                disc.source = src
            del shelves.places[src]
            shelves.places[gripper] = disc
        if jammed:
            shelves.jams -= 1
            raise ChangerError(f"the robot jammed moving disc {disc.label} to {end.place}")
        shelves.moves += 1
        return gripper

    def _put(self, gripper: ElementAddress, dst: ElementAddress) -> None:
        shelves = self._shelves
        if gripper not in shelves.places:
            raise VolumeMissing("the disc left the robot's gripper")
        if dst in shelves.places:
            raise ChangerError(f"{self._element(dst).place} is full")
        shelves.places[dst] = shelves.places.pop(gripper)

    def _element(self, address: ElementAddress) -> Element:
        try:
            return self._elements[address]
        except KeyError:
            raise ChangerError(f"the library has no element {address}") from None


class MemoryDrive:
    """One drive."""

    def __init__(self, shelves: Shelves, timing: Timing, element: Element) -> None:
        assert element.drive is not None
        self.name, self.address = element.drive, element.address
        self.serial = f"MEM{element.address:05d}"
        self._shelves, self._timing = shelves, timing
        self._one_call = trio.Lock()
        self._disc: Disc | None = None
        self._image = b""
        self._loaded: MediumInfo | None = None
        self._position = 0

    @property
    def state(self) -> DriveState:
        return self._shelves.drives[self.address]

    @property
    def loaded(self) -> MediumInfo | None:
        return self._loaded

    async def load(self) -> MediumInfo:
        async with self._one_call:
            if self._loaded is not None:
                return self._loaded
            await self._alive("loading")
            disc = self._shelves.places.get(self.address)
            if disc is None:
                raise VolumeMissing(f"there is no disc in drive {self.name}")
            await pass_until(trio.current_time(), self._timing.load_s)
            self._take(disc)
            crash.point("drive.loaded")
            assert self._loaded is not None
            return self._loaded

    async def read(self, sector: int, count: int) -> bytes:
        if sector < 0 or count < 0:
            raise ValueError(f"read of {count} sectors at {sector}")
        async with self._one_call:
            disc = self._ready()
            started = trio.current_time()
            duration = self._timing.reading(self._position, sector, count)
            await self._alive("reading")
            self._position = sector + count
            await pass_until(started, duration)
            return self._bytes(disc, sector, count)

    async def burn(self, image: Path, on_progress: Progress) -> None:
        async with self._one_call:
            disc = self._ready()
            data = image.read_bytes()
            await self._alive("burning")
            if disc.status is not DiscStatus.BLANK:
                raise WriteOnceViolation(f"disc {disc.label} is {disc.status.name.lower()}")
            if len(data) % SECTOR or not data:
                raise MediaError(f"an image of {len(data)} bytes is not whole sectors")
            if len(data) > disc.capacity:
                raise MediaError(f"an image of {len(data)} bytes does not fit on {disc.label}")
            try:
                await self._write(disc, data, on_progress)
            finally:
                self._take(disc)

    async def eject(self) -> None:
        async with self._one_call:
            await self._alive("ejecting")
            self.forget()
            crash.point("drive.ejected")

    def forget(self) -> None:
        self._disc, self._loaded, self._image = None, None, b""

    def _ready(self) -> Disc:
        if self._disc is None:
            raise VolumeMissing(f"drive {self.name} has no disc loaded", next_step="load one first")
        return self._disc

    def _take(self, disc: Disc) -> None:
        self._disc, self._position = disc, 0
        self._image = self._shelves.image(disc).read_bytes() if disc.written else b""
        self._loaded = MediumInfo(disc.status, disc.capacity, disc.written, "BD-R (simulated)")

    async def _alive(self, doing: str) -> None:
        await trio.lowlevel.checkpoint()
        while self.state.hangs:  # noqa: ASYNC110  # a person's hand tells no event
            await trio.sleep(HANG)
        if self.state.flaky:
            self.state.flaky -= 1
            raise DriveError(f"drive {self.name} failed {doing}")
        if self.state.dead:
            raise DriveError(f"drive {self.name} does not answer {doing}")

    def _bytes(self, disc: Disc, sector: int, count: int) -> bytes:
        for at in sorted(disc.bad):
            if sector <= at < sector + count:
                raise UnreadableSector(f"cannot read sector {at} of disc {disc.label}", at)
        data = self._image[sector * SECTOR : (sector + count) * SECTOR]
        if len(data) < count * SECTOR:
            first = sector + len(data) // SECTOR
            raise UnreadableSector(f"disc {disc.label}: nothing was burned at {first}", first)
        for at in sorted(disc.wrong):
            if sector <= at < sector + count:
                here = (at - sector) * SECTOR
                wrong = bytes(byte ^ 0xFF for byte in data[here : here + SECTOR])
                data = data[:here] + wrong + data[here + SECTOR :]
        return data

    async def _write(self, disc: Disc, data: bytes, on_progress: Progress) -> None:
        path = self._shelves.image(disc)
        disc.status = DiscStatus.INCOMPLETE
        crash.point("drive.burn.begun")
        started, spoils = trio.current_time(), self.state.spoils > 0
        with path.open("wb", buffering=0) as out:
            for part in range(1, PARTS + 1):
                end = len(data) * part // PARTS // SECTOR * SECTOR
                out.write(data[disc.written : end])
                disc.written = end
                await pass_until(started, self._timing.writing(end))
                crash.point("drive.burn.written")
                on_progress(end)
                await trio.lowlevel.checkpoint()
                if spoils and part == PARTS // 2:
                    self.state.spoils -= 1
                    raise DriveError(f"drive {self.name} failed burning disc {disc.label}")
        os.chmod(path, 0o444)
        if disc.fragile:
            disc.wrong.add(disc.written // SECTOR // 2)
        disc.status, disc.burned_at = DiscStatus.CLOSED, trio.current_time()
        self._shelves.burns += 1
        crash.point("drive.burn.closed")
