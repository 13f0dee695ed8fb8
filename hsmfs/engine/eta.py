"""How long until a disc is read: the drives and the robot played forward from now; pure.

An honest guess and not a promise: it knows who waits now, and that nobody more urgent comes. The
robot's arms make all moves; who is served next is what the scheduler's board says (`Board.line`).
Times are seconds from now.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from ..catalog.queues import RecallClass
from ..types import CHUNK, VolumeId


@dataclass(frozen=True, slots=True)
class Speeds:
    """Of the robot and of one drive: seconds, and bytes a second; a rate of 0 means no delay.

    Attributes:
        exchange: one move of the robot. load: until a disc that was put in can be read.
        seek: from one read to another one elsewhere.
    """

    exchange: float
    load: float
    seek: float
    read_rate: float

    def reading(self, size: int, reads: int = 1) -> float:
        """Seconds to read size bytes in so many places of a loaded disc."""
        return reads * self.seek + (size / self.read_rate if self.read_rate else 0.0)


@dataclass(frozen=True, slots=True)
class Serving:
    """What a drive does for someone.

    Attributes:
        ready_in: until the disc can be read. left: of reading or burning, from then on.
        ran: so long it has been read already. burns: it is not interrupted.
    """

    volume: VolumeId
    urgency: RecallClass
    ready_in: float
    left: float
    ran: float = 0.0
    burns: bool = False


@dataclass(frozen=True, slots=True)
class DriveNow:
    """A drive that is up.

    Attributes:
        volume: the disc in it. holds: there is one, be it unknown; with a unit, a magazine.
        free_in: until whatever it does without a disc's user is over: it is being emptied.
        unit: drives that share a magazine; "" if discs move singly. carrier: what the unit holds.
    """

    serial: str
    speeds: Speeds
    volume: VolumeId | None = None
    holds: bool = False
    serving: Serving | None = None
    free_in: float = 0.0
    unit: str = ""
    carrier: int | None = None

    def within_reach(self, claim: Wanted) -> bool:
        """The claim's magazine is in the unit."""
        return self.carrier is not None and self.carrier == claim.carrier

    def available(self, urgency: RecallClass, run_cap: float) -> float:
        """When someone of a class may have it."""
        now = self.serving
        if now is None:
            return self.free_in
        if now.burns:
            return now.ready_in + now.left
        if urgency < now.urgency:  # at least one chunk is read
            return now.ready_in + min(now.left, self.speeds.reading(CHUNK))
        return now.ready_in + min(now.left, max(0.0, run_cap - now.ran))


@dataclass(frozen=True, slots=True)
class Wanted:
    """A disc that somebody waits for, and what is to be read of it.

    Attributes:
        wait: until it may be fetched. burns: seconds, if it is to be burned.
        carrier: the magazine that it is carried in; None: it is carried alone.
    """

    volume: VolumeId
    urgency: RecallClass
    bytes: int
    count: int = 1
    wait: float = 0.0
    burns: float = 0.0
    carrier: int | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """What of the rules of schedule/ counts here: see `schedule.Rules`."""

    run_cap: float
    earn: int = 0


@dataclass(frozen=True, slots=True)
class Outlook:
    """Of one disc: until it can be read, until what is wanted of it was, and discs before it."""

    ready: float
    done: float
    ahead: int = 0


def forecast(
    drives: Sequence[DriveNow], line: Iterable[Wanted], *, robot_in: Sequence[float], terms: Terms
) -> Mapping[VolumeId, Outlook]:
    """What becomes of each disc that is wanted or in use; none without drives.

    line: as they are served; of one class what is in a drive goes first. robot_in: until each
    of the robot's arms has ended its present move.
    """
    units, arms = list(drives), list(robot_in)
    here = {unit.volume for unit in units}
    near = {unit.carrier for unit in units} - {None}
    claims = [
        claim
        for _, level in groupby(line, key=lambda c: c.urgency)
        for claim in sorted(level, key=lambda c: (c.volume not in here, c.carrier not in near))
    ]
    found = {
        d.serving.volume: Outlook(d.serving.ready_in, d.serving.ready_in + d.serving.left)
        for d in units
        if d.serving is not None
    }
    bulk = sum(c.bytes for c in claims if c.urgency is RecallClass.BULK and not c.burns)
    waits: list[Wanted] = []
    for claim in claims:
        if claim.volume in found or not units:
            continue
        offers = {
            at: _offer(units, at, claim, min(arms), terms)
            for at in _open_to(claim, units, bulk, terms)
        }
        at = min(offers, key=offers.__getitem__)
        unit, (ready, start, moves) = units[at], offers[at]
        if moves:
            ends = start + moves * unit.speeds.exchange
            arms[arms.index(min(arms))] = ends
            _bring(units, at, claim, ends)
        left = claim.burns or unit.speeds.reading(claim.bytes, claim.count)
        found[claim.volume] = Outlook(ready, ready + left)
        units[at] = replace(
            units[at], volume=claim.volume, holds=True, free_in=0.0,
            serving=Serving(claim.volume, claim.urgency, ready, left, burns=claim.burns > 0),
        )  # fmt: skip
        waits.append(claim)
        bulk -= claim.bytes if claim.urgency is RecallClass.BULK and not claim.burns else 0
    starts = sorted(found[claim.volume].ready for claim in waits)
    for claim in waits:
        outlook = found[claim.volume]
        found[claim.volume] = replace(outlook, ahead=bisect_left(starts, outlook.ready))
    return found


def _open_to(
    claim: Wanted, units: Sequence[DriveNow], bulk: int, terms: Terms
) -> Sequence[int]:
    """Drives that may take it: bulk has as many as the bytes earn that it still waits for."""
    if claim.urgency is not RecallClass.BULK or claim.burns:
        return range(len(units))
    held = [
        at
        for at, unit in enumerate(units)
        if unit.volume == claim.volume
        or (unit.serving is not None and unit.serving.urgency is RecallClass.BULK)
    ]
    return held if held and bulk < terms.earn * (len(held) + 1) else range(len(units))


def _bring(units: list[DriveNow], at: int, claim: Wanted, ready: float) -> None:
    """The magazine of the drive's unit is another one then."""
    for other, unit in enumerate(units):
        if unit.unit and unit.unit == units[at].unit:
            units[other] = replace(
                unit, volume=None, holds=True, serving=None, free_in=ready, carrier=claim.carrier
            )


def _offer(
    units: Sequence[DriveNow], at: int, claim: Wanted, robot_in: float, terms: Terms
) -> tuple[float, float, int]:
    """When the drive could read the disc, when the robot would begin, and in how many moves."""
    unit = units[at]
    free = unit.available(claim.urgency, terms.run_cap)
    if unit.volume == claim.volume:
        return free, free, 0
    if unit.within_reach(claim):
        start = max(free, claim.wait)
        return start + unit.speeds.load, start, 0
    if unit.unit:
        mates = (other for other in units if other.unit == unit.unit)
        free = max(mate.available(claim.urgency, terms.run_cap) for mate in mates)
    moves = 1 + unit.holds
    start = max(free, robot_in, claim.wait)
    return start + moves * unit.speeds.exchange + unit.speeds.load, start, moves
