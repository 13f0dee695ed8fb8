"""The configured part of the decision."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...catalog.queues import RecallClass
from .picture import ClaimView, Purpose


@dataclass(frozen=True, slots=True)
class ClassRule:
    """What a class of requests may count on.

    Attributes:
        deadline: seconds after which it is owed its share of the drives, before more urgent ones.
        share: part of the drives, 0 to 1.
        age_limit: seconds after which a request goes before all younger ones.
    """

    deadline: float = math.inf
    share: float = 0.0
    age_limit: float = math.inf


IDLE = ClassRule()
"""Scrubs: nothing is owed to them."""


@dataclass(frozen=True, slots=True)
class Rules:
    """See docs/scheduler.md and the table [schedule] of the configuration; sizes are bytes.

    Attributes:
        reserved: units kept for reads; while fewer are up than that, one may still burn.
        run_cap: seconds that one disc keeps its drive while others of its class wait.
        quiet, quiet_limit, quiet_bytes, quiet_count: a disc for bulk is fetched when nothing more
            was asked of it for `quiet` seconds, or after the limit, or when so much is wanted.
        earn: bytes for each drive that bulk must have waiting to take one more.
        spare: units that bulk and idle reads leave to others, while interactive requests came
            within `spare_for`.
        keep: seconds that a disc nobody wants stays in its drive when a spare unit has to be made.
        calm: seconds after the last use by others in which idle reads have nothing fetched into
            the last free unit.
        half_life: seconds in which the memory of a disc's use fades to a half.
    """

    reserved: int = 0
    run_cap: float = 600.0
    interactive: ClassRule = ClassRule(age_limit=900.0)
    standard: ClassRule = ClassRule(900.0, 0.2, 2 * 3600.0)
    bulk: ClassRule = ClassRule(4 * 3600.0, 0.1, 3 * 86_400.0)
    quiet: float = 0.0
    quiet_limit: float = 30.0
    quiet_bytes: int = 10**9
    quiet_count: int = 100
    earn: int = 0
    spare: int = 0
    spare_for: float = 3600.0
    keep: float = 120.0
    calm: float = 10.0
    half_life: float = 3600.0

    def of(self, urgency: RecallClass) -> ClassRule:
        """The rule of a class."""
        return (self.interactive, self.standard, self.bulk, IDLE)[urgency]

    def ripe_at(self, claim: ClaimView) -> float:
        """When a carrier may be fetched for the claim."""
        if claim.purpose is Purpose.BURN or claim.urgency is not RecallClass.BULK:
            return claim.not_before
        if claim.bytes >= self.quiet_bytes or claim.count >= self.quiet_count:
            return claim.not_before
        limit = min(self.quiet_limit, self.bulk.age_limit)
        return max(claim.not_before, min(claim.last + self.quiet, claim.since + limit))

    def burns(self, up: int, pressure: float, *, readers: bool) -> tuple[int, int]:
        """Units that burns are owed before reads, and the most they may take, of those up.

        While interactive requests come (readers) the most is a half, and more with the pressure.
        pressure: 0 when the pool is at its low watermark, 1 at the high one and above.
        """
        most = max(min(up, 1), up - self.reserved)
        pressure = min(1.0, max(0.0, pressure))
        if readers:
            most = math.ceil(most * max(0.5, pressure))
        return round(most * pressure), most
