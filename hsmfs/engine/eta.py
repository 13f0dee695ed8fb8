"""How long until a disc is read: the drives and the robot played forward from now; pure.

An honest guess and not a promise: it knows who waits now, and that nobody more urgent comes. One
robot arm makes all moves; who is served next is what the rules of schedule/ come to in most cases:
the more urgent class, then the one that has waited longest. Times are seconds from now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

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
        volume: the disc in it. holds: there is one, be it unknown.
        free_in: until whatever it does without a disc's user is over: it is being emptied.
    """

    serial: str
    speeds: Speeds
    volume: VolumeId | None = None
    holds: bool = False
    serving: Serving | None = None
    free_in: float = 0.0

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
    """A disc that somebody waits for, and what is to be read of it; since: trio's time."""

    volume: VolumeId
    urgency: RecallClass
    since: float
    bytes: int
    count: int = 1
    burns: float = 0.0
    """Seconds, if it is to be burned."""


def forecast(
    drives: Sequence[DriveNow], wanted: Iterable[Wanted], *, robot_in: float, run_cap: float
) -> Mapping[VolumeId, float]:
    """When each disc that is wanted or in a drive can be read; none without drives.

    robot_in: until the robot has ended its present move.
    """
    units = list(drives)
    ready = {d.serving.volume: d.serving.ready_in for d in units if d.serving is not None}
    for claim in sorted(wanted, key=lambda c: (c.urgency, c.since)):
        if claim.volume in ready or not units:
            continue
        offers = [_offer(unit, claim, robot_in, run_cap) for unit in units]
        at = min(range(len(units)), key=offers.__getitem__)
        unit, (finish, start, moves) = units[at], offers[at]
        if moves:
            robot_in = start + moves * unit.speeds.exchange
        ready[claim.volume] = finish
        left = claim.burns or unit.speeds.reading(claim.bytes, claim.count)
        units[at] = replace(
            unit, volume=claim.volume, holds=True, free_in=0.0,
            serving=Serving(claim.volume, claim.urgency, finish, left, burns=claim.burns > 0),
        )  # fmt: skip
    return ready


def _offer(
    unit: DriveNow, claim: Wanted, robot_in: float, run_cap: float
) -> tuple[float, float, int]:
    """When the drive could read the disc, when the robot would begin, and in how many moves."""
    free = unit.available(claim.urgency, run_cap)
    if unit.volume == claim.volume:
        return free, free, 0
    moves = 1 + unit.holds
    start = max(free, robot_in)
    return start + moves * unit.speeds.exchange + unit.speeds.load, start, moves
