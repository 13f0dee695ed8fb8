"""The one owner of moves: serialised, journalled before they start, never abandoned half-way.

It keeps a map of the library in memory from the last inventory and its own moves. Nothing is
retried here: a jam or an open door raises at once, and the caller decides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import trio

from hsmfs.errors import ChangerError, Conflict, HsmError, NotFound, SameLabel, VolumeMissing
from hsmfs.library.journal import MoveJournal
from hsmfs.library.ports import Drive, Element, ElementKind, Library
from hsmfs.types import Barcode, ElementAddress

_LOOK = "see 'hsmctl library inventory'"
_TAKE_OUT = "take discs out first"


@dataclass(frozen=True, slots=True)
class Moving:
    """A move under way; places in an admin's words."""

    barcode: Barcode
    src: str
    dst: str


class Robot:
    """Moves discs by barcode. Call `inventory` once before anything else.

    A drive that is asked to take or give a disc is ejected first: the caller owns it and has
    nothing running there.
    """

    def __init__(self, library: Library, journal: MoveJournal) -> None:
        self._changer = library.changer
        self._journal = journal
        self._one_move = trio.Lock()
        self._elements: dict[ElementAddress, Element] = {}
        self._places: dict[Barcode, list[ElementAddress]] = {}
        self._stale = True
        self._moving: Moving | None = None

    @property
    def moving(self) -> Moving | None:
        """The disc that is on its way just now."""
        return self._moving

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
        if element is not None and element.magazine is None and element.source is not None:
            element = self._elements.get(element.source)
        return element.magazine if element is not None else None

    def in_drive(self, drive: Drive) -> Barcode | None:
        """The disc that was last known to be in the drive."""
        element = self._elements.get(drive.address)
        return element.barcode if element else None

    async def inventory(self, *, rescan: bool = False) -> list[Element]:
        """Ask the robot for everything; with rescan it reads every label again first.

        Raises DoorOpen, ChangerError.
        """
        async with self._one_move:
            if rescan:
                await self._changer.rescan()
            await self._refresh()
            return list(self._elements.values())

    async def fetch(self, barcode: Barcode, drive: Drive, *, look: bool = False) -> None:
        """Bring the disc into the drive, putting away what is in it; nothing to do if it is there.

        look: ask after that what really lies there, before the next move.
        Raises VolumeMissing, SameLabel, Conflict if another drive has it, DoorOpen, ChangerError,
        DriveError.
        """
        async with self._one_move:
            await self._know()
            if self.in_drive(drive) != barcode:
                self._locate(barcode, free_of_drives=True)
                await self._put_away(drive)
                await self._move(self._locate(barcode), drive.address)
            if look:
                await self._refresh()

    async def put_away(self, drive: Drive) -> None:
        """Take the disc out of the drive to its slot, or any free one; nothing to do if empty.

        Raises DoorOpen, ChangerError (no free slot too), DriveError.
        """
        async with self._one_move:
            await self._know()
            await self._put_away(drive)

    async def move(self, barcode: Barcode, dst: ElementAddress) -> None:
        """Move a disc that is in no drive to an element, as an operator asks.

        Raises VolumeMissing, NotFound if there is no such element, Conflict if a drive has the disc
        or the element is full, DoorOpen, ChangerError.
        """
        async with self._one_move:
            await self._know()
            disc, target = self._locate(barcode, free_of_drives=True), self._elements.get(dst)
            if target is None:
                raise NotFound(f"the library has no element {dst}", next_step=_LOOK)
            if target.full:
                raise Conflict(f"element {dst}, {target.place}, is full", next_step=_LOOK)
            await self._move(disc, dst)

    async def export(self, barcode: Barcode) -> Element:
        """Put the disc into a free mail slot for a person to take; returns the mail slot.

        Raises as `move`; Conflict if no mail slot is free.
        """
        async with self._one_move:
            await self._know()
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
        async with self._one_move:
            await self._refresh()
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
        async with self._one_move:
            await self._know()
            for element in list(self._elements.values()):
                if element.kind is ElementKind.TRANSPORT and element.full:
                    address = self._home(element)
                    await self._move(element, address)
                    return self._elements[address]
        return None

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
        self._places = defaultdict(list)
        for element in self._elements.values():
            if element.full and element.barcode is not None:
                self._places[element.barcode].append(element.address)
        self._stale = False

    def _locate(self, barcode: Barcode, *, free_of_drives: bool = False) -> Element:
        places = self.places(barcode)
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
        """Where the disc should go: its slot, else a free one, else the mail slot it came from."""
        source = self._elements.get(disc.source) if disc.source is not None else None
        if source is None or source.full:
            return self._free(ElementKind.STORAGE)
        if source.kind is ElementKind.STORAGE or not self._all_free(ElementKind.STORAGE):
            return source.address
        return self._free(ElementKind.STORAGE)

    def _all_free(self, kind: ElementKind) -> list[ElementAddress]:
        return [e.address for e in self._elements.values() if e.kind is kind and not e.full]

    def _free(self, kind: ElementKind) -> ElementAddress:
        """A free element, if possible not the slot of a disc that is out of it just now."""
        free = self._all_free(kind)
        homes = {e.source for e in self._elements.values() if e.source is not None}
        if free:
            return next((address for address in free if address not in homes), free[0])
        raise ChangerError("the library has no free slot", next_step=_TAKE_OUT)

    async def _move(self, disc: Element, dst: ElementAddress) -> None:
        """One journalled move; whatever comes, its end is recorded and the map is true or stale."""
        target = self._element(dst)
        if disc.barcode is None:
            raise ChangerError(f"the disc in {disc.place} bears no label that reads")
        with trio.CancelScope(shield=True):
            token = await self._journal.begin(disc.barcode, disc.address, dst)
            self._moving = Moving(disc.barcode, disc.place, target.place)
            try:
                await self._changer.move(disc.address, dst)
            except BaseException as error:
                self._stale = True
                await self._journal.finish(token, ok=False)
                if isinstance(error, HsmError):
                    route = f"from {disc.place} to {target.place}"
                    error.message = f"disc {disc.barcode}, {route}: {error.message}"
                raise
            finally:
                self._moving = None
            self._note(disc, target)
            await self._journal.finish(token, ok=True)

    def _note(self, disc: Element, target: Element) -> None:
        """Update the map after a move that went well."""
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
