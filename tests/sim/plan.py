"""What happens in a world, drawn from its seed before it begins.

A plan is a list of steps that do not depend on each other: each has a seed of its own. So a plan
can be shrunk by leaving steps out, and the rest does what it did.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

DAY = 86_400.0
YEAR = 365 * DAY


@dataclass(frozen=True, slots=True)
class Size:
    """How large the library is."""

    magazines: int = 12
    slots: int = 12
    drives: int = 3
    pool_kib: int = 1200
    scrub_days: int = 25
    drives_per_magazine: int = 0
    arms: int = 1
    stride_days: int = 3
    """Time passes in steps of up to so much while nothing is under way."""


SMALL = Size()
LARGE = Size(magazines=278, slots=12, drives=6, scrub_days=1500, stride_days=7)
"""The library of the 42U cabinet: 3,336 discs."""
WHOLE = Size(drives=4, drives_per_magazine=2)
"""Magazines move whole, to two units."""


@dataclass(frozen=True, slots=True)
class Step:
    """At `at` (seconds from the beginning) something of a kind happens, by its own seed."""

    at: float
    kind: str
    seed: int

    def __str__(self) -> str:
        return f"{self.at / DAY:.3f} d {self.kind} {self.seed}"


WORK = {
    "store": 10, "read": 10, "overwrite": 3, "delete": 2, "restore": 1, "retain": 1, "release": 3,
    "storm": 1, "refresh": 0.3, "vault": 0.5, "write_stub": 1,
}  # fmt: skip
FAULTS = {
    "bad_sectors": 2, "silent_rot": 2, "flaky_drive": 1, "dead_drive": 0.7, "hanging_drive": 0.3,
    "spoiled_burn": 1, "fragile_disc": 1, "jam": 1.5, "door": 0.7, "wrong_shelf": 1,
    "swapped_labels": 1, "unreadable_label": 0.3, "taken_out": 0.7, "full_pool": 1,
    "clock_jump": 1, "loaded_disks": 2, "lost_disc": 0.4, "weird_disc": 0.3,
}  # fmt: skip
DEATHS = {"kill": 5, "cut": 4, "restart": 1}
FAULTS_A_YEAR = 2.0
DEATHS_A_YEAR = 0.6


def make(seed: int, years: float, events: int) -> list[Step]:
    """A plan of about so many steps of work over the years, with faults and deaths among them."""
    rng = random.Random(f"plan {seed}")
    end = years * YEAR
    steps = [Step(0.0, "store", rng.getrandbits(32)), Step(1.0, "store", rng.getrandbits(32))]

    def draw(weights: dict[str, float], count: float) -> None:
        kinds = rng.choices(list(weights), list(weights.values()), k=round(count))
        steps.extend(Step(rng.uniform(0, end), kind, rng.getrandbits(32)) for kind in kinds)

    draw(WORK, events)
    share = max(events / 3 / years, FAULTS_A_YEAR) if years < 5 else FAULTS_A_YEAR
    draw(FAULTS, share * years)
    draw(DEATHS, max(events / 8, DEATHS_A_YEAR * years))
    _cluster(rng, steps)
    steps.append(Step(end, "check", 0))
    return sorted(steps, key=lambda step: step.at)


def _cluster(rng: random.Random, steps: list[Step]) -> None:
    """Deaths and faults mostly come while something is being done."""
    busy = [step.at for step in steps if step.kind in WORK]
    for number, step in enumerate(steps):
        if step.kind in DEATHS or (step.kind in FAULTS and rng.random() < 0.6):
            steps[number] = replace(step, at=max(2.0, rng.choice(busy) - rng.uniform(0, 2.0)))
