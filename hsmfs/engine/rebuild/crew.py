"""The drives of a library while a catalog is made again: each takes one disc after the other.

A disc that fails in one drive is tried in the others before it is given up. A drive that fails on
disc after disc, or does not give one back, is used no more: it would take good discs for bad ones.
Where magazines move whole each unit of drives takes one magazine after the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import trio

from ... import logs
from ...errors import ChangerError, DriveError, ForeignDisc, HsmError, VolumeMissing
from ...library.ports import Drive, Element, ElementKind, Library
from ...types import Barcode, ElementAddress

log = logs.get(__name__)
BROKEN = 3
"""Discs in a row on which a drive failed that is used no more."""

Use = Callable[[Drive, Barcode], Awaitable[None]]
"""Work with a disc that lies in the drive. What it raises says that it did not do there."""


class _Round:
    """What becomes of the discs of one call of `Crew.each`."""

    def __init__(self, wanted: Callable[[Barcode], bool]) -> None:
        self._wanted = wanted
        self._failed_in: dict[Barcode, set[str]] = {}
        self.in_hand: set[Barcode] = set()
        self.teams: dict[int, int | None] = {}
        """Units at work: the magazine that each has or is about to have."""
        self.faults: dict[Barcode, HsmError] = {}
        self.changed = trio.Event()

    def open(self, element: Element, drive: Drive) -> bool:
        """Whether the disc in the element is to be tried in the drive."""
        code = element.barcode
        if code is None or code in self.in_hand or not self._wanted(code):
            return False
        return drive.name not in self._failed_in.get(code, ())

    def failed(self, barcode: Barcode, drives: Sequence[Drive], fault: HsmError) -> None:
        """It did not do in these drives."""
        self.faults[barcode] = fault
        self._failed_in.setdefault(barcode, set()).update(drive.name for drive in drives)

    def poke(self) -> None:
        """Who waits for something to do may look again."""
        self.changed.set()
        self.changed = trio.Event()


class Crew:
    """All drives, and the robot, which makes one move at a time.

    Attributes:
        out: drives that are used no more, and why.
    """

    def __init__(self, library: Library) -> None:
        self._library, self._changer = library, library.changer
        self._robot = trio.Lock()
        self._in_a_row = Counter[str]()
        self.out: dict[str, str] = {}

    async def elements(self) -> list[Element]:
        """What the robot says. Raises DoorOpen, ChangerError."""
        async with self._robot:
            return await self._changer.inventory()

    async def clear_gripper(self) -> None:
        """A run that was killed, or a jam, may have left a disc, or a magazine, on its way."""
        for element in await self.elements():
            if element.kind is ElementKind.TRANSPORT and element.full:
                await self._to_slot(element.address)
            if element.kind is ElementKind.TRANSPORT and element.magazine is not None:
                await self._carry(element.magazine, None)

    async def recognise(self) -> None:
        """Discs whose labels are not known are looked at, in drives that are empty if need be."""
        if any(e.full and e.barcode is None for e in await self.elements()):
            for drive in self._library.drives:
                await self._put_away(drive)
            async with self._robot:
                await self._changer.rescan()

    async def each(
        self,
        wanted: Callable[[Barcode], bool],
        choose: Callable[[Sequence[Barcode]], Barcode],
        use: Use,
    ) -> dict[Barcode, HsmError]:
        """Use every disc that is wanted, on all drives at once; what ails those that did in none.

        choose: which of several comes next. A disc is wanted until wanted says no. Raises what the
        robot raises, OSError, and DriveError if no drive is left for discs that are wanted.
        """
        round_ = _Round(wanted)
        robot: list[HsmError | OSError] = []
        try:
            async with trio.open_nursery() as nursery:
                for unit, drives in self._units(await self.elements()).items():
                    if unit is None:
                        for drive in drives:
                            nursery.start_soon(self._work, drive, round_, choose, use)
                    else:
                        round_.teams[unit] = None
                        nursery.start_soon(self._team, unit, drives, round_, choose, use)
        except* (HsmError, OSError) as group:
            robot.append(_first(group))  # one robot, or disk, fails for all drives alike
        if robot:
            raise robot[0]
        left = {e.barcode: e for e in await self.elements() if e.barcode and wanted(e.barcode)}
        if left and len(self.out) == len(self._library.drives):
            raise self._none_left(len(left))
        for code, element in left.items():
            held = f"drive {element.drive} does not give it back"
            if element.kind is ElementKind.STORAGE:
                held = f"magazine {element.magazine} comes to no drive that works"
            round_.faults.setdefault(code, DriveError(held))
        return {code: fault for code, fault in round_.faults.items() if wanted(code)}

    def _none_left(self, discs: int) -> DriveError:
        reasons = "; ".join(f"{name}: {why}" for name, why in sorted(self.out.items()))
        return DriveError(
            f"no drive works any more ({reasons}), and {discs} discs are still to be read",
            next_step="see to the drives, or take out the discs that these name; then run it"
            " again: it goes on where it was",
        )

    def _units(self, elements: Sequence[Element]) -> dict[int | None, list[Drive]]:
        """The drives by their units; None: those that take single discs."""
        unit_of = {e.address: e.unit for e in elements if e.kind is ElementKind.DRIVE}
        units: dict[int | None, list[Drive]] = {}
        for drive in self._library.drives:
            units.setdefault(unit_of.get(drive.address), []).append(drive)
        return units

    async def _team(
        self,
        unit: int,
        drives: Sequence[Drive],
        round_: _Round,
        choose: Callable[[Sequence[Barcode]], Barcode],
        use: Use,
    ) -> None:
        """The drives of a unit: the magazine that is in it, then one after the other."""
        try:
            while any(drive.name not in self.out for drive in drives):
                changed, elements = round_.changed, await self.elements()
                there = next((e.magazine for e in _slots(elements) if e.unit == unit), None)
                todo = self._todo(elements, drives, round_)
                others = {held for at, held in round_.teams.items() if at != unit}
                others |= {e.magazine for e in _slots(elements) if e.unit not in (None, unit)}
                if there in todo:
                    round_.teams[unit] = there
                    async with trio.open_nursery() as nursery:
                        for drive in drives:
                            nursery.start_soon(self._work, drive, round_, choose, use, unit)
                    there = None if await self._taken_away(unit, drives) else there
                    round_.teams[unit] = None
                    round_.poke()
                    if there is not None:
                        return  # a drive keeps its disc, and with it the magazine
                elif there is not None:
                    if not await self._taken_away(unit, drives):
                        return
                elif free := sorted(todo - others):
                    round_.teams[unit] = free[0]
                    await self._carry(free[0], unit)
                elif todo:
                    await changed.wait()  # what another unit has may fail there
                else:
                    return
        finally:
            del round_.teams[unit]
            round_.poke()

    def _todo(
        self, elements: Sequence[Element], drives: Sequence[Drive], round_: _Round
    ) -> set[int]:
        """Magazines with discs that are to be tried in one of the drives, unless none can come."""
        in_unit: dict[int | None, int | None] = {
            e.unit: e.magazine for e in _slots(elements) if e.unit is not None
        }
        able = [drive for drive in drives if drive.name not in self.out]
        mine = {e.unit for e in elements for drive in able if e.address == drive.address}
        found = set()
        for element in elements:
            stuck = element.unit not in (None, *mine, *round_.teams)
            magazine = in_unit.get(element.unit, element.magazine)
            if magazine is not None and not stuck:
                code = element.barcode
                at_work = code is not None and code in round_.in_hand
                if at_work or any(round_.open(element, drive) for drive in able):
                    found.add(magazine)
        return found

    async def _carry(self, magazine: int, unit: int | None) -> None:
        async with self._robot:
            await self._changer.carry(magazine, unit)

    async def _taken_away(self, unit: int, drives: Sequence[Drive]) -> bool:
        """Have the magazine leave the unit; False if a drive does not give its disc back."""
        for drive in drives:
            await self._put_away(drive)
        elements = await self.elements()
        if any(e.full for e in elements if e.kind is ElementKind.DRIVE and e.unit == unit):
            return False
        there = next((e.magazine for e in _slots(elements) if e.unit == unit), None)
        if there is not None:
            await self._carry(there, None)
        return True

    async def _work(
        self,
        drive: Drive,
        round_: _Round,
        choose: Callable[[Sequence[Barcode]], Barcode],
        use: Use,
        unit: int | None = None,
    ) -> None:
        """One drive: the disc that is in it, then one after the other, of what is in its unit."""
        while drive.name not in self.out:
            changed = round_.changed
            elements = [e for e in await self.elements() if unit in (None, e.unit)]
            todo = {e.barcode: e for e in elements if e.barcode and round_.open(e, drive)}
            inside = next(e for e in elements if e.address == drive.address)
            if inside.full and inside.barcode not in todo:
                await self._put_away(drive)
                round_.poke()
                continue
            here = {code: e for code, e in todo.items() if e.kind is not ElementKind.DRIVE}
            if inside.full:
                assert inside.barcode is not None
                await self._one(drive, inside, inside.barcode, round_, use)
            elif here:
                code = choose(sorted(here))
                await self._one(drive, here[code], code, round_, use)
            elif self._at_work(elements, round_, unit) or any(self._has(e) for e in todo.values()):
                await changed.wait()  # what another drive has may fail there
            else:
                return

    @staticmethod
    def _at_work(elements: Sequence[Element], round_: _Round, unit: int | None) -> bool:
        """Whether other drives have discs in hand that this one might get."""
        if unit is None:
            return bool(round_.in_hand)
        return any(element.barcode in round_.in_hand for element in elements)

    def _has(self, element: Element) -> bool:
        """Whether a drive that works has the disc."""
        return element.kind is ElementKind.DRIVE and element.drive not in self.out

    async def _one(
        self, drive: Drive, element: Element, code: Barcode, round_: _Round, use: Use
    ) -> None:
        """One disc in the drive, and away again."""
        round_.in_hand.add(code)
        inside = element.address == drive.address
        try:
            if not inside and not await self._brought(drive, element, code, round_):
                return
            try:
                await use(drive, code)
                self._in_a_row[drive.name] = 0
            except HsmError as fault:
                self._failed(drive, code, fault, round_)
            finally:
                with trio.CancelScope(shield=True):
                    await self._put_away(drive, None if inside else element.address)
        finally:
            round_.in_hand.discard(code)
            round_.poke()

    async def _brought(
        self, drive: Drive, element: Element, code: Barcode, round_: _Round
    ) -> bool:
        """Bring the disc into the drive; False if somebody took it away."""
        try:
            async with self._robot:
                await self._changer.move(element.address, drive.address)
        except VolumeMissing as fault:
            round_.failed(code, self._library.drives, fault)
            return False
        return True

    def _failed(self, drive: Drive, code: Barcode, fault: HsmError, round_: _Round) -> None:
        """The disc is tried in another drive, but for one that says itself that it is not ours."""
        final = isinstance(fault, ForeignDisc)
        round_.failed(code, self._library.drives if final else [drive], fault)
        if isinstance(fault, DriveError):
            self._in_a_row[drive.name] += 1
            if self._in_a_row[drive.name] == BROKEN:
                self._give_up(drive, fault)

    def _give_up(self, drive: Drive, fault: HsmError) -> None:
        log.error("drive is used no more", drive=drive.name, error=fault.message)
        self.out[drive.name] = fault.message

    async def _put_away(self, drive: Drive, home: ElementAddress | None = None) -> None:
        """Take out what lies in the drive, if it gives it back."""
        try:
            await drive.eject()
        except DriveError as fault:
            self._give_up(drive, fault)
            return
        await self._to_slot(drive.address, home)

    async def _to_slot(self, address: ElementAddress, home: ElementAddress | None = None) -> None:
        """Move what lies there, if anything, to its slot, or to a free one."""
        async with self._robot:
            elements = await self._changer.inventory()
            here = next(e for e in elements if e.address == address)
            if not here.full:
                return
            home = here.source if home is None else home
            free = [e for e in _slots(elements) if not e.full and e.unit == here.unit]
            slot = next((e for e in free if e.address == home), free[0] if free else None)
            if slot is None:
                raise ChangerError(
                    f"no empty slot for the disc in {here.place}", next_step="take a disc out"
                )
            await self._changer.move(address, slot.address)


def _slots(elements: Sequence[Element]) -> list[Element]:
    return [e for e in elements if e.kind is ElementKind.STORAGE]


def _first(group: BaseExceptionGroup[HsmError | OSError]) -> HsmError | OSError:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
