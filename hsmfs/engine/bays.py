"""The drives at work: exchanges, spin-up, label checks, and what follows when one fails.

Each drive is worked in tasks of its own with a deadline on every call, so a stuck one stalls
nobody else. Who gets a drive is decided in mounts.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Container
from functools import partial
from typing import Any

import trio

from .. import crash, logs
from ..catalog.catalog import Catalog
from ..config import Config
from ..errors import ChangerError, Conflict, DoorOpen, DriveError, HsmError, NotFound, VolumeMissing
from ..library.journal import Difference
from ..library.labels import labelled
from ..library.ports import Library
from ..library.robot import Robot
from ..states import DriveState
from ..types import Barcode, ElementAddress, VolumeId
from . import schedule
from .bay import Bay, Claim, Claims, DriveStuck
from .events import Events
from .identify import check_medium, check_place, refuse_blank
from .inventory import Inventory
from .ledger import Ledger
from .pace import Pace
from .robot_care import RobotCare
from .schedule import Purpose
from .session import Session
from .units import Units

log = logs.get(__name__)
EJECTS = 3
EJECT_WAIT = 5.0
"""Times that a drive is asked for its disc, and seconds between: one that is busy still refuses."""


class Bays:
    """Drives, the claims that they serve, and their troubles.

    Attributes:
        inventory: brings the catalog up to what the robot says.
        ledger: blame and counters.
        units: where drives share magazines, which.
        pace: how fast robot and drives are.
        robot_care: moves and what to do when the robot is in trouble.
        arms: of the robot; so many moves go on at once.
        load_limit, read_limit: seconds after which a drive counts as stuck.
    """

    def __init__(
        self, catalog: Catalog, library: Library, robot: Robot, events: Events, config: Config
    ) -> None:
        self._catalog, self._library, self._robot = catalog, library, robot
        self._events = events
        engine, timing = config.engine, config.library
        self._retries, self._retry_wait = engine.recall_retries, engine.recall_retry_wait
        self.inventory = Inventory(catalog, library, robot, events)
        self.ledger = Ledger(catalog, events)
        self.ledger.take_down = self._take_down
        self.robot_care = RobotCare(
            self.inventory, events, retry_wait=self._retry_wait,
            move_limit=max(600.0, 10 * timing.exchange), poke=self._poke, arms=timing.arms,
        )  # fmt: skip
        self.arms = timing.arms
        self.load_limit = max(300.0, 10 * timing.load)
        self.read_limit = 300.0
        self.pace = Pace(timing, catalog.health.speeds())
        self._bays = {drive.serial: Bay(drive) for drive in library.drives}
        self.units = Units(catalog, robot, self._bays)
        self._claims = Claims()
        self._board = schedule.Board(schedule.rules(config))
        self._changed = trio.Event()
        self._nursery: trio.Nursery | None = None

    # For admins

    async def drive_up(self, serial: str) -> None:
        """Use the drive again; its past is forgotten. Raises NotFound."""
        bay = self._bay(serial)
        async with self._catalog.write():
            self._catalog.volumes.set_drive(bay.drive.serial, DriveState.UP, "")
            self.ledger.forgive(bay.drive.serial)
        bay.up, bay.reason, bay.holds_fast, bay.checked = True, "", None, None
        log.info("drive up", drive=bay.drive.name)
        self._events.emit("drive_up", drive=bay.drive.name)
        self._poke()

    async def drive_down(self, serial: str, reason: str) -> None:
        """Take the drive out; its session ends at its next good moment. Raises NotFound."""
        bay = self._bay(serial)
        async with self._catalog.write():
            self._catalog.volumes.set_drive(bay.drive.serial, DriveState.DOWN, reason)
        if bay.up:
            log.warning("drive down", drive=bay.drive.name, reason=reason)
            self._events.emit("drive_down", drive=bay.drive.name, reason=reason)
        bay.up, bay.reason = False, reason
        self._poke()

    async def move(self, barcode: Barcode, dst: ElementAddress) -> None:
        """Move a disc that is in no drive, as an operator asks. Raises as `Robot.move`."""
        await self.robot_care.move(lambda: self._robot.move(barcode, dst))

    async def look(self, *, rescan: bool = False) -> list[Difference]:
        """Take over what the robot says. rescan: it reads every label again; if that takes a drive
        and none is empty, an idle one is emptied. Raises as `Inventory.sync`.
        """
        found = await self.inventory.sync(rescan=rescan)
        held = {e.address: e.barcode for e in self._robot.elements.values() if e.full}
        if rescan and None in held.values() and self._all_hold(held):
            idle = (held[bay.drive.address] for bay in self._bays.values() if not bay.busy)
            if (barcode := next(filter(None, idle), None)) is not None:
                await self.take_out(barcode)
                found += await self.inventory.sync(rescan=True)
        return found

    def _all_hold(self, held: Container[ElementAddress]) -> bool:
        return all(bay.drive.address in held for bay in self._bays.values())

    async def take_out(self, barcode: Barcode) -> bool:
        """Put the disc away if it lies in an idle drive; True if it lies in no drive after that."""
        for bay in self._bays.values():
            if self._robot.in_drive(bay.drive) == barcode:
                if bay.busy:
                    return False
                bay.emptying, bay.moving = True, not self._robot.whole
                await self._empty(bay)
                return self._robot.in_drive(bay.drive) != barcode
        return True

    async def to_rack(self, barcode: Barcode) -> None:
        """Take the disc's magazine out of the unit that it is in, if nobody uses that."""
        bay = self.units.with_magazine(barcode)
        if bay is not None and not any(map(self.units.in_use, self.units.mates(bay))):
            self._mark_emptied(bay)
            await self._empty_unit(bay)

    def let_go(self, volumes: Collection[VolumeId]) -> None:
        """Discs are to leave: who reads them ends at the next good moment, who waits is told."""
        for bay in self._bays.values():
            if bay.claim is not None and bay.claim.volume in volumes:
                bay.yielding = True
        for volume in volumes:
            for claim in self._claims.of(volume):
                if claim.bay is None:
                    claim.fail(VolumeMissing(f"disc {claim.barcode} leaves the library"))

    def drive_with(self, volume: VolumeId) -> str | None:
        """The name of the drive that the disc is in."""
        found = self._catalog.volumes.get(volume)
        for bay in self._bays.values():
            if found is not None and self._robot.in_drive(bay.drive) == found.barcode:
                return bay.drive.name
        return None

    def in_drives(self) -> set[VolumeId]:
        """The discs that are in drives."""
        barcodes = (self._robot.in_drive(bay.drive) for bay in self._bays.values())
        found = (self._catalog.volumes.number(code) for code in barcodes if code)
        return {volume for volume in found if volume is not None}

    def within_reach(self, volume: VolumeId) -> bool:
        """The robot need not move for the disc."""
        found = self._catalog.volumes.get(volume)
        if found is not None and self.units.with_magazine(Barcode(found.barcode)) is not None:
            return True
        return self.drive_with(volume) is not None

    @property
    def drives_up(self) -> int:
        """Drives that may be used."""
        return sum(bay.up for bay in self._bays.values())

    def _bay(self, serial: str) -> Bay:
        for bay in self._bays.values():
            if serial in (bay.drive.serial, bay.drive.name):
                return bay
        raise NotFound(f"the library has no drive {serial}")

    def _wait(self, claim: Claim) -> None:
        """Show the claim to the rules if it waits for a drive; what is known of it may be new."""
        if claim in self._claims and claim.waiting:
            view = schedule.ClaimView(
                claim.id, claim.volume, claim.purpose, claim.urgency, claim.since, claim.bytes,
                claim.count, claim.last, claim.not_before, self.units.carrier(claim.barcode),
            )  # fmt: skip
            if self._board.put(view, trio.current_time()):
                self._poke()
        else:
            self._board.drop(claim.id)

    def _moved(self, bay: Bay, claim: Claim) -> None:
        """The robot is done with the drive and its unit."""
        bay.moving = False
        for mate in self._bays.values():
            if mate.changing is claim:
                mate.changing = None
        self._poke()

    def _poke(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _wanted(self, session: Session) -> bool:
        bay = self._bays[session.drive.serial]
        return bay.yielding or not bay.up

    # Serving a claim

    async def _serve(self, bay: Bay, claim: Claim) -> None:
        """Bring the claim's disc into the drive and keep the drive for it until it is done."""
        try:
            claim.session = await self._prepare(bay, claim)
            if claim in self._claims:
                claim.ready.set()
                await claim.done.wait()
        except DriveError as error:
            self._drive_failed(claim, error)
        except VolumeMissing as error:
            await self._missing(claim, error)
        except (ChangerError, Conflict) as error:
            self._refused(claim, error)
        except HsmError as error:
            claim.fail(error)
        except Exception as error:
            log.exception("serving a claim failed", error, volume=claim.barcode)
            claim.fail(HsmError(f"disc {claim.barcode}: {error!r}"))
        finally:
            if bay.claim is claim and (claim.session is None or claim.done.is_set()):
                bay.free()
            self._moved(bay, claim)
            if claim.session is None:
                claim.bay = None
                self._wait(claim)
                self._poke()

    async def _prepare(self, bay: Bay, claim: Claim) -> Session:
        drive = bay.drive
        await self._catalog.settled()
        volume = self._catalog.volumes.get(claim.volume)
        assert volume is not None
        burn = claim.purpose is Purpose.BURN
        fetch = self._robot.in_drive(drive) != claim.barcode
        if fetch:
            bay.checked = None
            began = bay.begin("fetch")
            await self._eject(bay)
        try:
            if fetch:
                alone = self.units.name(bay) and not bay.moves
                move = self.robot_care.move_in_unit if alone else self.robot_care.move
                await move(lambda: self._robot.fetch(claim.barcode, drive, look=burn))
                if bay.moves:
                    self.pace.moved(trio.current_time() - began, bay.moves)
                self._moved(bay, claim)
                crash.point("mounts.fetched")
            fresh = drive.loaded is None
            began = bay.begin("load")
            medium = await self._call(bay, self.load_limit, "to load", drive.load)
        except DriveStuck:
            raise
        except DriveError as error:
            await self.ledger.failed(drive, volume, error)
            raise
        if fresh:
            await self.ledger.loaded(drive, volume)
            crash.point("mounts.loaded")
        if burn:
            if not fetch:
                await self._robot.inventory()
            self._see_label(bay, claim)
        session = Session(
            drive, volume, medium, claim.urgency, ledger=self.ledger,
            within=lambda f: self._call(bay, self.read_limit, "to read", f), wanted=self._wanted,
        )  # fmt: skip
        if claim.unknown:
            refuse_blank(session)
            bay.checked = None
        elif fresh or bay.checked != claim.volume or burn:
            if (changer := labelled(self._library)) is not None:
                await check_place(session, partial(changer.mistaken, drive.address))
            await check_medium(
                session, claim.purpose, self._catalog, self.ledger, size=claim.bytes,
                another=self._another(bay, claim),
            )  # fmt: skip
            bay.checked = claim.volume
            if fresh:
                self.pace.loaded(drive.serial, trio.current_time() - began)
        bay.begin("read")
        return session

    def _another(self, bay: Bay, claim: Claim) -> bool:
        """Whether another drive may be asked about the disc."""
        return any(
            other is not bay and other.up
            and self.ledger.may_pair(other.drive.serial, claim.barcode)
            for other in self._bays.values()
        )

    def _see_label(self, bay: Bay, claim: Claim) -> None:
        """See by what the robot told of it since, which disc lies in the drive: a blank one does
        not say so itself, and people put discs back into each other's slots. Raises VolumeMissing
        if it is another one.
        """
        found = self._robot.in_drive(bay.drive)
        if found != claim.barcode:
            raise VolumeMissing(
                f"drive {bay.drive.name} got disc {found or 'without a label'}, not {claim.barcode}"
            )

    async def _call(
        self, bay: Bay, limit: float, what: str, f: Callable[[], Awaitable[Any]]
    ) -> Any:
        """A call into a drive with a deadline; a drive that misses it is taken down."""
        if self._nursery is None:
            raise Conflict("the library is being stopped")
        try:
            return await bay.call(self._nursery, limit, what, f, self._poke)
        except DriveStuck as error:
            await self.drive_down(bay.drive.serial, error.message)
            self._hold_fast(bay, error)
            raise

    async def _eject(self, bay: Bay) -> None:
        """Have the drive give up what is in it; one that refuses time and again is taken down."""
        for left in reversed(range(EJECTS)):
            try:
                await self._call(bay, self.load_limit, "to eject", bay.drive.eject)
                return
            except DriveStuck:
                raise
            except DriveError as error:
                if not left:
                    await self.drive_down(bay.drive.serial, error.message)
                    self._hold_fast(bay, error)
                    raise
                log.warning("does not eject", drive=bay.drive.name, error=error.message, left=left)
                await trio.sleep(EJECT_WAIT)

    async def _empty(self, bay: Bay) -> None:
        """Take the disc out of a drive that may not use it."""
        try:
            bay.checked = None
            bay.begin("empty")
            await self._eject(bay)
            move = self.robot_care.move_in_unit if self._robot.whole else self.robot_care.move
            await move(lambda: self._robot.put_away(bay.drive))
        except DriveError:
            pass  # it was taken down, and whoever wants its disc was told
        except HsmError as error:
            self.robot_care.failed(error)
        finally:
            bay.emptying = bay.moving = False
            self._poke()

    def _mark_emptied(self, bay: Bay) -> None:
        """Nobody else gets a drive of its unit."""
        for mate in self.units.mates(bay):
            mate.emptying = True
        bay.moving = True

    async def _empty_unit(self, bay: Bay) -> None:
        """Put all discs of the drive's unit back into their magazine, and that into the rack."""
        mates = self.units.mates(bay)
        try:
            for mate in mates:
                mate.begin("empty")
                mate.checked = None
            for mate in mates:
                if self.units.holds(mate):
                    await self._eject(mate)
            drives = [mate.drive for mate in mates]
            await self.robot_care.move(lambda: self._robot.empty(drives))
        except DriveError:
            pass  # it was taken down; the magazine stays with the disc that it holds
        except HsmError as error:
            self.robot_care.failed(error)
        finally:
            for mate in mates:
                mate.emptying = False
            bay.moving = False
            self._poke()

    # Troubles

    def _hold_fast(self, bay: Bay, error: DriveError) -> None:
        """The drive does not give its disc back: whoever waits for that disc is told."""
        barcode = self._robot.in_drive(bay.drive)
        found = self._catalog.volumes.by_barcode(barcode) if barcode else None
        bay.holds_fast = found.id if found else VolumeId(0)
        for claim in self._claims.of(bay.holds_fast):
            if claim.bay in (None, bay):
                claim.fail(error)
        if barcode is not None and (magazine := self.units.magazine(bay)) is not None:
            log.warning(
                "magazine held fast", magazine=magazine, drive=bay.drive.name, disc=barcode
            )
            self._events.emit(
                "magazine_held_fast", magazine=magazine, drive=bay.drive.name, disc=barcode
            )

    def _fail_unreachable(self) -> None:
        """A magazine that can't leave its unit serves those alone whom a drive there will do."""
        for bay in self.units.held_fast():
            magazine, mates = self.units.magazine(bay), self.units.mates(bay)
            for claim in list(self._claims):
                if not claim.waiting or self._robot.magazine_of(claim.barcode) != magazine:
                    continue
                if not any(mate.up and self._may_try(mate.drive.serial, claim) for mate in mates):
                    claim.fail(
                        DriveError(
                            f"magazine {magazine} of disc {claim.barcode} is held fast by drive"
                            f" {bay.drive.name}: {bay.reason}",
                            next_step="free the disc, then 'hsmctl drive up'",
                        )
                    )

    def _may_try(self, serial: str, claim: Claim) -> bool:
        """Whether the drive may have the disc; once more, if it failed in all of them."""
        return claim.again or self.ledger.may_pair(serial, claim.barcode)

    def _drive_failed(self, claim: Claim, error: DriveError) -> None:
        """Another drive is tried, until the claim has failed too often."""
        claim.failures += 1
        claim.again = False
        if claim.failures > self._retries:
            claim.fail(error)

    async def _missing(self, claim: Claim, error: VolumeMissing) -> None:
        """Look at the library again: the disc was moved by hand, or is lost.

        Where no barcodes are read it may be one of those that nobody knows since somebody changed
        places: each is loaded once, which is slow, but the only way to find it.
        """
        self._events.emit("volume_missing", volume=claim.barcode, error=error.message)
        claim.failures += 1
        try:
            await self.inventory.sync()
            strangers = any(e.full and e.barcode is None for e in self._robot.elements.values())
            if labelled(self._library) and strangers and self._robot.where(claim.barcode) is None:
                await self.look(rescan=True)
        except HsmError as fault:
            self.robot_care.failed(fault)
        if self._robot.where(claim.barcode) is None or claim.failures > self._retries:
            claim.fail(error)

    def _refused(self, claim: Claim, error: HsmError) -> None:
        """The robot is tried again later; a closed door is not the claim's fault."""
        if not isinstance(error, DoorOpen):
            claim.failures += 1
        if claim.failures > self._retries:
            claim.fail(error)
        self.robot_care.failed(error)

    def _take_down(self, serial: str, reason: str) -> None:
        bay = self._bays[serial]
        if bay.up and self._nursery is not None:
            bay.up = False
            bay.reason = reason
            log.warning("drive down", drive=bay.drive.name, reason=reason)
            self._events.emit("drive_down", drive=bay.drive.name, reason=reason)
            self._nursery.start_soon(self.drive_down, serial, reason)
