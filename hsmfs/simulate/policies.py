"""What is compared: hsmfs's own rules, and two simple ones as a yardstick."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from sortedcontainers import SortedList

from ..catalog.queues import RecallClass
from ..engine.schedule import (
    Action,
    Assign,
    Board,
    ClaimView,
    ClassRule,
    Decision,
    DriveView,
    PutAway,
    Rules,
)


class Policy(Protocol):
    """See `engine.schedule.Board`, whose calls these are."""

    def put(self, claim: ClaimView, now: float) -> bool: ...

    def drop(self, number: int) -> None: ...

    def decide(
        self, now: float, drives: Sequence[DriveView], *, arms: int, pressure: float = 0.0
    ) -> Decision: ...


class Fifo:
    """Each free drive takes the request that waits longest, whatever that costs.

    The drive is taken even while the robot is busy, so no later request overtakes.
    """

    def __init__(self) -> None:
        self._claims: dict[int, ClaimView] = {}
        self._line: SortedList[tuple[float, int]] = SortedList()

    def put(self, claim: ClaimView, now: float) -> bool:
        new = claim.id not in self._claims
        if new:
            self._line.add((claim.since, claim.id))
        self._claims[claim.id] = claim
        return new

    def drop(self, number: int) -> None:
        claim = self._claims.pop(number, None)
        if claim is not None:
            self._line.remove((claim.since, claim.id))

    def decide(
        self, now: float, drives: Sequence[DriveView], *, arms: int, pressure: float = 0.0
    ) -> Decision:
        free = {d.serial: d for d in drives if d.up and not d.busy}
        busy = {d.group for d in drives if d.busy}
        holder = {d.carrier: d.group for d in drives if d.carrier is not None}
        inside = {d.volume for d in drives if d.volume is not None}
        actions: list[Action] = []
        budget = len(free)
        for _, number in self._line:
            if budget <= 0:
                break
            claim = self._claims[number]
            unit = holder.get(claim.cargo)
            if unit is not None:
                near = [d for d in free.values() if d.group == unit]
                here = next((d for d in near if d.volume == claim.volume), None)
                if here is None and claim.volume in inside:
                    continue  # it waits for that drive
                if here is not None or near:
                    drive = here or min(near, key=lambda d: (d.volume is not None, d.idle_since))
                    del free[drive.serial]
                    actions.append(Assign(number, drive.serial))
                    inside.add(claim.volume)
                    busy.add(unit)
                    budget -= 1
                continue
            budget -= 1
            idle = [d for d in free.values() if d.group not in busy]
            if arms <= 0 or not idle:
                continue
            drive = min(idle, key=lambda d: (d.holds, d.idle_since, d.serial))
            free = {s: d for s, d in free.items() if d.group != drive.group}
            busy.add(drive.group)
            arms -= 1
            holder[claim.cargo] = drive.group
            actions.append(PutAway(drive.serial) if drive.holds else Assign(number, drive.serial))
        return Decision(actions)


class Largest:
    """The carrier of which most bytes are wanted, read to its end; one class for all."""

    RULES = Rules(
        run_cap=math.inf, bulk=ClassRule(), quiet_limit=0.0, interactive=ClassRule(),
        standard=ClassRule(),
    )  # fmt: skip

    def __init__(self) -> None:
        self._board = Board(self.RULES)
        self.drop = self._board.drop
        self.decide = self._board.decide

    def put(self, claim: ClaimView, now: float) -> bool:
        return self._board.put(replace(claim, urgency=RecallClass.BULK), now)


POLICIES: dict[str, Callable[[Rules], Policy]] = {
    "fifo": lambda rules: Fifo(),
    "largest": lambda rules: Largest(),
    "hsmfs": Board,
}
