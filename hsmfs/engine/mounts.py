"""Discs in drives: who gets which, the exchanges it takes, and the check that it is the right disc.

One decision (schedule.py) is made anew whenever something changed; each drive is worked in tasks
of its own, so a stuck one stalls nobody else. The robot's troubles hold up only claims that need
it. Relies on library.robot for moves and on the ledger for blame.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import trio

from .. import crash, logs
from ..catalog.catalog import Catalog
from ..catalog.queues import RecallClass
from ..catalog.volumes import Volume
from ..config import Config
from ..errors import (
    ChangerError,
    Conflict,
    DoorOpen,
    DriveError,
    HsmError,
    MediaError,
    NotFound,
    VolumeMissing,
)
from ..library.ports import Library
from ..library.robot import Robot
from ..states import DriveState, VolumeState
from ..types import VolumeId
from . import schedule
from .bay import Bay, Claim, DriveStuck
from .events import Events
from .identify import check_medium
from .inventory import Inventory
from .ledger import Ledger
from .robot_care import RobotCare
from .schedule import Purpose
from .session import Session

log = logs.get(__name__)

_ADMITTED = {
    Purpose.READ: (VolumeState.FULL, VolumeState.SUSPECT, VolumeState.BURNING),
    Purpose.BURN: (VolumeState.BLANK, VolumeState.BURNING),
}


class Mounts:
    """The drives and those who wait for them.

    Attributes:
        inventory: brings the catalog up to what the robot says.
        ledger: blame and counters.
        robot_care: moves and what to do when the robot is in trouble.
        load_limit, read_limit: seconds after which a drive counts as stuck.
    """

    def __init__(
        self, catalog: Catalog, library: Library, robot: Robot, events: Events, config: Config
    ) -> None:
        self._catalog, self._library, self._robot = catalog, library, robot
        self._events = events
        engine, timing = config.engine, config.library
        self._rules = schedule.Rules(config.recall_drives, engine.age_limit)
        self._run_cap = engine.run_cap
        self._retries, self._retry_wait = engine.recall_retries, engine.recall_retry_wait
        self.inventory = Inventory(catalog, library, robot, events)
        self.ledger = Ledger(catalog, events)
        self.ledger.take_down = self._take_down
        self.robot_care = RobotCare(
            self.inventory, events, retry_wait=self._retry_wait,
            move_limit=max(600.0, 10 * timing.exchange), poke=self._poke,
        )  # fmt: skip
        self.load_limit = max(300.0, 10 * timing.load)
        self.read_limit = 300.0
        self._bays = {drive.serial: Bay(drive) for drive in library.drives}
        self._claims: dict[int, Claim] = {}
        self._numbers = count(1)
        self._changed = trio.Event()
        self._nursery: trio.Nursery | None = None

    # For users of discs

    @asynccontextmanager
    async def use(
        self,
        volume: VolumeId,
        purpose: Purpose,
        *,
        urgency: RecallClass = RecallClass.STANDARD,
        bytes: int = 0,
        who: str = "",
    ) -> AsyncIterator[Session]:
        """The disc in a drive for as long as the block runs; its label was checked.

        Raises VolumeMissing (not in the library), MediaError (damaged; for a burn: not blank),
        WrongVolume or ForeignDisc, DriveError if no drive can take it, ChangerError.
        """
        claim = self._claim(volume, purpose, urgency, bytes, who)
        try:
            await claim.ready.wait()
            if claim.error is not None:
                raise claim.error
            assert claim.session is not None
            yield claim.session
            if claim.session.worked and not claim.session.broken:
                await self.ledger.went_well(claim.session.drive, claim.session.volume)
        finally:
            self._claims.pop(claim.id, None)
            claim.done.set()
            self._poke()

    def press(self, volume: VolumeId, urgency: RecallClass, bytes: int) -> None:
        """What is wanted of a disc grew or shrank: take it into account for its read claims."""
        for claim in self._claims.values():
            if claim.volume == volume and claim.purpose is Purpose.READ:
                if claim.session is not None:
                    claim.session.urgency = urgency
                changed = claim.urgency != urgency
                claim.urgency, claim.bytes = urgency, bytes
                if changed:
                    self._poke()

    def drive_with(self, volume: VolumeId) -> str | None:
        """The name of the drive that the disc is in."""
        found = self._catalog.volumes.get(volume)
        for bay in self._bays.values():
            if found is not None and self._robot.in_drive(bay.drive) == found.barcode:
                return bay.drive.name
        return None

    @property
    def drives_up(self) -> int:
        """Drives that may be used."""
        return sum(bay.up for bay in self._bays.values())

    def place(self, volume: VolumeId) -> tuple[int, bool]:
        """How many claims go before the disc's own, and whether it is being worked on."""
        mine = next((c for c in self._claims.values() if c.volume == volume), None)
        if mine is None or not mine.waiting:
            return 0, mine is not None
        key = (mine.urgency, mine.since)
        ahead = [c for c in self._claims.values() if (c.urgency, c.since) < key]
        return len(ahead), False

    def _claim(
        self, volume: VolumeId, purpose: Purpose, urgency: RecallClass, size: int, who: str
    ) -> Claim:
        found = self._admit(volume, purpose)
        claim = Claim(
            next(self._numbers), volume, found.barcode, purpose, urgency, size, who,
            trio.current_time(),
        )  # fmt: skip
        self._claims[claim.id] = claim
        self._poke()
        return claim

    def _admit(self, volume: VolumeId, purpose: Purpose) -> Volume:
        """The disc, if it can be had for that purpose at all."""
        found = self._catalog.volumes.get(volume)
        if found is None:
            raise NotFound(f"volume {volume} is not in the catalog")
        if found.state is VolumeState.EXPORTED:
            raise VolumeMissing(
                f"disc {found.barcode} was exported to {found.location}",
                next_step="bring it back and run 'hsmctl library inventory'",
            )
        if found.state is VolumeState.LOST:
            raise VolumeMissing(f"disc {found.barcode} is lost: {found.reason}")
        if found.state not in _ADMITTED[purpose]:
            raise MediaError(
                f"disc {found.barcode} is {found.state.name.lower()}"
                + (f": {found.reason}" if found.reason else "")
            )
        for bay in self._bays.values():
            if bay.holds_fast == volume:
                raise DriveError(
                    f"disc {found.barcode} is held fast by drive {bay.drive.name}: {bay.reason}",
                    next_step="free the disc, then 'hsmctl drive up'",
                )
        return found

    # For admins

    async def drive_up(self, serial: str) -> None:
        """Use the drive again; its past is forgotten. Raises NotFound."""
        bay = self._bay(serial)
        async with self._catalog.write():
            self._catalog.volumes.set_drive(serial, DriveState.UP, "")
        bay.up, bay.reason, bay.holds_fast, bay.checked = True, "", None, None
        self.ledger.forgive(serial)
        log.info("drive up", drive=bay.drive.name)
        self._events.emit("drive_up", drive=bay.drive.name)
        self._poke()

    async def drive_down(self, serial: str, reason: str) -> None:
        """Take the drive out; its session ends at its next good moment. Raises NotFound."""
        bay = self._bay(serial)
        async with self._catalog.write():
            self._catalog.volumes.set_drive(serial, DriveState.DOWN, reason)
        if bay.up:
            log.warning("drive down", drive=bay.drive.name, reason=reason)
            self._events.emit("drive_down", drive=bay.drive.name, reason=reason)
        bay.up, bay.reason = False, reason
        self._poke()

    def status(self) -> dict[str, Any]:
        """Drives, claims and the robot, as plain values."""
        now = trio.current_time()
        drives = [
            {
                "name": bay.drive.name,
                "serial": bay.drive.serial,
                "up": bay.up,
                "reason": bay.reason,
                "volume": self._robot.in_drive(bay.drive),
                "busy": bay.busy,
                "stuck": bay.calls > 0 and not bay.up,
                "doing": bay.claim.purpose.value if bay.claim else None,
                "for": bay.claim.who if bay.claim else None,
            }
            for bay in self._bays.values()
        ]
        claims = [
            {
                "volume": claim.barcode,
                "purpose": claim.purpose.value,
                "class": claim.urgency.name.lower(),
                "who": claim.who,
                "seconds": now - claim.since,
                "bytes": claim.bytes,
                "drive": claim.bay.drive.name if claim.bay else None,
                "mounted": claim.session is not None,
            }
            for claim in self._claims.values()
        ]
        return {"drives": drives, "claims": claims, "robot": self.robot_care.trouble or "ready"}

    def _bay(self, serial: str) -> Bay:
        for bay in self._bays.values():
            if serial in (bay.drive.serial, bay.drive.name):
                return bay
        raise NotFound(f"the library has no drive {serial}")

    # The decision

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve claims for ever. Discs stay in their drives when this is cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await self.robot_care.begin(nursery)
                self._take_states()
                task_status.started()
                while True:
                    changed = self._changed
                    self._decide(nursery)
                    await changed.wait()
        finally:
            self._nursery = self.robot_care.nursery = None
            for bay in self._bays.values():
                bay.claim, bay.emptying = None, False
            for claim in list(self._claims.values()):
                claim.fail(Conflict("the library is being stopped"))

    def _take_states(self) -> None:
        for record in self._catalog.volumes.drives():
            bay = self._bays.get(record.serial)
            if bay is not None:
                bay.up, bay.reason = record.state is DriveState.UP, record.reason

    def _poke(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _decide(self, nursery: trio.Nursery) -> None:
        now = trio.current_time()
        waiting = [claim for claim in self._claims.values() if claim.waiting]
        for claim in waiting:
            self._perhaps_again(claim, now)
        drives = [self._view(bay) for bay in self._bays.values()]
        claims = [self._claim_view(claim) for claim in waiting]
        for action in schedule.decide(
            now, drives, claims, self._rules, robot_works=not self.robot_care.trouble
        ):
            bay = self._bays[action.drive]
            if isinstance(action, schedule.PutAway):
                bay.emptying = True
                nursery.start_soon(self._empty, bay)
            else:
                claim = self._claims[action.claim]
                claim.bay, bay.claim = bay, claim
                nursery.start_soon(self._serve, bay, claim)

    def _perhaps_again(self, claim: Claim, now: float) -> None:
        """If it failed in all drives that are up, it may try them once more after a pause."""
        up = [bay.drive.serial for bay in self._bays.values() if bay.up]
        if up and not claim.again and not any(
            self.ledger.may_pair(serial, claim.barcode) for serial in up
        ):
            claim.again, claim.not_before = True, now + self._retry_wait
            self._poke_after(self._retry_wait)

    def _poke_after(self, seconds: float) -> None:
        async def later() -> None:
            await trio.sleep(seconds)
            self._poke()

        assert self._nursery is not None
        self._nursery.start_soon(later)

    def _view(self, bay: Bay) -> schedule.DriveView:
        barcode = self._robot.in_drive(bay.drive)
        element = self._robot.elements.get(bay.drive.address)
        found = self._catalog.volumes.by_barcode(barcode) if barcode else None
        return schedule.DriveView(
            bay.drive.serial,
            up=bay.up,
            volume=found.id if found else None,
            holds_disc=element is not None and element.full,
            busy=bay.busy or bay.holds_fast is not None,
            burning=bay.claim is not None and bay.claim.purpose is Purpose.BURN,
        )

    def _claim_view(self, claim: Claim) -> schedule.ClaimView:
        avoid: frozenset[str] = frozenset()
        if not claim.again:
            avoid = frozenset(
                serial
                for serial in self._bays
                if not self.ledger.may_pair(serial, claim.barcode)
            )
        return schedule.ClaimView(
            claim.id, claim.volume, claim.purpose, claim.urgency, claim.since, claim.bytes,
            avoid, claim.not_before,
        )  # fmt: skip

    def _wanted(self, session: Session) -> bool:
        bay = self._bays[session.drive.serial]
        if not bay.up:
            return True
        if self.robot_care.trouble:
            return False
        waiting = [self._claim_view(c) for c in self._claims.values() if c.waiting]
        return schedule.must_yield(
            trio.current_time(), session.started, session.urgency, waiting,
            drive=session.drive.serial, run_cap=self._run_cap,
        )  # fmt: skip

    # One drive's work

    async def _serve(self, bay: Bay, claim: Claim) -> None:
        """Bring the claim's disc into the drive and keep the drive for it until it is done."""
        try:
            claim.session = await self._prepare(bay, claim)
            if claim.id in self._claims:
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
            bay.claim = None
            if claim.session is None:
                claim.bay = None
            self._poke()

    async def _prepare(self, bay: Bay, claim: Claim) -> Session:
        drive = bay.drive
        volume = self._catalog.volumes.get(claim.volume)
        assert volume is not None
        try:
            if self._robot.in_drive(drive) != claim.barcode:
                bay.checked = None
                await self._call(bay, self.load_limit, "to eject", drive.eject)
                await self.robot_care.move(lambda: self._robot.fetch(claim.barcode, drive))
                crash.point("mounts.fetched")
            fresh = drive.loaded is None
            medium = await self._call(bay, self.load_limit, "to load", drive.load)
        except DriveStuck:
            raise
        except DriveError as error:
            await self.ledger.failed(drive, volume, error)
            raise
        if fresh:
            await self.ledger.loaded(drive, volume)
            crash.point("mounts.loaded")
        session = Session(
            drive, volume, medium, claim.urgency, ledger=self.ledger,
            within=lambda f: self._call(bay, self.read_limit, "to read", f), wanted=self._wanted,
        )  # fmt: skip
        if fresh or bay.checked != claim.volume or claim.purpose is Purpose.BURN:
            await check_medium(session, claim.purpose, self._catalog, self.ledger)
            bay.checked = claim.volume
        return session

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

    async def _empty(self, bay: Bay) -> None:
        """Take the disc out of a drive that may not use it."""
        try:
            bay.checked = None
            await self._call(bay, self.load_limit, "to eject", bay.drive.eject)
            await self.robot_care.move(lambda: self._robot.put_away(bay.drive))
        except DriveError as error:
            await self.drive_down(bay.drive.serial, error.message)
            self._hold_fast(bay, error)
        except HsmError as error:
            self.robot_care.failed(error)
        finally:
            bay.emptying = False
            self._poke()

    # Troubles

    def _hold_fast(self, bay: Bay, error: DriveError) -> None:
        """The drive does not give its disc back: whoever waits for that disc is told."""
        barcode = self._robot.in_drive(bay.drive)
        found = self._catalog.volumes.by_barcode(barcode) if barcode else None
        bay.holds_fast = found.id if found else VolumeId(0)
        for claim in list(self._claims.values()):
            if claim.volume == bay.holds_fast and claim.bay in (None, bay):
                claim.fail(error)

    def _drive_failed(self, claim: Claim, error: DriveError) -> None:
        """Another drive is tried, until the claim has failed too often."""
        claim.failures += 1
        claim.again = False
        if claim.failures > self._retries:
            claim.fail(error)

    async def _missing(self, claim: Claim, error: VolumeMissing) -> None:
        """Look at the library again: the disc was moved by hand, or is lost."""
        self._events.emit("volume_missing", volume=claim.barcode, error=error.message)
        claim.failures += 1
        try:
            await self.inventory.sync()
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
