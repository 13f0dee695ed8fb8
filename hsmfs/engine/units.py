"""Units of drives, and the magazines in them: carriers, as the rules call them.

Where discs move singly each drive is by itself and nothing here is asked for. Where an inventory is
missing yet, too. Volumes have numbers above 0, so a magazine's carrier has its number below 0.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..catalog.catalog import Catalog
from ..library.robot import Robot
from ..types import Barcode, VolumeId
from .bay import Bay


class Units:
    """What the robot's map says of the bays."""

    def __init__(self, catalog: Catalog, robot: Robot, bays: Mapping[str, Bay]) -> None:
        self._catalog, self._robot, self._bays = catalog, robot, bays

    def name(self, bay: Bay) -> str:
        """Of the drive's unit; "" if it has none."""
        unit = self._robot.unit_of(bay.drive)
        return "" if unit is None else f"unit {unit}"

    def magazine(self, bay: Bay) -> int | None:
        """The one in the drive's unit."""
        unit = self._robot.unit_of(bay.drive)
        return None if unit is None else self._robot.magazine_in(unit)

    def mates(self, bay: Bay) -> list[Bay]:
        """The drives of its unit, itself among them."""
        unit = self._robot.unit_of(bay.drive)
        if unit is None:
            return [bay]
        return [b for b in self._bays.values() if self._robot.unit_of(b.drive) == unit]

    def with_magazine(self, barcode: Barcode) -> Bay | None:
        """A drive of the unit that the disc's magazine is in."""
        magazine = self._robot.magazine_of(barcode) if self._robot.whole else None
        found = (bay for bay in self._bays.values() if self.magazine(bay) == magazine)
        return None if magazine is None else next(found, None)

    def holds(self, bay: Bay) -> bool:
        """There is a disc in the drive."""
        element = self._robot.elements.get(bay.drive.address)
        return element is not None and element.full

    def in_use(self, bay: Bay) -> bool:
        """Whether the drive can't be emptied, nor the magazine of its unit be changed.

        One that is down and empty, though a call into it may never come back, is in nobody's way.
        """
        at_work = bay.claim is not None or bay.emptying or bay.changing is not None
        if at_work or bay.up:
            return at_work or bay.busy
        return self.holds(bay) and (bay.calls > 0 or bay.holds_fast is not None)

    def held_fast(self) -> list[Bay]:
        """Those that keep the magazine of their unit by a disc that they do not give back."""
        return [
            bay for bay in self._bays.values()
            if bay.holds_fast is not None and self.holds(bay) and self.magazine(bay) is not None
        ]  # fmt: skip

    def moves_to(self, bay: Bay, barcode: Barcode) -> int:
        """How often the robot's arm moves to bring the disc into the drive."""
        if not self._robot.needs_carry(barcode, bay.drive):
            return 0
        return 1 + (self.magazine(bay) is not None if self.name(bay) else self.holds(bay))

    # Carriers

    def carrier(self, barcode: Barcode) -> int | None:
        """The disc's; None if it is carried alone."""
        magazine = self._robot.magazine_of(barcode) if self._robot.whole else None
        return None if magazine is None else -magazine

    def carriers(self) -> dict[VolumeId, int]:
        """Of all discs that are not carried alone."""
        found = {}
        for element in self._robot.elements.values() if self._robot.whole else ():
            if element.barcode is not None:
                volume = self._catalog.volumes.number(element.barcode)
                carrier = self.carrier(element.barcode)
                if volume is not None and carrier is not None:
                    found[volume] = carrier
        return found

    def near(self) -> set[int]:
        """Carriers that are in units."""
        found = (self.magazine(bay) for bay in self._bays.values())
        return {-magazine for magazine in found if magazine is not None}
