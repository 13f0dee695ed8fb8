"""What the robot says is in the library, taken over into the catalog.

The robot is right: new labels become blank volumes, discs that are gone become lost with the
reason and come back as what they were, discs moved by hand are noted. Runs at start and on demand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from .. import clock, crash, logs
from ..catalog.catalog import Catalog
from ..catalog.volumes import Seat
from ..library.gate import Gate
from ..library.journal import Difference, DifferenceKind, reconcile, reconcile_carries
from ..library.ports import Element, ElementKind, Library
from ..library.robot import Robot
from ..limits import BATCH_ROWS
from ..states import VolumeState
from ..types import Barcode, ElementAddress, VolumeId
from .events import Events
from .journal import CatalogJournal, OpenMove
from .refresh import REBUILD

log = logs.get(__name__)

_MAY_GET_LOST = {
    VolumeState.BLANK,
    VolumeState.FULL,
    VolumeState.SUSPECT,
    VolumeState.DAMAGED,
}
Kinds = Mapping[ElementAddress, ElementKind]
_STANDING = (DifferenceKind.DUPLICATE, DifferenceKind.UNLABELLED)
"""What no inventory settles: only people can."""
_SLOTS = (ElementKind.STORAGE, ElementKind.DRIVE, ElementKind.TRANSPORT)


class Inventory:
    """Brings the catalog's picture of the library up to what the robot says.

    Attributes:
        quiet: passed by whoever moves discs; who compares is in it alone, so that no move runs.
        came_back: called with a disc that is in the library again; set by who wires the engine.
    """

    def __init__(self, catalog: Catalog, library: Library, robot: Robot, events: Events) -> None:
        self._catalog = catalog
        self._library = library
        self._robot = robot
        self._events = events
        self._journal = CatalogJournal(catalog)
        self._back: list[VolumeId] = []
        self._standing: set[Difference] = set()
        self.quiet = Gate()
        self.came_back: Callable[[VolumeId], None] = lambda volume: None

    async def sync(self, *, rescan: bool = False) -> list[Difference]:
        """Compare and take over; returns what was not as the catalog had it.

        Raises DoorOpen, ChangerError if the robot does not answer; nothing is changed then.
        """
        async with self.quiet.alone():
            found = await self._sync(rescan)
        back, self._back = self._back, []
        for volume in back:
            self.came_back(volume)
        return found

    async def _sync(self, rescan: bool) -> list[Difference]:
        elements = await self._robot.inventory(rescan=rescan)
        volumes = self._catalog.volumes.seats()
        expected = {barcode: seat.element for barcode, seat in volumes.items()}
        open_moves = self._journal.open_moves()
        differences = reconcile(elements, expected, open_moves)
        carried = reconcile_carries(elements, self._journal.open_carries())
        kinds = {e.address: e.kind for e in elements} if differences else {}
        crash.point("library.inventory.seen")
        await self._see_drives()
        for start in range(0, len(differences), BATCH_ROWS):
            async with self._catalog.write():
                for difference in differences[start : start + BATCH_ROWS]:
                    self._take_over(difference, volumes, kinds)
        async with self._catalog.write():
            for move in open_moves:
                self._catalog.volumes.finish_move(
                    move.token, self._lies_in(elements, move), clock.now_ns()
                )
            for difference, arrived in carried:
                assert difference.token is not None
                self._catalog.volumes.finish_carry(difference.token, arrived, clock.now_ns())
        differences += [difference for difference, _ in carried]
        await self._catalog.sync()
        crash.point("library.inventory.taken_over")
        self._report(differences, kinds)
        await self._clear_gripper()
        return differences

    async def _see_drives(self) -> None:
        async with self._catalog.write():
            for drive in self._library.drives:
                self._catalog.volumes.see_drive(drive.serial, drive.name)

    async def _clear_gripper(self) -> None:
        while (slot := await self._robot.clear_transport()) is not None:
            log.info("gripper cleared", barcode=slot.barcode, place=slot.place)
            self._events.emit("gripper_cleared", barcode=slot.barcode, place=slot.place)
        while (magazine := await self._robot.clear_magazine()) is not None:
            log.info("gripper cleared", magazine=magazine, place="the rack")
            self._events.emit("gripper_cleared", magazine=magazine, place="the rack")

    @staticmethod
    def _lies_in(elements: Sequence[Element], move: OpenMove) -> bool:
        return any(e.address == move.dst and e.barcode == move.barcode for e in elements)

    def _take_over(
        self,
        difference: Difference,
        volumes: Mapping[Barcode, Seat],
        kinds: Kinds,
    ) -> None:
        """One difference into the catalog; inside a transaction."""
        table, barcode = self._catalog.volumes, difference.barcode
        kind = difference.kind
        if barcode is None or kind is DifferenceKind.DUPLICATE:
            return
        volume = volumes.get(barcode)
        if volume is None:
            if difference.found is not None:
                new = table.add(barcode, self._library.disc_bytes, clock.now_ns())
                table.set_element(new, difference.found)
            return
        table.set_element(volume.id, difference.found)
        if difference.found is None:
            self._catalog.vault.left(volume.id)
            if volume.state in _MAY_GET_LOST:
                table.go_away(volume.id, VolumeState.LOST, difference.meaning)
        elif volume.state is VolumeState.LOST or (
            volume.state is VolumeState.EXPORTED
            and kinds.get(difference.found) in _SLOTS
            and not self._catalog.vault.is_leaving(volume.id)
        ):
            # A disc in a mail slot was exported there, or waits to be imported.
            if table.come_back(volume.id) is VolumeState.RETIRED:  # it was made anew meanwhile
                now = clock.now_ns()
                self._catalog.refreshes.to_be_destroyed(volume.id, REBUILD, now)
            self._back.append(volume.id)

    def _report(self, differences: list[Difference], kinds: Kinds) -> None:
        new = [d for d in differences if d.kind is DifferenceKind.UNKNOWN]
        if new:
            log.info("new discs", count=len(new), first=new[0].barcode, last=new[-1].barcode)
            self._events.emit("discs_found", count=len(new), first=new[0].barcode)
        before, self._standing = self._standing, {d for d in differences if d.kind in _STANDING}
        for d in differences:
            held = d.found is not None and kinds.get(d.found) is ElementKind.TRANSPORT
            if d.kind is DifferenceKind.UNKNOWN or held or d in before:
                continue  # a disc left in the gripper is told when it is put back
            volume = self._catalog.volumes.by_barcode(d.barcode) if d.barcode else None
            awaited = volume is not None and volume.state is VolumeState.EXPORTED
            quiet = awaited or d.kind in (DifferenceKind.HALF_DONE, DifferenceKind.RETURNED)
            (log.info if quiet else log.warning)(
                "inventory differs", kind=d.kind.value, barcode=d.barcode, meaning=d.meaning
            )
            self._events.emit(
                "inventory_differs", what=d.kind.value, barcode=d.barcode, meaning=d.meaning
            )

