"""The people beside the library: they mend what broke, some time after it did.

What they are to do is data of the world, so that they remember it over the daemon's deaths.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import trio

from hsmfs.errors import HsmError
from hsmfs.library.ports import ElementKind

from .library import Disc, DriveState

if TYPE_CHECKING:
    from .life import Life

DAY = 86_400.0
LOOK = 6 * 3600.0
"""Seconds between two looks at what the library asks for, while it asks for something."""


class Operator:
    """One person with a list."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._scope = trio.CancelScope()
        self._wake = trio.Event()

    @property
    def todo(self) -> list[tuple[float, str, Any]]:
        """(when, what, of what), in the world."""
        todo: list[tuple[float, str, Any]] = self._life.world.state.setdefault("todo", [])
        return todo

    @property
    def wanted(self) -> list[tuple[float, str, Any]]:
        """Repairs that are still to come; discs in a vault may stay there."""
        return [item for item in self.todo if item[1] != "bring"] or self._asked()

    @property
    def times(self) -> list[float]:
        """When something is to be done."""
        return [item[0] for item in self.todo]

    def later(self, rng: random.Random, what: str, of: Any = None, within: float = 2 * DAY) -> None:
        """It will be done some time from now."""
        self.todo.append((trio.current_time() + rng.uniform(600.0, within), what, of))
        self._wake.set()

    def stop(self) -> None:
        self._scope.cancel()

    async def run(self) -> None:
        """Do what is due, for ever."""
        with self._scope:
            while True:
                self._wake = trio.Event()
                self.todo.sort(key=lambda item: item[0])
                if self.todo and self.todo[0][0] <= trio.current_time():
                    _, what, of = self.todo.pop(0)
                    await self._do(what, of)
                    continue
                await self._serve_requests()
                due = self.todo[0][0] if self.todo else float("inf")
                with trio.move_on_at(min(due, trio.current_time() + LOOK)):
                    await self._wake.wait()

    async def _do(self, what: str, of: Any) -> None:
        life = self._life
        life.busy += 1
        try:
            life.world.note(f"operator: {what} {of}")
            await getattr(self, f"_{what}")(of)
        except HsmError as fault:
            life.world.note(f"operator could not {what} {of}: {fault.message}")
            self.todo.append((trio.current_time() + DAY, what, of))
        finally:
            life.busy -= 1

    # What is asked for

    def _asked(self) -> list[tuple[float, str, Any]]:
        vault = self._life.engine.vault
        asked = [(0.0, "bring", r["name"]) for r in vault.requests() if r["kind"] == "bring"]
        return asked + [(0.0, "take", r["barcode"]) for r in vault.leaving() if r["ready"]]

    async def _serve_requests(self) -> None:
        """Carry what is ready to the vault, and bring what readers wait for."""
        for _, what, barcode in self._asked():
            if what == "take":
                self._take_out(barcode)
                self._life.engine.vault._work.set()
            else:
                await self._do("bring", barcode)

    def _disc(self, name: str) -> Disc | None:
        shelves = self._life.world.shelves
        assert shelves is not None
        return next((disc for disc in shelves.all_discs() if disc.name == name), None)

    def _take_out(self, name: str) -> None:
        shelves, disc = self._life.world.shelves, self._disc(name)
        assert shelves is not None and disc is not None
        at = shelves.where(disc)
        if at is not None:
            del shelves.places[at]
            shelves.outside[disc.name] = disc

    def _free(self, kind: ElementKind) -> int | None:
        shelves = self._life.world.shelves
        assert shelves is not None
        taken = {disc.source for disc in shelves.places.values()} | set(shelves.places)
        return next(
            (e.address for e in shelves.elements
             if e.kind is kind and e.address not in taken), None,
        )  # fmt: skip

    async def _bring(self, name: str) -> None:
        shelves = self._life.world.shelves
        assert shelves is not None
        disc = shelves.outside.get(name)
        if disc is None:
            return
        at = self._free(ElementKind.IMPORT_EXPORT)
        if at is None:
            at = self._free(ElementKind.STORAGE)
        if at is not None:
            shelves.places[at] = shelves.outside.pop(name)
        await self._life.engine.vault.bring_in()

    # What broke

    async def _mend_drive(self, address: int) -> None:
        shelves = self._life.world.shelves
        assert shelves is not None
        hung = shelves.drives[address].hangs
        shelves.drives[address] = DriveState()
        for drive in self._life.engine.library.drives:
            if drive.address == address:
                if hung:
                    # Only a new process gets a thread back that waits for a device.
                    self._life.world.state["restart"] = True
                await self._life.engine.mounts.drive_up(drive.serial)

    async def _look_at_drives(self, _: Any) -> None:
        """Drives that were taken down, and that he finds nothing wrong with, are used again."""
        shelves, engine = self._life.world.shelves, self._life.engine
        assert shelves is not None
        for drive in engine.library.drives:
            state = shelves.drives[drive.address]
            down = not engine.mounts._bays[drive.serial].up
            if down and not state.dead and not state.hangs:
                await engine.mounts.drive_up(drive.serial)

    async def _mend_robot(self, _: Any) -> None:
        shelves = self._life.world.shelves
        assert shelves is not None
        shelves.jams = 0

    async def _close_door(self, _: Any) -> None:
        shelves = self._life.world.shelves
        assert shelves is not None
        shelves.door_open = False

    async def _label(self, labels: dict[str, str]) -> None:
        """Labels are what they should be again."""
        for name, label in labels.items():
            disc = self._disc(name)
            if disc is not None:
                disc.label = label  # type: ignore[assignment]
        await self._inventory(None)

    async def _inventory(self, _: Any) -> None:
        engine = self._life.engine
        await engine.mounts.inventory.sync(rescan=True)
        for drive in engine.mounts.status()["drives"]:
            if not drive["up"]:
                await engine.mounts.drive_up(drive["serial"])

    async def _put_back(self, name: str) -> None:
        """A disc that somebody took out and put on a desk."""
        shelves = self._life.world.shelves
        assert shelves is not None
        disc, at = shelves.outside.get(name), self._free(ElementKind.STORAGE)
        if disc is not None and at is not None:
            shelves.places[at] = shelves.outside.pop(name)
        await self._inventory(None)
