"""Discs out of the library and in again: export to a vault, import, requests to operators.

An export is one transaction: from then on the disc counts as exported, nothing is read from it or
written to it, and its row in `exports` makes the worker carry it to a mail slot, as many as fit,
now or after a restart. Where discs really are only the robot's inventory says.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import trio

from .. import clock, crash, logs
from ..catalog.catalog import Catalog
from ..catalog.vault import Leaving, Offer
from ..catalog.volumes import Volume
from ..errors import Conflict, HsmError, NotFound, SameLabel, VolumeMissing
from ..library.ports import Element, ElementKind
from ..library.robot import Robot
from ..states import SetState, VolumeState
from ..types import Barcode, VolumeId
from .events import Events
from .mounts import Mounts
from .recall import Recaller

log = logs.get(__name__)
LOOK_EVERY_S = 15.0
"""How often the robot is asked whether the operator has emptied the mail slots."""
_MAY_LEAVE = (VolumeState.FULL, VolumeState.SUSPECT, VolumeState.EXPORTED)


class Transfer:
    """Exports, imports and operator requests."""

    def __init__(
        self, catalog: Catalog, robot: Robot, mounts: Mounts, recaller: Recaller, events: Events
    ) -> None:
        self._catalog, self._robot, self._mounts = catalog, robot, mounts
        self._recaller, self._events = recaller, events
        self._work = trio.Event()
        self._returned: list[VolumeId] = []
        self._told = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry out what was ordered, for ever."""
        task_status.started()
        await self._take_over()
        while True:
            self._work = trio.Event()
            while self._returned:
                await self._recaller.volume_back(self._returned[0])
                del self._returned[0]
            if self._catalog.vault.leaving():
                await self._carry()
            with trio.move_on_after(LOOK_EVERY_S if self._catalog.vault.leaving() else 1e9):
                await self._work.wait()

    async def _take_over(self) -> None:
        """Discs that came back while nobody looked, or whose import was cut off, are here again."""
        for volume in self._catalog.volumes.all(VolumeState.EXPORTED):
            element = self._robot.where(Barcode(volume.barcode))
            inside = element is not None and element.kind is not ElementKind.IMPORT_EXPORT
            if inside and not self._catalog.vault.is_leaving(volume.id):
                await self._settle(volume.id)
        for row in self._catalog.vault.wanted():
            found = self._catalog.volumes.get(row.volume)
            if found is not None and found.state is not VolumeState.EXPORTED:
                self._returned.append(found.id)

    def came_back(self, volume: VolumeId) -> None:
        """A disc is in the library again; who waits for it is served."""
        self._returned.append(volume)
        self._work.set()

    # Export

    def named(self, names: Sequence[str]) -> list[Volume]:
        """The discs that sets and barcodes name, each once. Raises NotFound."""
        found: dict[VolumeId, Volume] = {}
        for name in names:
            group = self._catalog.sets.named(name)
            volume = self._catalog.volumes.by_barcode(name)
            if group is None and volume is None:
                raise NotFound(f"no set and no disc {name}", next_step="see 'hsmctl volume list'")
            discs = self._catalog.sets.discs(group.id) if group is not None else []
            for disc in [*discs, *([volume] if volume is not None else [])]:
                found[disc.id] = disc
        return list(found.values())

    async def export(
        self, names: Sequence[str], destination: str | None, *, dry_run: bool = False
    ) -> dict[str, Any]:
        """Order discs out; returns the pick list. Durable when this returns.

        destination: None: where the policies want each.
        Raises NotFound, and Conflict naming the disc that cannot leave now; then none is ordered.
        """
        volumes = self.named(names)
        for volume in volumes:
            self._may_leave(volume)
            _destination(volume, destination)
        numbers = [volume.id for volume in volumes]
        alone = await self._catalog.read(lambda reports: reports.vault.only_there(numbers))
        if not dry_run:
            async with self._catalog.write():
                for volume in volumes:
                    self._may_leave(volume)
                    self._order(volume, _destination(volume, destination))
            crash.point("export.ordered")
            await self._catalog.sync()
            crash.point("export.durable")
            log.info("discs ordered out", count=len(volumes), destination=destination or "vaults")
            self._events.emit(
                "export_ordered", count=len(volumes), destination=destination or "vaults"
            )
            self._told = False
            self._mounts.let_go(numbers)
            self._work.set()
        return {
            "only_there": alone,
            "mail_slots": len(self._elements(ElementKind.IMPORT_EXPORT)),
            "ordered": not dry_run,
            "discs": [self.pick(v, _destination(v, destination)) for v in volumes],
        }

    def _may_leave(self, volume: Volume) -> None:
        barcode = volume.barcode
        if volume.state not in _MAY_LEAVE:
            raise Conflict(
                f"disc {barcode} is {volume.state.name.lower()}: it cannot be exported",
                next_step="take a retired disc out by hand"
                if volume.state is VolumeState.RETIRED
                else "see 'hsmctl volume info'",
            )
        if self._catalog.queues.burn(volume.id) is not None:
            raise Conflict(f"disc {barcode} is being burned", next_step="wait until it is done")
        if self._catalog.sets.rebuild(volume.id) is not None:
            raise Conflict(f"disc {barcode} is being made anew", next_step="wait or cancel that")
        group = self._catalog.sets.of(volume.id)
        if group is not None and group.state is not SetState.CLOSED:
            raise Conflict(
                f"set {group.name} of disc {barcode} is not closed",
                next_step=f"run 'hsmctl volume close {group.name}' and wait for its parity",
            )
        if self._recaller.wants(volume.id):
            raise Conflict(f"files are being read from disc {barcode}", next_step="try again later")

    def _order(self, volume: Volume, destination: str) -> None:
        table = self._catalog.volumes
        table.go_away(volume.id, VolumeState.EXPORTED, "")
        table.set_location(volume.id, destination)
        if self._robot.where(Barcode(volume.barcode)) is not None:
            self._catalog.vault.leave(volume.id, destination, clock.now_ns())

    def pick(self, volume: Volume, destination: str) -> dict[str, Any]:
        """A line of the pick list."""
        group = self._catalog.sets.of(volume.id)
        files, _ = self._catalog.vault.contents(volume.id)
        places = [element.place for element in self._robot.places(Barcode(volume.barcode))]
        return {
            "barcode": volume.barcode,
            "set": group.name if group is not None else None,
            "index": volume.set_index + 1 if volume.set_index is not None else None,
            "of": group.k + group.m if group is not None else None,
            "place": " and ".join(places) or volume.location,
            "problem": str(SameLabel(volume.barcode, places)) if len(places) > 1 else "",
            "destination": destination,
            "uuid": volume.uuid,
            "files": files,
            "used": volume.used,
            "burned_ns": volume.burned_ns,
        }

    def leaving(self) -> list[dict[str, Any]]:
        """What operators are to take out, and from where."""
        found = []
        for row in self._catalog.vault.leaving():
            volume = self._catalog.volumes.get(row.volume)
            if volume is not None:
                found.append(
                    self.pick(volume, row.destination) | {"asked_ns": row.asked_ns,
                                                          "ready": self._ready(volume)}
                )  # fmt: skip
        return found

    def _ready(self, volume: Volume) -> bool:
        """An operator can take it where it lies; from a magazine only in the rack."""
        places = self._robot.places(Barcode(volume.barcode))
        return len(places) == 1 and places[0].kind is self._exit and places[0].unit is None

    @property
    def _exit(self) -> ElementKind:
        """Where discs leave: mail slots, or slots if the library has none."""
        mail = self._elements(ElementKind.IMPORT_EXPORT)
        return ElementKind.IMPORT_EXPORT if mail else ElementKind.STORAGE

    def _elements(self, kind: ElementKind) -> list[Element]:
        return [e for e in self._robot.elements.values() if e.kind is kind]

    async def cancel(self, names: Sequence[str]) -> int:
        """Discs that were ordered out and lie in the library still are to stay; how many."""
        stay = [v for v in self.named(names) if self._catalog.vault.is_leaving(v.id)]
        async with self._catalog.write():
            for volume in stay:
                self._catalog.vault.left(volume.id)
                self._catalog.volumes.come_back(volume.id)
        crash.point("export.cancelled")
        await self._catalog.sync()
        for volume in stay:
            self.came_back(volume.id)
        for volume in stay:
            await self._home(volume)
        return len(stay)

    async def _home(self, volume: Volume) -> None:
        barcode = Barcode(volume.barcode)
        places = self._robot.places(barcode)
        if len(places) == 1 and places[0].kind is ElementKind.IMPORT_EXPORT:
            await self._mounts.robot_care.move(lambda: self._robot.import_(barcode))

    async def _carry(self) -> None:
        """Look what the operator has taken, then move as many discs to mail slots as fit."""
        try:
            await self._mounts.inventory.sync()
            for row in self._catalog.vault.leaving():
                await self._carry_one(row)
        except HsmError as error:
            self._mounts.robot_care.failed(error)
            return
        left = self.leaving()
        ready = [disc for disc in left if disc["ready"]]
        if ready and not self._told:
            self._told = True
            log.info("operator must take discs out", count=len(ready), left=len(left))
            self._events.emit(
                "discs_to_take", count=len(ready), left=len(left) - len(ready),
                first=ready[0]["barcode"], place=ready[0]["place"],
                message="operator must take discs out",
            )  # fmt: skip
        elif not left:
            self._events.emit("export_done")

    async def _carry_one(self, row: Leaving) -> None:
        volume = self._catalog.volumes.get(row.volume)
        assert volume is not None
        barcode = Barcode(volume.barcode)
        places = self._robot.places(barcode)
        if len(places) > 1:
            return  # the inventory has told the operator, and `leaving` does
        if not places:
            async with self._catalog.write():
                self._catalog.vault.left(volume.id)
            crash.point("export.left")
            self._told = False
            return
        (place,) = places
        if place.kind is ElementKind.DRIVE:
            if not await self._mounts.take_out(barcode):
                return
            self._told = False
        if self._exit is not ElementKind.IMPORT_EXPORT:
            await self._mounts.to_rack(barcode)
            return
        slots = self._elements(ElementKind.IMPORT_EXPORT)
        if place.kind is self._exit or all(slot.full for slot in slots):
            return
        # Until its turn came somebody may have filled the slot, taken the disc into a drive, or put
        # in another one with its label.
        with suppress(Conflict, SameLabel):
            await self._mounts.robot_care.move(lambda: self._robot.export(barcode))
            crash.point("export.moved")
            self._told = False

    # Import

    async def bring_in(self, names: Sequence[str] = ()) -> dict[str, Any]:
        """Take discs from mail slots into storage, those named or all that do not wait to leave.

        Those that an operator put straight into slots are `found`. A disc with the label of
        another is refused. Raises NotFound, VolumeMissing if a named disc is in neither, DoorOpen,
        ChangerError.
        """
        away = self._away()
        await self._mounts.look()
        mail = [e for e in self._elements(ElementKind.IMPORT_EXPORT) if e.full]
        if any(e.barcode is None for e in mail):
            await self._mounts.look(rescan=True)
            mail = [e for e in self._elements(ElementKind.IMPORT_EXPORT) if e.barcode is not None]
        named = {volume.barcode for volume in self.named(names)} if names else None
        moved: list[str] = []
        refused: dict[str, list[str]] = {}
        for element in mail:
            assert element.barcode is not None
            volume = self._catalog.volumes.by_barcode(element.barcode)
            wanted = element.barcode in named if named is not None else True
            if volume is None or not wanted:
                continue
            if named is None and self._catalog.vault.is_leaving(volume.id):
                continue
            barcode = element.barcode
            try:
                await self._mounts.robot_care.move(
                    lambda barcode=barcode: self._robot.import_(barcode)  # type: ignore[misc]
                )
            except SameLabel:
                refused[barcode] = [e.place for e in self._robot.places(barcode)]
                continue
            crash.point("export.import.moved")
            await self._settle(volume.id)
            moved.append(barcode)
        missing = [b for b in sorted(named or ()) if self._robot.where(Barcode(b)) is None]
        if missing:
            raise VolumeMissing(
                f"disc {missing[0]} is not in the library",
                next_step="put it into a mail slot or a free slot, then import again",
            )
        for barcode in sorted((named or set()) - {*moved, *refused}):
            volume = self._catalog.volumes.by_barcode(barcode)
            if volume is not None and not self._catalog.vault.is_leaving(volume.id):
                await self._settle(volume.id)
        await self._catalog.sync()
        self._events.emit("discs_imported", count=len(moved))
        return {
            "imported": moved,
            "found": sorted(away - self._away() - {*moved}),
            "named": sorted(named or ()),
            "refused": refused,
        }

    def _away(self) -> set[str]:
        """Discs that are not in the library, or are about to leave it."""
        states = (VolumeState.EXPORTED, VolumeState.LOST)
        return {volume.barcode for s in states for volume in self._catalog.volumes.all(s)}

    async def _settle(self, number: VolumeId) -> None:
        """The disc lies in the library: it is what it was before it left."""
        async with self._catalog.write():
            self._catalog.vault.left(number)
            volume = self._catalog.volumes.get(number)
            if volume is not None and volume.state in (VolumeState.EXPORTED, VolumeState.LOST):
                self._catalog.volumes.come_back(number)
        crash.point("export.import.committed")
        self.came_back(number)

    # Requests

    def requests(self) -> list[dict[str, Any]]:
        """What operators are asked for: discs to bring, and who waits; discs to take to a vault."""
        return self._to_bring() + [self._to_take(offer) for offer in self._catalog.vault.offers()]

    def _to_take(self, offer: Offer) -> dict[str, Any]:
        found = [self._catalog.volumes.get(volume) for volume in offer.discs]
        return {
            "kind": "take out",
            "name": offer.name,
            "discs": [volume.barcode for volume in found if volume is not None],
            "place": "library",
            "destination": offer.vault,
            "asked_ns": offer.since_ns,
            "who": "policy",
            "files": sum(self._catalog.vault.contents(volume)[0] for volume in offer.discs),
            "readers": [],
        }

    def _to_bring(self) -> list[dict[str, Any]]:
        found = []
        for row in self._catalog.vault.wanted():
            volume = self._catalog.volumes.get(row.volume)
            if volume is None:
                continue
            jobs = self._recaller.shelved(row.volume)
            found.append(
                {
                    "kind": "bring",
                    "name": volume.barcode,
                    "discs": [volume.barcode],
                    "place": volume.location,
                    "destination": "library",
                    "asked_ns": row.asked_ns,
                    "who": row.who,
                    "files": len(jobs),
                    "readers": [str(w.who) for job in jobs for w in job.waiters],
                }
            )
        return found

    async def done(self, barcode: str) -> dict[str, Any]:
        """The operator has put the disc into the library.

        Raises as `bring_in`, NotFound, Conflict if it is a request to take discs out.
        """
        if self._offer(barcode) is not None:
            raise Conflict(
                f"{barcode} is to be taken out",
                next_step=f"run 'hsmctl volume export {barcode}', then take out what it lists",
            )
        self._wanted(barcode)
        found = await self.bring_in([barcode])
        if barcode in found["refused"]:
            raise SameLabel(barcode, found["refused"][barcode])
        return found

    async def refuse(self, barcode: str, reason: str) -> int:
        """The operator will not bring it: its readers are told; how many recalls end.

        Discs that were to be taken out stay in the library for good.
        Raises NotFound if nobody asked for the disc.
        """
        offer = self._offer(barcode)
        if offer is not None:
            async with self._catalog.write():
                self._catalog.vault.keep_here(offer)
            await self._catalog.sync()
            log.info("discs stay in the library", discs=offer.name, reason=reason)
            self._events.emit("export_refused", name=offer.name, reason=reason)
            return 0
        volume = self._wanted(barcode)
        ended = await self._recaller.refuse(volume.id, reason)
        self._events.emit("request_refused", barcode=barcode, reason=reason, recalls=ended)
        return ended

    def _offer(self, name: str) -> Offer | None:
        return next((o for o in self._catalog.vault.offers() if o.name == name), None)

    def _wanted(self, barcode: str) -> Volume:
        volume = self._catalog.volumes.by_barcode(barcode)
        if volume is None or all(row.volume != volume.id for row in self._catalog.vault.wanted()):
            raise NotFound(f"no request for disc {barcode}", next_step="see 'hsmctl request ls'")
        return volume


def _destination(volume: Volume, destination: str | None) -> str:
    """Where a disc is to go. Raises Conflict if nobody said."""
    if destination or volume.vault:
        return destination or volume.vault
    raise Conflict(
        f"no policy says where disc {volume.barcode} is to be kept", next_step="say it with --to"
    )
