"""The one owner of moves: one an arm, journalled before they start, never abandoned half-way.

It keeps a map of the library in memory from the last inventory and its own moves. Nothing is
retried here: a jam or an open door raises at once, and the caller decides. Where magazines move
whole the robot carries them to units of drives, and each unit moves its discs beside the others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import count
from types import MappingProxyType

import trio

from hsmfs.errors import ChangerError, Conflict, HsmError, NotFound, SameLabel, VolumeMissing
from hsmfs.library.gate import Gate
from hsmfs.library.journal import MoveJournal
from hsmfs.library.ports import Drive, Element, ElementKind, Library
from hsmfs.types import Barcode, ElementAddress

_LOOK = "see 'hsmctl library inventory'"
_TAKE_OUT = "take discs out first"


@dataclass(frozen=True, slots=True)
class Moving:
    """A move under way: of a disc or a magazine; all in an admin's words."""

    cargo: str
    src: str
    dst: str


class Robot:
    """Moves discs by barcode. Call `inventory` once before anything else.

    A drive that is asked to take or give a disc is ejected first: the caller owns it and has
    nothing running there.

    Attributes:
        looks: how often the robot was asked for everything.
    """

    def __init__(self, library: Library, journal: MoveJournal, arms: int = 1) -> None:
        self._changer = library.changer
        self._journal = journal
        self._gate = Gate()
        self._arm = trio.Semaphore(arms)
        self._in_unit: defaultdict[int, trio.Lock] = defaultdict(trio.Lock)
        self._elements: dict[ElementAddress, Element] = {}
        self._places: dict[Barcode, list[ElementAddress]] = {}
        self._magazines: dict[int, int] = {}
        """By the unit that each is in."""
        self._lies: dict[Barcode, int | None] = {}
        """What `magazines` answers; empty until it is asked again after a change of the map."""
        self._whole = False
        self._stale = True
        self._numbers = count(1)
        self._moving: dict[int, Moving] = {}
        self._awaited: set[ElementAddress] = set()
        """Places that discs are on their way to."""
        self.looks = 0

    @property
    def moving(self) -> Moving | None:
        """What is on its way just now."""
        return next(iter(self._moving.values()), None)

    @property
    def whole(self) -> bool:
        """Magazines move whole."""
        return self._whole

    @property
    def elements(self) -> Mapping[ElementAddress, Element]:
        """The library as last known, by address."""
        return MappingProxyType(self._elements)

    def where(self, barcode: Barcode) -> Element | None:
        """Where the disc was last known to be; None if not in the library."""
        addresses = self._places.get(barcode)
        return self._elements[addresses[0]] if addresses else None

    def places(self, barcode: Barcode) -> list[Element]:
        """Where the label was last seen; in more than one place no disc moves by it."""
        return [self._elements[address] for address in self._places.get(barcode, ())]

    def magazine_of(self, barcode: Barcode) -> int | None:
        """The magazine that the disc lies in, or that it was taken out of; None if nobody knows."""
        element = self.where(barcode)
        return None if element is None else self._magazine(element)

    def magazines(self) -> Mapping[Barcode, int | None]:
        """`magazine_of` for all discs in the library, which is asked of thousands at once."""
        if not self._lies:
            self._lies = {
                barcode: self._magazine(self._elements[addresses[0]])
                for barcode, addresses in self._places.items()
            }
        return self._lies

    def _magazine(self, element: Element) -> int | None:
        if element.kind is ElementKind.DRIVE and element.unit is not None:
            return self._magazines.get(element.unit)
        if element.magazine is None and element.source is not None:
            home = self._elements.get(element.source)
            return home.magazine if home is not None else None
        return element.magazine

    def unit_of(self, drive: Drive) -> int | None:
        """The unit that the drive belongs to; None where discs move singly."""
        element = self._elements.get(drive.address)
        return element.unit if element else None

    def magazine_in(self, unit: int) -> int | None:
        """The magazine in the unit."""
        return self._magazines.get(unit)

    def needs_carry(self, barcode: Barcode, drive: Drive) -> bool:
        """Whether the robot must move to bring the disc into the drive: its unit cannot alone."""
        unit = self.unit_of(drive)
        return unit is None or self.magazine_of(barcode) != self._magazines.get(unit)

    def in_drive(self, drive: Drive) -> Barcode | None:
        """The disc that was last known to be in the drive."""
        element = self._elements.get(drive.address)
        return element.barcode if element else None

    async def inventory(self, *, rescan: bool = False) -> list[Element]:
        """Ask the robot for everything; with rescan it reads every label again first.

        Raises DoorOpen, ChangerError.
        """
        async with self._gate.alone():
            if rescan:
                await self._changer.rescan()
            await self._refresh()
            return list(self._elements.values())

    async def fetch(self, barcode: Barcode, drive: Drive, *, look: bool = False) -> None:
        """Bring the disc into the drive, putting away what is in it; nothing to do if it is there.

        Where magazines move whole, the disc's one is brought into the drive's unit if need be, and
        another one that is there put away, if it has discs in no other drive.
        look: ask after that what really lies there.
        Raises VolumeMissing, SameLabel, Conflict if another drive has it or its magazine cannot
        come, DoorOpen, ChangerError, DriveError.
        """
        async with self._acting(drive):
            if self.in_drive(drive) != barcode:
                disc = self._locate(barcode, free_of_drives=True)
                await self._put_away(drive)
                unit = self.unit_of(drive)
                if unit is not None:
                    await self._bring(disc, unit)
                await self._move(self._locate(barcode), drive.address)
        if look:
            await self.inventory()

    async def put_away(self, drive: Drive) -> None:
        """Take the disc out of the drive to its slot, or any free one; nothing to do if empty.

        Raises DoorOpen, ChangerError (no free slot too), DriveError.
        """
        async with self._acting(drive):
            await self._put_away(drive)

    async def empty(self, drives: Sequence[Drive]) -> None:
        """Put the discs of a unit's drives, which are all given, back into their slots, and its
        magazine into the rack; nothing to do if there is none. Raises as `put_away`.
        """
        async with self._acting(drives[0]):
            for drive in drives:
                await self._put_away(drive)
            unit = self.unit_of(drives[0])
            magazine = self._magazines.get(unit) if unit is not None else None
            if magazine is not None:
                async with self._arm:
                    await self._carry(magazine, None)

    async def move(self, barcode: Barcode, dst: ElementAddress) -> None:
        """Move a disc that is in no drive to an element, as an operator asks.

        Raises VolumeMissing, NotFound if there is no such element, Conflict if a drive has the disc
        or the element is full, or magazines move whole; DoorOpen, ChangerError.
        """
        async with self._acting():
            if self.whole:
                raise Conflict(
                    "magazines move whole in this library, and no disc by itself",
                    next_step="move it by hand, then run 'hsmctl library inventory'",
                )
            disc, target = self._locate(barcode, free_of_drives=True), self._elements.get(dst)
            if target is None:
                raise NotFound(f"the library has no element {dst}", next_step=_LOOK)
            if target.full or dst in self._awaited:
                raise Conflict(f"element {dst}, {target.place}, is full", next_step=_LOOK)
            await self._move(disc, dst)

    async def export(self, barcode: Barcode) -> Element:
        """Put the disc into a free mail slot for a person to take; returns the mail slot.

        Raises as `move`; Conflict if no mail slot is free.
        """
        async with self._acting():
            disc = self._locate(barcode, free_of_drives=True)
            if disc.kind is ElementKind.IMPORT_EXPORT:
                return disc
            if not self._all_free(ElementKind.IMPORT_EXPORT):
                raise Conflict("the library has no free mail slot", next_step=_TAKE_OUT)
            address = self._free(ElementKind.IMPORT_EXPORT)
            await self._move(disc, address)
            return self._elements[address]

    async def import_(self, barcode: Barcode, dst: ElementAddress | None = None) -> Element:
        """Take a disc from a mail slot into storage: to dst, or to any free slot; returns the slot.

        Looks at the library first, as people fill mail slots unseen. Raises as `move`;
        Conflict if the disc is not in a mail slot, ChangerError if storage is full.
        """
        await self.inventory()
        async with self._acting():
            disc = self._locate(barcode)
            if disc.kind is not ElementKind.IMPORT_EXPORT:
                raise Conflict(f"disc {barcode} is in {disc.place}, not in a mail slot")
            address = self._free(ElementKind.STORAGE) if dst is None else dst
            await self._move(disc, address)
            return self._elements[address]

    async def clear_transport(self) -> Element | None:
        """Put what a jam or a crash left in the gripper back to its slot, or any free one.

        Returns the slot it went to, None if the gripper was empty. Raises DoorOpen, ChangerError.
        """
        async with self._acting():
            for element in list(self._elements.values()):
                if element.kind is ElementKind.TRANSPORT and element.full:
                    address = self._home(element)
                    await self._move(element, address)
                    return self._elements[address]
        return None

    async def clear_magazine(self) -> int | None:
        """Put a magazine that a jam or a crash left in the gripper into the rack; which one.

        Raises DoorOpen, ChangerError.
        """
        async with self._acting():
            for element in list(self._elements.values()):
                if element.kind is ElementKind.TRANSPORT and element.magazine is not None:
                    await self._carry(element.magazine, None)
                    return element.magazine
        return None

    @asynccontextmanager
    async def _acting(self, drive: Drive | None = None) -> AsyncIterator[None]:
        """The map is true, and an arm of the robot is free, or nobody else moves in the unit."""
        while True:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(self._gate.passing())
                unit = self.unit_of(drive) if drive is not None else None
                await stack.enter_async_context(
                    self._arm if unit is None else self._in_unit[unit]
                )
                if not self._stale:
                    yield
                    return
            async with self._gate.alone():
                await self._know()

    async def _put_away(self, drive: Drive) -> None:
        element = self._element(drive.address)
        if element.full:
            await drive.eject()
            await self._move(element, self._home(element))

    async def _know(self) -> None:
        if self._stale:
            await self._refresh()

    async def _refresh(self) -> None:
        self._stale = True
        self._elements = {e.address: e for e in await self._changer.inventory()}
        self._places, self._magazines, self._whole = defaultdict(list), {}, False
        self._lies = {}
        for element in self._elements.values():
            if element.full and element.barcode is not None:
                self._places[element.barcode].append(element.address)
            if element.unit is not None:
                self._whole = True
                if element.kind is ElementKind.STORAGE and element.magazine is not None:
                    self._magazines[element.unit] = element.magazine
        self._stale = False
        self.looks += 1

    def _locate(self, barcode: Barcode, *, free_of_drives: bool = False) -> Element:
        places = self.places(barcode)
        if any(moving.cargo == barcode for moving in self._moving.values()):
            raise Conflict(f"disc {barcode} is on its way")
        if not places:
            raise VolumeMissing(f"disc {barcode} is not in the library")
        if len(places) > 1:
            raise SameLabel(barcode, [element.place for element in places])
        if free_of_drives and places[0].kind is ElementKind.DRIVE:
            raise Conflict(f"disc {barcode} is in {places[0].place}")
        return places[0]

    def _element(self, address: ElementAddress) -> Element:
        try:
            return self._elements[address]
        except KeyError:
            raise ChangerError(f"the library has no element {address}") from None

    def _home(self, disc: Element) -> ElementAddress:
        """Where the disc should go: its slot, else a free one, else the mail slot it came from.

        In a unit, a slot of the magazine that is there.
        """
        source = self._elements.get(disc.source) if disc.source is not None else None
        if source is not None and source.address in self._awaited:
            source = None
        if disc.unit is not None:
            free = self._all_free(ElementKind.STORAGE, unit=disc.unit)
            if source is not None and source.address in free:
                return source.address
            if not free:
                raise ChangerError(
                    f"there is no free slot in unit {disc.unit} for the disc in {disc.place}",
                    next_step=_TAKE_OUT,
                )
            return free[0]
        if source is None or source.full:
            return self._free(ElementKind.STORAGE)
        if source.kind is ElementKind.STORAGE or not self._all_free(ElementKind.STORAGE):
            return source.address
        return self._free(ElementKind.STORAGE)

    def _all_free(self, kind: ElementKind, unit: int | None = None) -> list[ElementAddress]:
        return [
            e.address for e in self._elements.values()
            if e.kind is kind and not e.full and unit in (None, e.unit)
            and e.address not in self._awaited
        ]  # fmt: skip

    def _free(self, kind: ElementKind) -> ElementAddress:
        """A free element, if possible not the slot of a disc that is out of it just now."""
        free = self._all_free(kind)
        homes = {e.source for e in self._elements.values() if e.source is not None}
        if free:
            return next((address for address in free if address not in homes), free[0])
        raise ChangerError("the library has no free slot", next_step=_TAKE_OUT)

    async def _bring(self, disc: Element, unit: int) -> None:
        """Have the disc's magazine in the unit."""
        magazine, there = disc.magazine, self._magazines.get(unit)
        if magazine is None or magazine == there:
            return  # if it is in no magazine the move will say so
        if disc.unit is not None:
            raise Conflict(f"magazine {magazine} is in unit {disc.unit}")
        inside = next(
            (e for e in self._elements.values()
             if e.kind is ElementKind.DRIVE and e.unit == unit and e.full), None,
        )  # fmt: skip
        if inside is not None:
            raise Conflict(f"unit {unit} still has a disc of magazine {there} in {inside.place}")
        async with self._arm:
            if there is not None:
                await self._carry(there, None)
            await self._carry(magazine, unit)

    async def _move(self, disc: Element, dst: ElementAddress) -> None:
        """One journalled move; whatever comes, its end is recorded and the map is true or stale."""
        target = self._element(dst)
        if disc.barcode is None:
            raise ChangerError(f"the disc in {disc.place} bears no label that reads")
        barcode = disc.barcode
        self._awaited.add(dst)
        try:
            await self._act(
                f"disc {barcode}",
                Moving(barcode, disc.place, target.place),
                lambda: self._journal.begin(barcode, disc.address, dst),
                lambda: self._changer.move(disc.address, dst),
                self._journal.finish,
                lambda: self._note(disc, target),
            )
        finally:
            self._awaited.discard(dst)

    async def _carry(self, magazine: int, unit: int | None) -> None:
        """As `_move`, of a magazine into a unit or (None) into the rack."""
        places = {held: f"unit {at}" for at, held in self._magazines.items()}
        to = "the rack" if unit is None else f"unit {unit}"
        await self._act(
            f"magazine {magazine}",
            Moving(f"magazine {magazine}", places.get(magazine, "the rack"), to),
            lambda: self._journal.begin_carry(magazine, unit),
            lambda: self._changer.carry(magazine, unit),
            self._journal.finish_carry,
            lambda: self._note_carry(magazine, unit),
        )

    async def _act(
        self,
        what: str,
        moving: Moving,
        begin: Callable[[], Awaitable[int]],
        act: Callable[[], Awaitable[None]],
        finish: Callable[[int, bool], Awaitable[None]],
        note: Callable[[], None],
    ) -> None:
        """One move, on record before it begins and ended whatever comes."""
        key = next(self._numbers)
        self._moving[key] = moving
        with trio.CancelScope(shield=True):
            try:
                token = await begin()
                try:
                    await act()
                except BaseException as error:
                    self._stale = True
                    await finish(token, False)
                    if isinstance(error, HsmError):
                        route = f"from {moving.src} to {moving.dst}"
                        error.message = f"{what}, {route}: {error.message}"
                    raise
            finally:
                del self._moving[key]
            note()
            await finish(token, True)

    def _note_carry(self, magazine: int, unit: int | None) -> None:
        """Update the map after a carry that went well."""
        self._lies = {}
        self._magazines = {at: held for at, held in self._magazines.items() if held != magazine}
        if unit is not None:
            self._magazines[unit] = magazine
        for address, element in self._elements.items():
            if element.magazine == magazine:
                if element.kind is ElementKind.STORAGE:
                    self._elements[address] = replace(element, unit=unit, accessible=True)
                else:
                    self._elements[address] = replace(element, magazine=None)

    def _note(self, disc: Element, target: Element) -> None:
        """Update the map after a move that went well."""
        self._lies = {}
        assert disc.barcode is not None
        slots = (ElementKind.STORAGE, ElementKind.IMPORT_EXPORT)
        left = disc.address if disc.kind in slots else disc.source
        self._elements[disc.address] = replace(
            disc, full=False, barcode=None, source=None, accessible=True
        )
        self._elements[target.address] = replace(
            target, full=True, barcode=disc.barcode, source=None if target.kind in slots else left
        )
        self._places[disc.barcode] = [target.address]
