"""Which disc goes into which drive next: pure rules over a picture of drives and claims.

Whoever acts on the answer draws the picture anew each time, so that a decision never rests on an
old one. Times are seconds of trio's clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from ..catalog.queues import RecallClass
from ..types import VolumeId


class Purpose(Enum):
    """What a disc is wanted for."""

    READ = "read"
    BURN = "burn"


@dataclass(frozen=True, slots=True)
class DriveView:
    """A drive as the rules see it."""

    serial: str
    up: bool = True
    volume: VolumeId | None = None
    """The disc in it, known or not to be sound."""
    holds_disc: bool = False
    """There is a disc in it, be it one without a number."""
    busy: bool = False
    """Someone uses it, or a disc is on its way into or out of it."""
    burning: bool = False
    """Busy for a burn."""


@dataclass(frozen=True, slots=True)
class ClaimView:
    """Someone waits for a disc."""

    id: int
    volume: VolumeId
    purpose: Purpose
    urgency: RecallClass
    since: float
    bytes: int = 0
    """Bytes that are wanted of that disc."""
    avoid: frozenset[str] = frozenset()
    """Serials of drives in which this disc failed last time."""
    not_before: float = 0.0


@dataclass(frozen=True, slots=True)
class Assign:
    """Bring the claim's disc into the drive."""

    claim: int
    drive: str


@dataclass(frozen=True, slots=True)
class PutAway:
    """Take the disc out of a drive that may not use it, so that another one can."""

    drive: str


Action = Assign | PutAway


@dataclass(frozen=True, slots=True)
class Rules:
    """The configured part of the decision.

    Attributes:
        reserved: drives kept for reads; while fewer are up than that, one may still burn.
        age_limit: seconds after which a claim goes before all younger ones.
    """

    reserved: int
    age_limit: float


def decide(
    now: float,
    drives: Sequence[DriveView],
    claims: Iterable[ClaimView],
    rules: Rules,
    *,
    robot_works: bool = True,
) -> list[Action]:
    """What to start now, best claim first; never a drive or a disc twice.

    Claims over the age limit go first, oldest first. Then interactive before standard before bulk,
    a disc that is in a drive before one to be fetched, more bytes before fewer. A claim whose disc
    is in a busy drive waits for that drive. Without the robot only discs in drives are given out.
    """
    table = _Table(drives, rules, robot_works)
    ripe = [claim for claim in claims if claim.not_before <= now]
    table.wanted = {claim.volume for claim in ripe}
    actions: list[Action] = []
    for claim in sorted(ripe, key=lambda c: _rank(now, c, table, rules)):
        action = table.serve(claim)
        if action is not None:
            actions.append(action)
    return actions


def _rank(now: float, claim: ClaimView, table: _Table, rules: Rules) -> tuple[float, ...]:
    if now - claim.since >= rules.age_limit and claim.urgency < RecallClass.IDLE:
        return (0, claim.since, claim.id)
    loaded = claim.volume in table.drive_of
    return (1, claim.urgency, not loaded, -claim.bytes, claim.since, claim.id)


class _Table:
    """The picture while it is used up by one decision."""

    def __init__(self, drives: Sequence[DriveView], rules: Rules, robot_works: bool) -> None:
        self._free = {d.serial: d for d in drives if d.up and not d.busy}
        self._robot = robot_works
        self._given: set[VolumeId] = set()
        self._emptied: set[str] = set()
        self.drive_of = {d.volume: d for d in drives if d.volume is not None}
        self.wanted: set[VolumeId] = set()
        up = sum(d.up for d in drives)
        burning = sum(d.up and d.burning for d in drives)
        self._burns = max(min(up, 1), up - rules.reserved) - burning

    def serve(self, claim: ClaimView) -> Action | None:
        """Take what the claim needs out of the picture; None if it has to wait."""
        if claim.volume in self._given:
            return None
        if claim.purpose is Purpose.BURN and self._burns <= 0:
            return None
        there = self.drive_of.get(claim.volume)
        if there is not None:
            return self._in_drive(claim, there)
        return self._fetch(claim)

    def _in_drive(self, claim: ClaimView, there: DriveView) -> Action | None:
        usable = there.up and there.serial not in claim.avoid
        if usable:
            return self._assign(claim, there) if there.serial in self._free else None
        if there.busy or not self._robot or there.serial in self._emptied:
            return None
        if not there.up or there.serial in self._free:
            self._free.pop(there.serial, None)
            self._emptied.add(there.serial)
            return PutAway(there.serial)
        return None

    def _fetch(self, claim: ClaimView) -> Action | None:
        if not self._robot:
            return None
        usable = [d for d in self._free.values() if d.serial not in claim.avoid]
        if not usable:
            return None
        return self._assign(claim, min(usable, key=self._regret))

    def _regret(self, drive: DriveView) -> tuple[bool, bool, str]:
        """An empty drive is taken first, then one whose disc nobody waits for."""
        return (drive.volume in self.wanted, drive.holds_disc, drive.serial)

    def _assign(self, claim: ClaimView, drive: DriveView) -> Assign:
        del self._free[drive.serial]
        self._given.add(claim.volume)
        if drive.volume is not None:
            self._given.add(drive.volume)
        self._burns -= claim.purpose is Purpose.BURN
        return Assign(claim.id, drive.serial)


def must_yield(
    now: float,
    started: float,
    urgency: RecallClass,
    waiting: Iterable[ClaimView],
    *,
    drive: str,
    run_cap: float,
) -> bool:
    """Whether a session should end at its next good moment for claims that wait for a drive.

    A more urgent claim need not wait; others do until the run is as long as run_cap.
    """
    over = now - started >= run_cap
    return any(
        (over or claim.urgency < urgency) and claim.not_before <= now and drive not in claim.avoid
        for claim in waiting
    )
