"""Discs in drives: who gets which, for how long.

One decision (schedule.py) is made anew whenever something changed, and never by polling. The
robot's troubles hold up only claims that need it. The work itself is in bays.py.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Container, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import trio

from .. import clock, logs
from ..catalog.catalog import Catalog
from ..catalog.queues import RecallClass
from ..catalog.volumes import Volume
from ..config import Config
from ..errors import (
    Conflict,
    DriveError,
    MediaError,
    NotFound,
    VolumeMissing,
)
from ..library.ports import Library
from ..library.robot import Robot
from ..states import DriveState, VolumeState
from ..types import VolumeId
from . import schedule
from .bay import Bay, Claim
from .bays import Bays
from .eta import DriveNow, Outlook, Serving, Speeds, Terms, Wanted, forecast
from .events import Events
from .schedule import Purpose
from .session import Session

log = logs.get(__name__)

PLAYED = 256
"""Claims that are played forward on the loop: those behind them wait too long for a guess."""
Left = Mapping[VolumeId, tuple[int, int]]
"""Bytes and files still to be read of discs, where that is known better than by their claims."""
_ADMITTED = {
    Purpose.READ: (VolumeState.FULL, VolumeState.SUSPECT, VolumeState.BURNING),
    Purpose.BURN: (VolumeState.BLANK, VolumeState.BURNING),
}
_LOOKED_AT = (VolumeState.BLANK, VolumeState.DAMAGED, VolumeState.FULL, VolumeState.SUSPECT)


class Mounts(Bays):
    """Those who wait for drives, and who is served next. `run` must run for anything to happen."""

    def __init__(
        self, catalog: Catalog, library: Library, robot: Robot, events: Events, config: Config
    ) -> None:
        super().__init__(catalog, library, robot, events, config)
        self.pressure: Callable[[], float] = lambda: 0.0
        self._numbers = count(1)
        self._looks = 0
        self._write_rate = config.library.write_rate

    def configure(self, config: Config) -> None:
        """Other numbers count from now on; who waits and who is served stays."""
        engine = config.engine
        self._retries, self._retry_wait = engine.recall_retries, engine.recall_retry_wait
        self.robot_care.retry_wait = engine.recall_retry_wait
        self._board.change(schedule.rules(config), trio.current_time())
        self._poke()

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
        since: float | None = None,
        count: int = 1,
        last: float = -math.inf,
        unknown: bool = False,
    ) -> AsyncIterator[Session]:
        """The disc in a drive for as long as the block runs; its label was checked.

        bytes, count: wanted of it, by how many requests; since, last: when the oldest and the
        latest of them came, in trio's time. unknown: read whatever lies there, be the disc blank to
        the catalog; its label is not checked, and the next user's check is made anew.
        Raises VolumeMissing (not in the library), MediaError (damaged; for a burn: not blank, under
        quarantine or too small), WrongVolume or ForeignDisc, DriveError if no drive can take it,
        ChangerError.
        """
        found = self._admit(volume, _LOOKED_AT if unknown else _ADMITTED[purpose])
        if purpose is Purpose.BURN and found.quarantine:
            raise MediaError(f"disc {found.barcode} is under quarantine: {found.quarantine}")
        now = trio.current_time()
        claim = Claim(
            next(self._numbers), volume, found.barcode, purpose, urgency, bytes, who,
            now if since is None else since, count, last, unknown,
        )  # fmt: skip
        self._claims.add(claim)
        self._wait(claim)
        try:
            await claim.ready.wait()
            if claim.error is not None:
                raise claim.error
            assert claim.session is not None
            yield claim.session
            done = claim.session
            if done.worked and not done.broken and not done.doubted:
                await self.ledger.went_well(done.drive, done.volume)
            self.pace.read(done.drive.serial, done.read_bytes, done.reads, done.read_seconds)
            if done.read_bytes:
                await self.ledger.read(
                    done.drive, done.volume, done.read_bytes, done.read_seconds
                )
        finally:
            self._claims.remove(claim)
            self._board.drop(claim.id)
            self._board.used(claim.urgency, trio.current_time())
            claim.done.set()
            if claim.session is not None and claim.bay is not None and claim.bay.claim is claim:
                claim.bay.free()
            self._poke()

    def press(
        self, volume: VolumeId, urgency: RecallClass, bytes: int, count: int, last: float
    ) -> None:
        """What is wanted of a disc grew or shrank: take it into account for its read claims."""
        for claim in self._claims.of(volume):
            if claim.purpose is Purpose.READ:
                if claim.session is not None:
                    claim.session.urgency = urgency
                claim.urgency, claim.bytes = urgency, bytes
                claim.count, claim.last = count, last
                self._wait(claim)

    def under_way(self, volume: VolumeId) -> bool:
        """A drive has the disc, or it is being fetched."""
        return any(not claim.waiting for claim in self._claims.of(volume))

    def speeds_of(self, volume: VolumeId) -> Speeds:
        """Of the drive that has the disc, else of any."""
        found = self._catalog.volumes.get(volume)
        for bay in self._bays.values():
            if found is not None and self._robot.in_drive(bay.drive) == found.barcode:
                return self.pace.of(bay.drive.serial)
        return self.pace.of("")

    def forecast(self, left: Left) -> Mapping[VolumeId, Outlook]:
        """What becomes of each disc that is wanted or in use (eta.py).

        Of claims behind the first PLAYED, and of all while no drive is up, only the place is told.
        """
        now = trio.current_time()
        line, picture = list(self._board.line(now)), self._picture(now, left)
        found = dict(_play(picture, line[:PLAYED], left))
        for ahead, claim in enumerate(line):
            found.setdefault(claim.volume, Outlook(math.inf, math.inf, ahead))
        return found

    async def outlook(
        self, more: Mapping[VolumeId, tuple[int, int]], urgency: RecallClass, left: Left
    ) -> Mapping[VolumeId, Outlook]:
        """As `forecast`, of all, if so many bytes and files of discs were asked for now as well."""
        now = trio.current_time()
        after = {v: _sum(left.get(v, (0, 0)), more.get(v, (0, 0))) for v in {*left, *more}}
        picture, claims = self._picture(now, after), list(self._board.line(now))
        carriers = self.units.carriers()

        def play() -> Mapping[VolumeId, Outlook]:
            """In a thread: discs may be thousands."""
            board = schedule.Board(picture.rules)
            for claim in claims:
                size, count = after.get(claim.volume, (claim.bytes, claim.count))
                board.put(replace(claim, bytes=size, count=count), now)
            waiting = {claim.volume for claim in claims}
            for number, volume in enumerate(sorted(set(more) - waiting), start=1):
                size, count = after[volume]
                board.put(
                    schedule.ClaimView(
                        -number, volume, Purpose.READ, urgency, now, size, count, now,
                        carrier=carriers.get(volume),
                    ),
                    now,
                )
            return _play(picture, board.line(now), after)

        return await clock.blocking(play, clock.HASH)

    def _picture(self, now: float, left: Left) -> _Picture:
        drives = [self._drive_now(bay, now, left) for bay in self._bays.values() if bay.up]
        robot = [self._step_left(bay, now) for bay in self._bays.values() if bay.moving]
        robot_in = [*robot, *[0.0] * (self.arms - len(robot))][: self.arms]
        return _Picture(now, drives, robot_in, self._board.rules, self._write_rate)

    def _step_left(self, bay: Bay, now: float) -> float:
        """Until the present step of a drive ends; one that is late ends soon."""
        speeds = self.pace.of(bay.drive.serial)
        takes = {"fetch": bay.moves * speeds.exchange, "empty": speeds.exchange}.get(
            bay.step, speeds.load
        )
        return max(takes - (now - bay.step_at), 0.1 * takes)

    def _drive_now(self, bay: Bay, now: float, left: Left) -> DriveNow:
        speeds = self.pace.of(bay.drive.serial)
        view, claim = self._view(bay, now), bay.claim
        unit, carrier = view.unit, view.carrier if view.unit else None
        if bay.changing is not None:
            carrier = self.units.carrier(bay.changing.barcode)
        if claim is None:
            free = 0.0
            if bay.changing is not None and bay.changing.bay is not None:
                free = self._step_left(bay.changing.bay, now)
            elif bay.emptying:
                free = self._step_left(bay, now)
            gone = bay.emptying and any(mate.moving for mate in self.units.mates(bay))
            return DriveNow(
                bay.drive.serial, speeds, view.volume, view.holds and not gone, None, free, unit,
                None if gone else carrier,
            )  # fmt: skip
        ready, ran = 0.0, 0.0
        if bay.step == "fetch":
            ready = self._step_left(bay, now) + speeds.load
        elif bay.step == "load":
            ready = self._step_left(bay, now)
        else:
            ran = now - bay.step_at
        size, count = left.get(claim.volume, (claim.bytes, claim.count))
        burns = claim.purpose is Purpose.BURN
        takes = speeds.reading(size, count)
        if burns:
            takes = max(size / self._write_rate - ran, 0.0)
        serving = Serving(claim.volume, claim.urgency, ready, takes, ran, burns)
        return DriveNow(
            bay.drive.serial, speeds, claim.volume, True, serving, 0.0, unit, carrier
        )

    def _admit(self, volume: VolumeId, states: Container[VolumeState]) -> Volume:
        """The disc, if it can be had at all and is in one of the states."""
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
        if found.state not in states:
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
                "unit": self.units.name(bay) or None,
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
            for claim in self._claims
        ]
        return {"drives": drives, "claims": claims, "robot": self.robot_care.trouble or "ready"}

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
                    await self._catalog.settled()
                    changed = self._changed
                    again_at = self._decide(nursery)
                    with trio.move_on_at(again_at):
                        await changed.wait()
        finally:
            self._nursery = self.robot_care.nursery = None
            for bay in self._bays.values():
                bay.emptying = bay.moving = False
                bay.changing = None
                if bay.claim is not None and bay.claim not in self._claims:
                    bay.free()
            for claim in self._claims:
                claim.fail(Conflict("the library is being stopped"))

    def _take_states(self) -> None:
        for record in self._catalog.volumes.drives():
            bay = self._bays.get(record.serial)
            if bay is not None:
                bay.up, bay.reason = record.state is DriveState.UP, record.reason

    def _decide(self, nursery: trio.Nursery) -> float:
        """Start what is to be done now; when to decide again if nothing happens."""
        now = trio.current_time()
        up = [bay.drive.serial for bay in self._bays.values() if bay.up]
        for barcode in self.ledger.apart() if up else ():
            for claim in self._claims.labelled(barcode):
                self._perhaps_again(claim, up, now)
        if self._robot.whole:
            self._look_at_magazines()
        moving = sum(bay.moving for bay in self._bays.values())
        decision = self._board.decide(
            now,
            [self._view(bay, now) for bay in self._bays.values()],
            arms=0 if self.robot_care.trouble else self.arms - moving,
            in_units=not self.robot_care.failing,
            pressure=self.pressure(),
            may_pair=self._may_pair,
        )
        for action in decision.actions:
            bay = self._bays[action.drive]
            if isinstance(action, schedule.Yield):
                bay.yielding = True
            elif isinstance(action, schedule.PutAway):
                self._mark_emptied(bay)
                empty = self._empty_unit if self._robot.whole else self._empty
                nursery.start_soon(empty, bay)
            elif isinstance(action, schedule.PutBack):
                bay.emptying = True
                nursery.start_soon(self._empty, bay)
            else:
                self._assign(bay, action.claim, nursery)
        return decision.again_at

    def _assign(self, bay: Bay, number: int, nursery: trio.Nursery) -> None:
        self._board.drop(number)
        claim = self._claims.get(number)
        if claim is not None and claim.waiting:
            claim.bay, bay.claim = bay, claim
            fetch = self._robot.in_drive(bay.drive) != claim.barcode
            bay.moving = fetch and self._robot.needs_carry(claim.barcode, bay.drive)
            bay.moves = self.units.moves_to(bay, claim.barcode) if fetch else 0
            if bay.moving and self._robot.whole:
                for mate in self.units.mates(bay):
                    mate.changing = claim
            bay.begin("fetch" if fetch else "load")
            nursery.start_soon(self._serve, bay, claim)

    def _look_at_magazines(self) -> None:
        """Where an inventory found discs elsewhere, the rules are told which magazine to fetch."""
        self._fail_unreachable()
        if self._looks != self._robot.looks:
            self._looks = self._robot.looks
            now = trio.current_time()
            for view in list(self._board.line(now)):
                claim = self._claims.get(view.id)
                if claim is not None and view.carrier != self.units.carrier(claim.barcode):
                    self._wait(claim)

    def _may_pair(self, serial: str, volume: VolumeId) -> bool:
        """Whether the disc may be tried in the drive."""
        return all(self._may_try(serial, claim) for claim in self._claims.of(volume))

    def _perhaps_again(self, claim: Claim, up: Sequence[str], now: float) -> None:
        """If it failed in all drives that are up, it may try them once more after a pause."""
        if claim.again or not claim.waiting:
            return
        if not any(self.ledger.may_pair(serial, claim.barcode) for serial in up):
            claim.again, claim.not_before = True, now + self._retry_wait
            self._wait(claim)

    def _view(self, bay: Bay, now: float) -> schedule.DriveView:
        barcode = self._robot.in_drive(bay.drive)
        volume = self._catalog.volumes.number(barcode) if barcode else None
        claim, session = bay.claim, bay.claim.session if bay.claim else None
        unit, holds = self.units.name(bay), self.units.holds(bay)
        carrier: int | None = volume
        if unit:
            magazine = self.units.magazine(bay)
            carrier = None if magazine is None else -magazine
            holds = magazine is not None or any(map(self.units.holds, self.units.mates(bay)))
        if self.arms > 1 and claim is not None and bay.moving:
            volume, carrier = claim.volume, carrier if unit else claim.volume
        if self.arms > 1 and bay.changing is not None:
            carrier = self.units.carrier(bay.changing.barcode)
        return schedule.DriveView(
            bay.drive.serial,
            up=bay.up,
            volume=volume,
            busy=self.units.in_use(bay) if unit else bay.busy or bay.holds_fast is not None,
            purpose=claim.purpose if claim else None,
            urgency=session.urgency if session else claim.urgency if claim else None,
            started=session.started if session else now,
            yielding=bay.yielding,
            idle_since=bay.used,
            unit=unit,
            carrier=carrier,
            holds=holds,
        )


@dataclass(frozen=True, slots=True)
class _Picture:
    """What a forecast starts from."""

    now: float
    drives: Sequence[DriveNow]
    robot_in: Sequence[float]
    rules: schedule.Rules
    write_rate: float


def _play(
    picture: _Picture, line: Iterable[schedule.ClaimView], left: Left
) -> Mapping[VolumeId, Outlook]:
    rules, wanted = picture.rules, []
    for claim in line:
        size, count = left.get(claim.volume, (claim.bytes, claim.count))
        burns = size / picture.write_rate if claim.purpose is Purpose.BURN else 0.0
        wait = max(0.0, rules.ripe_at(claim) - picture.now)
        wanted.append(
            Wanted(claim.volume, claim.urgency, size, count, wait, burns, claim.carrier)
        )
    terms = Terms(rules.run_cap, rules.earn)
    return forecast(picture.drives, wanted, robot_in=picture.robot_in, terms=terms)


def _sum(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return one[0] + other[0], one[1] + other[1]
