"""The simulated robot: it reports what lies in which element's directory, and moves by rename.

A disc on its way is in the transport element, so a process killed at any instant leaves it in
exactly one place. Where magazines move whole the robot carries these alone, in the same way, and a
disc goes between its slot and a drive of the unit by one rename. No state is kept besides the
directories.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import trio

from hsmfs import crash, durable
from hsmfs.clock import MEDIA, blocking
from hsmfs.errors import ChangerError, DoorOpen, VolumeMissing
from hsmfs.library.ports import Drive, Element, ElementKind
from hsmfs.library.simulated.faults import FaultKind, Faults
from hsmfs.library.simulated.layout import (
    Geometry,
    disc_in,
    element_path,
    note_source,
    source_of,
)
from hsmfs.library.simulated.magazines import (
    GRIPPER,
    check_carry,
    check_move,
    magazines_out,
    note_magazine,
    place_of,
    with_magazines,
)
from hsmfs.library.simulated.timing import Timing, pass_until
from hsmfs.types import Barcode, ElementAddress

SLOTS = (ElementKind.STORAGE, ElementKind.IMPORT_EXPORT)


class SimulatedChanger:
    """A `ports.Changer` over the directories of one library."""

    def __init__(
        self,
        root: Path,
        geometry: Geometry,
        timing: Timing,
        faults: Faults,
        drives: Sequence[Drive],
    ) -> None:
        self._root = root
        self._elements = {element.address: element for element in geometry.elements()}
        self._whole = geometry.drives_per_magazine > 0
        self._grippers = [e.address for e in self._elements.values() if _grips(e)]
        self._at_work: set[ElementAddress] = set()
        self._choice = threading.Lock()
        """Held while a thread looks for a gripper and takes it."""
        self._timing = timing
        self._faults = faults
        self._drives = {drive.address: drive for drive in drives}

    async def inventory(self) -> list[Element]:
        """Every element, from the directories as they are now."""
        spinning = self._spinning()
        return await blocking(lambda: self._look(spinning), MEDIA)

    async def rescan(self) -> None:
        """Takes one exchange time; the directories are looked at by every inventory anyway."""
        started = trio.current_time()
        await blocking(self._check_door, MEDIA)
        await pass_until(started, self._timing.exchange_s)

    async def move(self, src: ElementAddress, dst: ElementAddress) -> None:
        """Lift the disc out of src, take the exchange time, put it into dst; in a unit at once."""
        spinning = self._spinning()
        if self._whole:
            await self._steps(lambda: self._shift(src, dst, spinning))
            return
        grippers: list[ElementAddress] = []
        try:
            await self._steps(
                lambda: self._lift(src, dst, spinning, grippers),
                lambda: self._put(grippers[0], src, dst),
            )
        finally:
            self._at_work.difference_update(grippers)

    async def carry(self, magazine: int, unit: int | None) -> None:
        """Lift the magazine, take the exchange time, put it into the unit or the rack."""
        await self._steps(
            lambda: self._lift_magazine(magazine, unit), lambda: self._put_magazine(magazine, unit)
        )

    async def _steps(self, *steps: Callable[[], None]) -> None:
        """In threads, an exchange time between each and the next."""
        with trio.CancelScope(shield=True):
            started = trio.current_time()
            for number, step in enumerate(steps):
                await pass_until(started, number * self._timing.exchange_s)
                await blocking(partial(_robotic, step), MEDIA)

    def _spinning(self) -> set[ElementAddress]:
        return {address for address, drive in self._drives.items() if drive.loaded is not None}

    def _check_door(self) -> None:
        if self._faults.strike(FaultKind.DOOR_OPEN):
            raise DoorOpen("the library's door is open")

    def _look(self, spinning: set[ElementAddress]) -> list[Element]:
        self._check_door()
        found = [self._status(element, spinning) for element in self._elements.values()]
        return with_magazines(found, magazines_out(self._root)) if self._whole else found

    def _status(self, element: Element, spinning: set[ElementAddress]) -> Element:
        disc = disc_in(self._root, element.address)
        if disc is None or self._gone(disc, element):
            return element
        barcode: Barcode | None = Barcode(disc.name)
        for label in self._faults.armed(FaultKind.LABEL, barcode=barcode):
            barcode = label.reads_as
        source = None if element.kind in SLOTS else source_of(disc)
        reachable = element.address not in spinning
        return replace(element, full=True, barcode=barcode, accessible=reachable, source=source)

    def _gone(self, disc: Path, element: Element) -> bool:
        """Whether a fault takes the disc out of its slot."""
        barcode = Barcode(disc.name)
        return element.kind is ElementKind.STORAGE and bool(
            self._faults.armed(FaultKind.MISSING, barcode=barcode)
        )

    def _lift(
        self,
        src: ElementAddress,
        dst: ElementAddress,
        spinning: set[ElementAddress],
        grippers: list[ElementAddress],
    ) -> None:
        """grippers: gets the one that is at work from now on."""
        start, end, disc = self._asked(src, dst, spinning)
        with self._choice:
            gripper = src if _grips(start) else self._free_gripper()
            grippers.append(gripper)
            self._at_work.add(gripper)
        jam = self._faults.strike(FaultKind.ROBOT_JAM, barcode=Barcode(disc.name))
        if jam is None or jam.leaves == "transport":
            if start.kind in SLOTS:
                note_source(disc, src)
            if src != gripper:
                os.rename(disc, element_path(self._root, gripper) / disc.name)
                crash.point("robot.lifted")
        if jam is not None:
            raise ChangerError(f"the robot jammed moving disc {disc.name} to {end.place}")

    def _free_gripper(self) -> ElementAddress:
        held = [disc_in(self._root, gripper) for gripper in self._grippers]
        for gripper, disc in zip(self._grippers, held, strict=True):
            if disc is None and gripper not in self._at_work:
                return gripper
        names = ", ".join(disc.name for disc in held if disc is not None)
        raise ChangerError(f"the robot's gripper still holds disc {names}")

    def _asked(
        self, src: ElementAddress, dst: ElementAddress, spinning: set[ElementAddress]
    ) -> tuple[Element, Element, Path]:
        """Both ends of a move and the disc to be moved, if it can be."""
        self._check_door()
        start, end = self._element(src), self._element(dst)
        if _grips(end) or start == end:
            raise ChangerError(f"a disc cannot be moved from {start.place} to {end.place}")
        disc = disc_in(self._root, src)
        if disc is None or self._gone(disc, start):
            raise VolumeMissing(f"{start.place} is empty")
        if src in spinning:
            raise ChangerError(f"{start.place} holds its disc fast", next_step="eject it first")
        if disc_in(self._root, dst) is not None:
            raise ChangerError(f"{end.place} is full")
        return start, end, disc

    def _shift(
        self, src: ElementAddress, dst: ElementAddress, spinning: set[ElementAddress]
    ) -> None:
        """Have a unit take a disc of its magazine into a drive, or out of it."""
        start, end, disc = self._asked(src, dst, spinning)
        check_move(start, end, magazines_out(self._root))
        if self._faults.strike(FaultKind.ROBOT_JAM, barcode=Barcode(disc.name)):
            raise ChangerError(f"the unit jammed moving disc {disc.name} to {end.place}")
        if start.kind is ElementKind.STORAGE:
            note_source(disc, src)
        os.rename(disc, element_path(self._root, dst) / disc.name)
        crash.point("robot.shifted")
        for address in (dst, src):
            durable.sync(element_path(self._root, address))

    def _lift_magazine(self, magazine: int, unit: int | None) -> None:
        if not self._whole:
            raise ChangerError("discs move singly here, and magazines do not")
        with self._choice:
            check_carry(self._look(set()), magazines_out(self._root), magazine, unit)
            jam = self._faults.strike(FaultKind.ROBOT_JAM)
            if jam is None or jam.leaves == "transport":
                note_magazine(self._root, magazine, GRIPPER)
                crash.point("robot.magazine.lifted")
        if jam is not None:
            raise ChangerError(f"the robot jammed carrying magazine {magazine} to {place_of(unit)}")

    def _put_magazine(self, magazine: int, unit: int | None) -> None:
        note_magazine(self._root, magazine, None if unit is None else str(unit))
        crash.point("robot.magazine.put")

    def _put(self, gripper: ElementAddress, src: ElementAddress, dst: ElementAddress) -> None:
        disc = disc_in(self._root, gripper)
        if disc is None:
            raise VolumeMissing(f"the disc for {self._element(dst).place} left the robot's gripper")
        os.rename(disc, element_path(self._root, dst) / disc.name)
        crash.point("robot.put")
        for address in (dst, src):
            durable.sync(element_path(self._root, address))

    def _element(self, address: ElementAddress) -> Element:
        try:
            return self._elements[address]
        except KeyError:
            raise ChangerError(f"the library has no element {address}") from None


def _grips(element: Element) -> bool:
    return element.kind is ElementKind.TRANSPORT


def _robotic(step: Callable[[], None]) -> None:
    """The directories beneath fail as a robot does."""
    try:
        step()
    except OSError as error:
        raise ChangerError(f"the robot failed: {error}") from error
