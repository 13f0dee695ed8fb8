"""The picture of drives and robot while one decision uses it up."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ...catalog.queues import RecallClass
from ...types import VolumeId
from .picture import Action, Assign, ClaimView, DriveView, Purpose, PutAway, PutBack, Yield

if TYPE_CHECKING:
    from .board import Board

NOW = RecallClass.INTERACTIVE


class Table:
    """What is still to be had, and what was given.

    Attributes:
        units_up: units with a drive that is up; arms: of the robot that are free.
        in_units: units may move discs of their magazines.
        held: units that read, by class; burning: those with a drive that burns.
        spare: units that are kept for interactive requests.
    """

    def __init__(
        self,
        board: Board,
        now: float,
        drives: Sequence[DriveView],
        arms: int,
        in_units: bool,
        may_pair: Callable[[str, VolumeId], bool],
    ) -> None:
        self._board, self._now, self._may_pair = board, now, may_pair
        self._rules = board.rules
        self._drives = drives
        self.actions: list[Action] = []
        self.again_at = math.inf
        self.arms, self.in_units = arms, in_units
        self._given: set[VolumeId] = set()
        self._claims: set[int] = set()
        self._emptied: set[str] = set()
        self._asked = {d.serial for d in drives if d.yielding}
        self._asked_units = {d.group for d in drives if d.yielding}
        self._free = {d.serial: d for d in drives if d.up and not d.busy}
        self._drive_of = {d.volume: d for d in drives if d.volume is not None}
        self._units: dict[str, list[DriveView]] = {}
        for drive in drives:
            self._units.setdefault(drive.group, []).append(drive)
        self._unit_of = {
            d.carrier: d.group for d in drives if d.carrier is not None and d.group in self._units
        }
        self.units_up = sum(any(d.up for d in unit) for unit in self._units.values())
        self.burning = {d.group for d in drives if d.up and d.purpose is Purpose.BURN}
        self.held: Counter[RecallClass] = Counter()
        self._taken: set[str] = set()
        for name, unit in self._units.items():
            at_work = [d for d in unit if d.busy and d.up and d.urgency is not None]
            if at_work:
                reads = [
                    d.urgency
                    for d in at_work
                    if d.purpose is Purpose.READ and d.urgency is not None
                ]
                self._take_unit(name, min(reads, default=None))
        wanted = board.interactive_comes(now)
        self.spare = min(self._rules.spare, self.units_up - 1) if wanted else 0

    # Questions

    def is_owed(self, urgency: RecallClass, *, more: int = 1) -> bool:
        """Whether a class over its deadline has less than its share of units and of the robot.

        more: units beyond those that it has.
        """
        share, board = self._rules.of(urgency).share, self._board
        fetched = board.fetched.of(urgency, self._now)
        all_fetched = sum(board.fetched.of(other, self._now) for other in RecallClass)
        units = max(share > 0, int(share * self.units_up))
        return self.held[urgency] + more <= units and fetched <= share * all_fetched

    def loaded(self, urgency: RecallClass) -> Iterator[ClaimView]:
        """Claims of a class that want to read a disc within reach of a free drive."""
        for carrier, name in self._unit_of.items():
            if any(d.serial in self._free for d in self._units[name]):
                for claim in self._board.of(carrier):
                    if claim.urgency is urgency and claim.purpose is Purpose.READ:
                        yield claim

    def may_burn(self, claim: ClaimView, most: int) -> bool:
        """Whether the claim's burn leaves no more than so many units burning."""
        return len(self.burning) < most or self._unit_of.get(claim.cargo) in self.burning

    def idle_loaded(self) -> Iterator[DriveView]:
        """A drive of each unit that holds something nobody uses."""
        for name in self._idle_units():
            drive = self._units[name][0]
            if drive.holds:
                last = max(d.idle_since for d in self._units[name])
                yield (
                    drive
                    if drive.idle_since == last
                    else next(d for d in self._units[name] if d.idle_since == last)
                )

    def empty_units(self) -> int:
        """Units that could take a carrier at once."""
        return sum(not self._units[name][0].holds for name in self._idle_units())

    def must_be_fetched(self, claim: ClaimView) -> bool:
        """Its disc is within reach of no drive."""
        return claim.cargo not in self._unit_of and claim.volume not in self._drive_of

    def can_fetch(self, claim: ClaimView, *, aged: bool) -> bool:
        """Whether somebody of the claim's kind could have something fetched."""
        if self.arms <= 0 or not self._may_take(claim, aged=aged):
            return False
        idle = sum(1 for _ in self._idle_units())
        calm_at = self._board.calm_at
        if claim.urgency is RecallClass.IDLE and idle == 1 and self._now < calm_at:
            self.again_at = min(self.again_at, calm_at)
            return False
        return idle > 0

    def _idle_units(self) -> Iterator[str]:
        for name, unit in self._units.items():
            up = [d for d in unit if d.up]
            if up and all(d.serial in self._free for d in up) and not any(d.busy for d in unit):
                yield name

    def _may_take(self, claim: ClaimView, *, aged: bool) -> bool:
        """Whether the claim may have one more unit, beside interactive ones to come."""
        if claim.urgency < RecallClass.BULK or claim.purpose is Purpose.BURN or aged:
            return True
        others = len(self._taken) - self.held[NOW]
        if others >= self.units_up - self.spare:
            return False
        held = self.held[RecallClass.BULK]
        if claim.urgency is not RecallClass.BULK or not held:
            return True
        # Another drive for the same work has to be earned, by bytes or by waiting.
        enough = self._board.waiting_bytes[RecallClass.BULK] >= self._rules.earn * (held + 1)
        return enough or self._now - claim.since >= self._rules.bulk.deadline

    # Giving

    def serve(self, claim: ClaimView, *, aged: bool = False) -> bool:
        """Take what the claim needs out of the picture; False if it has to wait."""
        if claim.id in self._claims or claim.volume in self._given or claim.not_before > self._now:
            return False
        there = self._drive_of.get(claim.volume)
        if there is not None:
            return self._in_drive(claim, there, aged)
        unit = self._unit_of.get(claim.cargo)
        if unit is not None:
            return self._in_unit(claim, unit, aged)
        return self._fetch(claim, aged)

    def _in_drive(self, claim: ClaimView, there: DriveView, aged: bool) -> bool:
        if there.up and self._may_pair(there.serial, claim.volume):
            return there.serial in self._free and self._assign(claim, there, aged)
        if there.unit:
            return self._put_back(there)
        if there.busy or self.arms <= 0 or there.group in self._emptied:
            return False
        if not there.up or there.serial in self._free:
            self.put_away(there)
            return True
        return False

    def _in_unit(self, claim: ClaimView, name: str, aged: bool) -> bool:
        """The carrier is there: any free drive of the unit, best one whose disc nobody wants."""
        if not self.in_units:
            return False
        free = [d for d in self._units[name] if self._usable(d, claim)]
        if not free:
            return self._to_another_unit(claim, name)
        wanted = {c.volume for c in self._board.of(claim.cargo)}
        return self._assign(claim, min(free, key=lambda d: (d.volume in wanted, d.serial)), aged)

    def _put_back(self, there: DriveView) -> bool:
        """Have a disc that its drive may not use at hand for the other drives of the unit."""
        known = there.serial in self._free if there.up else not there.busy
        if not known or there.group in self._emptied or there.volume is None or not self.in_units:
            return False
        self._free.pop(there.serial, None)
        self._given.add(there.volume)
        self.actions.append(PutBack(there.serial))
        return True

    def _to_another_unit(self, claim: ClaimView, name: str) -> bool:
        """If no drive of the unit will do, and one of another would, the magazine has to leave."""
        able = {
            d.group for d in self._drives if d.up and self._may_pair(d.serial, claim.volume)
        }
        unit = self._units[name]
        if name in able or not able or self.arms <= 0 or name in self._emptied:
            return False
        if any(d.busy or (d.up and d.serial not in self._free) for d in unit):
            return False
        self.put_away(unit[0])
        return True

    def _fetch(self, claim: ClaimView, aged: bool) -> bool:
        if not self.can_fetch(claim, aged=aged):
            return False
        found = [
            d for name in self._idle_units() for d in self._units[name] if self._usable(d, claim)
        ]
        if not found:
            return False
        drive = min(found, key=self._regret)
        if drive.holds:
            self.put_away(drive)
            return True
        self.arms -= 1
        for other in self._units[drive.group]:
            self._free.pop(other.serial, None)
        self._board.fetched.demand(claim.urgency, self._now)
        return self._assign(claim, drive, aged)

    def _usable(self, drive: DriveView, claim: ClaimView) -> bool:
        return drive.serial in self._free and self._may_pair(drive.serial, claim.volume)

    def _regret(self, drive: DriveView) -> tuple[bool, bool, int, float, str]:
        """An empty unit is taken first, then what nobody wants, then what is least wanted."""
        wanting = self._board.of(drive.carrier)
        urgency = min((claim.urgency for claim in wanting), default=RecallClass.IDLE)
        heat = self._board.heat.of(drive.carrier, self._now)
        return (drive.holds, bool(wanting), -urgency, heat, drive.serial)

    def _assign(self, claim: ClaimView, drive: DriveView, aged: bool) -> bool:
        if drive.group not in self._taken:
            if not self._may_take(claim, aged=aged):
                return False
            burns = claim.purpose is Purpose.BURN
            self._take_unit(drive.group, None if burns else claim.urgency)
        self._free.pop(drive.serial, None)
        self._claims.add(claim.id)
        self._given.add(claim.volume)
        if drive.volume is not None:
            self._given.add(drive.volume)
        if claim.purpose is Purpose.BURN:
            self.burning.add(drive.group)
        self.actions.append(Assign(claim.id, drive.serial))
        return True

    def put_away(self, drive: DriveView) -> None:
        """Empty the drive's unit."""
        self.arms -= 1
        self._emptied.add(drive.group)
        for other in self._units[drive.group]:
            self._free.pop(other.serial, None)
            if other.volume is not None:
                self._given.add(other.volume)
        self.actions.append(PutAway(drive.serial))

    def _take_unit(self, name: str, urgency: RecallClass | None) -> None:
        """urgency: of a read; None for a burn."""
        self._taken.add(name)
        if urgency is not None:
            self.held[urgency] += 1

    # Making room

    def press(self, claim: ClaimView, *, aged: bool) -> None:
        """The claim could not be served: a unit at less urgent work should end, if that helps.

        One at a time for each free arm, for more could not be served anyway.
        """
        if self.arms <= len(self._asked_units):
            return
        if not self._may_take(claim, aged=aged) and not self._over_cap_of_class(claim):
            return
        found = [unit for unit in self._units.values() if self._gives_way(unit, claim)]
        if found:
            unit = max(found, key=lambda u: (max(d.urgency or 0 for d in u), -u[0].started))
            self._ask(unit)

    def _over_cap_of_class(self, claim: ClaimView) -> bool:
        """At its most units, the claim may still take the turn of others of its class."""
        return self.held[claim.urgency] > 0

    def _gives_way(self, unit: list[DriveView], claim: ClaimView) -> bool:
        busy = [d for d in unit if d.busy]
        return (
            bool(busy)
            and not any(d.serial in self._asked for d in unit)
            and all(self._yields_to(d, claim) for d in busy)
            and any(d.up and self._may_pair(d.serial, claim.volume) for d in unit)
        )

    def _yields_to(self, drive: DriveView, claim: ClaimView) -> bool:
        """More urgent claims need not wait; others do until the run is as long as the cap."""
        if drive.urgency is None or drive.purpose is not Purpose.READ or not drive.up:
            return False
        cap_at = drive.started + self._rules.run_cap
        if cap_at <= self._now:
            return True
        self.again_at = min(self.again_at, cap_at)
        return claim.urgency < drive.urgency and not self._protected(drive.urgency)

    def _protected(self, urgency: RecallClass) -> bool:
        """The class has no more than it is owed, and is owed it."""
        late = next(self._board.overdue(urgency, self._now), None)
        return late is not None and self.is_owed(urgency, more=0)

    def yield_on_the_spot(self) -> None:
        """A more urgent claim waits for the very disc, or magazine, that is at work."""
        for carrier, name in self._unit_of.items():
            unit = self._units[name]
            if any(d.serial in self._asked or d.serial in self._free for d in unit):
                continue
            for claim in self._board.of(carrier):
                if claim.id in self._claims:
                    continue
                at_work = [d for d in unit if d.busy and self._yields_to(d, claim)]
                there = self._drive_of.get(claim.volume)
                if there is not None:
                    at_work = [d for d in at_work if d is there]
                if at_work and claim.urgency is not RecallClass.IDLE:
                    self._ask([max(at_work, key=lambda d: (d.urgency or 0, -d.started))])
                    break

    def _ask(self, drives: list[DriveView]) -> None:
        for drive in drives:
            if drive.busy and drive.serial not in self._asked:
                self._asked.add(drive.serial)
                self._asked_units.add(drive.group)
                self.actions.append(Yield(drive.serial))
