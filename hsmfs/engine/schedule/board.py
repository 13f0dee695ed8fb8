"""Who waits, sorted so that a decision looks at a few of them and not at all.

Each claim stands in lists that are kept in order as it comes, changes and goes, O(log n) each. The
decision itself is in decide.py.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice

from sortedcontainers import SortedList

from ...catalog.queues import RecallClass
from ...types import VolumeId
from . import decide
from .heat import Heat
from .picture import ClaimView, Decision, DriveView, Purpose
from .rules import Rules

READS = (RecallClass.INTERACTIVE, RecallClass.STANDARD, RecallClass.BULK, RecallClass.IDLE)
RIPEN = 16
"""Claims that one decision lets in, so that it is quick when very many are due."""
Key = tuple[float, float, int]
Ages = SortedList[tuple[float, int]]


class Board:
    """The claims that wait for a drive.

    Attributes:
        heat: how much each carrier was asked for of late.
        fetched: carriers that were fetched of late, by class.
        waiting_bytes: of claims to read, by class.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.heat = Heat(rules.half_life)
        self.fetched = Heat(rules.half_life)
        self.waiting_bytes = [0 for _ in READS]
        self._last_interactive = self._last_use = -math.inf
        self._claims: dict[int, ClaimView] = {}
        self._of_cargo: dict[int, dict[int, None]] = {}
        self._weight: dict[int, int] = {}
        # Of ripe claims: by age, and in the order in which they are fetched.
        self._by_age: tuple[Ages, ...] = tuple(SortedList() for _ in READS)
        self._in_order: tuple[SortedList[Key], ...] = tuple(SortedList() for _ in READS)
        self._burns: Ages = SortedList()
        self._keys: dict[int, Key] = {}
        self._unripe: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._claims)

    def change(self, rules: Rules, now: float) -> None:
        """Decide by other rules from now on; what waits, and what was asked for of late, stays."""
        self.rules = rules
        self.heat.fade(rules.half_life)
        self.fetched.fade(rules.half_life)
        self._unripe.clear()
        for claim in self._claims.values():
            self._leave(claim)
            self._enter(claim, now)

    # What waits

    def put(self, claim: ClaimView, now: float) -> bool:
        """It waits, or what was known of it changed; whether a new decision may be worth while."""
        before = self._claims.get(claim.id)
        was_ripe = claim.id in self._keys
        if before is not None:
            self._take(before)
        else:
            self.heat.demand(claim.cargo, now)
        if claim.urgency is RecallClass.INTERACTIVE:
            self._last_interactive = now
        self.used(claim.urgency, now)
        self._claims[claim.id] = claim
        cargo = claim.cargo
        self._of_cargo.setdefault(cargo, {})[claim.id] = None
        self._weight[cargo] = self._weight.get(cargo, 0) + claim.bytes
        if claim.purpose is Purpose.READ:
            self.waiting_bytes[claim.urgency] += claim.bytes
        self._enter(claim, now)
        self._weigh(cargo, claim.id)
        ripe = claim.id in self._keys
        return before is None or before.urgency != claim.urgency or ripe != was_ripe

    def drop(self, number: int) -> None:
        """It waits no more; nothing happens if it does not wait."""
        claim = self._claims.pop(number, None)
        if claim is not None:
            self._take(claim)
            self._weigh(claim.cargo, number)

    def _take(self, claim: ClaimView) -> None:
        cargo = claim.cargo
        self._leave(claim)
        del self._of_cargo[cargo][claim.id]
        self._weight[cargo] -= claim.bytes
        if not self._of_cargo[cargo]:
            del self._of_cargo[cargo], self._weight[cargo]
        if claim.purpose is Purpose.READ:
            self.waiting_bytes[claim.urgency] -= claim.bytes

    def _enter(self, claim: ClaimView, now: float) -> None:
        """Into the lists if it is ripe, else among those that will be."""
        ripe_at = self.rules.ripe_at(claim)
        if ripe_at > now:
            heapq.heappush(self._unripe, (ripe_at, claim.id))
            return
        key = self._keys[claim.id] = self._key(claim)
        if claim.purpose is Purpose.BURN:
            self._burns.add((claim.since, claim.id))
        else:
            self._by_age[claim.urgency].add((claim.since, claim.id))
            self._in_order[claim.urgency].add(key)

    def _leave(self, claim: ClaimView) -> None:
        key = self._keys.pop(claim.id, None)
        if key is None:
            return
        if claim.purpose is Purpose.BURN:
            self._burns.remove((claim.since, claim.id))
        else:
            self._by_age[claim.urgency].remove((claim.since, claim.id))
            self._in_order[claim.urgency].remove(key)

    def _key(self, claim: ClaimView) -> Key:
        """Bulk: the carrier of which most is wanted; else who waits longest."""
        weight = self._weight[claim.cargo] if claim.urgency is RecallClass.BULK else 0
        return (-weight, claim.since, claim.id)

    def _weigh(self, cargo: int, but: int) -> None:
        """What is wanted of the carrier changed: its other claims move in their lists."""
        for number in self._of_cargo.get(cargo, ()):
            key = self._keys.get(number)
            claim = self._claims[number]
            if number == but or key is None or claim.purpose is Purpose.BURN:
                continue
            new = self._key(claim)
            if new != key:
                self._in_order[claim.urgency].remove(key)
                self._in_order[claim.urgency].add(new)
                self._keys[number] = new

    def ripen(self, now: float) -> float:
        """Let those in whose quiet time is over, not too many at once; when to go on."""
        for _ in range(RIPEN):
            if not self._unripe or self._unripe[0][0] > now:
                break
            _, number = heapq.heappop(self._unripe)
            claim = self._claims.get(number)
            if claim is not None and number not in self._keys:
                self._enter(claim, now)
        return max(now, self._unripe[0][0]) if self._unripe else math.inf

    # What the decision asks

    def claim(self, number: int) -> ClaimView:
        """A claim that waits."""
        return self._claims[number]

    def of(self, cargo: int | None) -> list[ClaimView]:
        """The claims on a carrier, ripe or not."""
        if cargo is None:
            return []
        return [self._claims[number] for number in self._of_cargo.get(cargo, ())]

    def wants(self, cargo: int) -> bool:
        """Somebody waits for something on the carrier."""
        return cargo in self._of_cargo

    def aged(self, now: float) -> Iterator[ClaimView]:
        """Those over their class's age limit, oldest first."""
        limits = [(self._by_age[u], self.rules.of(u).age_limit) for u in READS]
        limits.append((self._burns, self.rules.bulk.age_limit))
        lines = [_older(line, now - limit) for line, limit in limits]
        return (self._claims[number] for _, number in heapq.merge(*lines))

    def overdue(self, urgency: RecallClass, now: float) -> Iterator[ClaimView]:
        """Those of a class over its deadline, oldest first."""
        line = self._by_age[urgency]
        deadline = self.rules.of(urgency).deadline
        return (self._claims[number] for _, number in _older(line, now - deadline))

    def in_order(self, urgency: RecallClass) -> Iterator[ClaimView]:
        """Those of a class to read, as they are to be fetched."""
        return (self._claims[number] for _, _, number in self._in_order[urgency])

    def burns(self) -> Iterator[ClaimView]:
        """Those that want to burn, oldest first."""
        return (self._claims[number] for _, number in self._burns)

    def line(self, now: float) -> Iterator[ClaimView]:
        """All that wait, about as they are served if nothing more comes: to be played forward.

        The levels of decide.py one after the other; of what is owed the first of each class stands
        for its share, and what is not ripe yet comes last.
        """
        owed = (islice(self.overdue(u, now), 1) for u in (RecallClass.STANDARD, RecallClass.BULK))
        urgent = map(self.in_order, (RecallClass.INTERACTIVE, RecallClass.STANDARD))
        rest = (self.burns(), self.in_order(RecallClass.BULK), self.in_order(RecallClass.IDLE))
        ripe = chain(self.aged(now), *owed, *urgent, *rest)
        unripe = (claim for claim in self._claims.values() if claim.id not in self._keys)
        later = sorted(unripe, key=lambda c: (c.urgency, self.rules.ripe_at(c), c.id))
        return iter({claim.id: claim for claim in chain(ripe, later)}.values())

    def used(self, urgency: RecallClass, now: float) -> None:
        """Somebody asks for a drive, or is done with one."""
        if urgency is not RecallClass.IDLE:
            self._last_use = now

    @property
    def calm_at(self) -> float:
        """When idle reads may fill the last unit: what others want next mostly follows soon."""
        return self._last_use + self.rules.calm

    def interactive_comes(self, now: float) -> bool:
        """Interactive requests came of late, so one may come at any moment."""
        return now - self._last_interactive < self.rules.spare_for

    def decide(
        self,
        now: float,
        drives: Sequence[DriveView],
        *,
        arms: int,
        in_units: bool = True,
        pressure: float = 0.0,
        may_pair: Callable[[str, VolumeId], bool] = lambda serial, volume: True,
    ) -> Decision:
        """What to start now, best claim first; never a drive or a disc twice.

        arms: robot arms that are free; 0 also if the robot is in trouble. in_units: units may move
        discs of their magazines. pressure: see `Rules.burns`. may_pair: whether a disc may be tried
        in a drive.
        """
        return decide.decide(self, now, drives, arms, in_units, pressure, may_pair)


def _older(line: Ages, moment: float) -> Iterator[tuple[float, int]]:
    for since, number in line:
        if since > moment:
            return
        yield since, number
