"""A world from its beginning to its end: one process after the other, each a life of the daemon.

A life is a fork of this process, so all lives begin alike; what it leaves is in a file.
"""

from __future__ import annotations

import gc
import hashlib
import logging
import os
import pickle
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import trio
import trio.testing

from hsmfs import limits
from hsmfs.engine import (
    backlog,
    backpressure,
    burst,
    demote,
    housekeeping,
    policies,
    refresh,
    release,
    renew,
    waiters,
)
from hsmfs.engine.guard import guard
from hsmfs.engine.trust import trust

from . import machine, plan
from .disks import Disks
from .faults import FAULTS
from .life import LIFE, Life, fail, leave
from .mutants import MUTANTS
from .plan import Size, Step
from .users import WORK
from .world import World

ACTS = WORK | FAULTS
LIVES = 400
"""More lives than this are a daemon that dies at its start, again and again."""
CALM = {
    (guard, "SAVE_SECONDS"): 6 * 3600.0, (trust, "TICK"): 6 * 3600.0,
    (trust, "SAVE"): 3600.0, (renew, "LOOK"): 60.0,
    (waiters, "POLL_SECONDS"): 3600.0, (release, "LOOK"): 3600.0, (demote, "LOOK"): 6 * 3600.0,
    (policies, "LOOK"): 6 * 3600.0, (housekeeping, "TRASH_LOOK"): 3600.0,
    (housekeeping, "USAGE_LOOK"): 3600.0, (refresh, "LOOK"): 4 * 3600.0,
    (burst, "LOOK"): 6 * 3600.0, (backpressure, "LOOK"): 900.0,
}  # fmt: skip
"""Looks that come every few seconds are rarer here: thirty years have 950 million seconds."""
FEW = {(limits, "RECALL_JOBS"): 8, (backlog, "BLOCK"): 2}
"""Bounds that a few files reach."""


@dataclass
class Verdict:
    """What became of a seed."""

    seed: int
    failure: str
    trace: str
    years: float
    lives: int
    counts: Counter[str]
    waits: list[float]
    reached: set[str]
    log: list[str]
    seconds: float
    steps: list[Step] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not self.failure


def scratch() -> Path:
    """A folder in memory, if there is one: what is durable is the simulation's affair."""
    shm = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="hsmfs-sim-", dir=shm if shm.is_dir() else None))


def simulate(
    seed: int,
    *,
    years: float = 0.5,
    events: int = 30,
    size: Size = plan.SMALL,
    steps: list[Step] | None = None,
    mutant: str = "",
) -> Verdict:
    """Run a seed to its end. steps: of the plan, those to be carried out; None: all."""
    began = machine.REAL_MONOTONIC()
    root = scratch()
    try:
        steps = plan.make(seed, years, events) if steps is None else steps
        world = World(seed, root, size, steps, mutant=mutant)
        while not world.failure and (world.lives == 0 or not world.state.get("over")):
            if world.lives > LIVES:
                world.failure = "the daemon dies again and again"
                break
            world = _next_life(world)
        return Verdict(
            seed, world.failure, world.trace, world.now / plan.YEAR, world.lives, world.counts,
            world.waits, world.reached, world.log, machine.REAL_MONOTONIC() - began, steps,
        )  # fmt: skip
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _next_life(world: World) -> World:
    path = world.root / LIFE
    path.unlink(missing_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        _child(world)
    _, status = os.waitpid(child, 0)
    if not path.exists():
        world.failure = f"the process of life {world.lives} ended by itself: status {status}"
        return world
    with path.open("rb") as file:
        left: World = pickle.load(file)
    return left


def _child(world: World) -> None:
    """The process of one life; it never returns."""
    gc.freeze()  # what it begins with stays, and need not be looked at again and again
    try:
        _live(world)
    except BaseException as fault:
        fail(world, fault)
    finally:
        try:
            leave(world)
        finally:
            os._exit(1)


def _live(world: World) -> None:
    logging.getLogger().setLevel(logging.CRITICAL + 1)
    warnings.simplefilter("ignore")
    for (module, name), value in (CALM | FEW).items():
        setattr(module, name, value)
    digest = hashlib.sha256(f"{world.seed} {world.lives} {world.at_step}".encode()).digest()
    made = machine.install(int.from_bytes(digest[:8], "big"))
    if world.mutant:
        MUTANTS[world.mutant].plant()
    ends = [step.kind for step in world.steps[world.at_step :]]
    end = next((kind for kind in ends if kind in plan.DEATHS), "")
    world.cut_ahead = end == "cut"
    mock = trio.testing.MockClock()
    life = Life(world, made, mock)
    if world.cut_ahead:
        life.disks = Disks(world.root)
        life.disks.install()
    trio.run(life.live, ACTS, clock=mock)
    world.state["over"] = world.at_step >= len(world.steps)

