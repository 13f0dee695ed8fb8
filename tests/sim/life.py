"""One life of the daemon: steps of the plan, time that passes, and its end.

Time is trio's MockClock, moved here and nowhere else. While anything is under way it goes from
deadline to deadline, so that all happens in its order; while nothing is, in strides (plan.Size), as
a machine that was suspended sees it. A death is the death of the process: `die` writes the world
down and ends it without a word to anyone, at a crash point or between any two steps of the event
loop.
"""

from __future__ import annotations

import errno
import os
import pickle
import random
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio
import trio.testing

from hsmfs import crash
from hsmfs.engine import files
from hsmfs.engine.events import Event
from hsmfs.errors import Conflict, HsmError

from . import checks, truth
from .faults import age
from .machine import Machine
from .operator import Operator
from .world import DAY, Failure, Site, World

PATIENCE = 25 * DAY
"""After so long nothing may be under way any more: operators come within days."""
LIFE = "world.pickle"
Act = Callable[["Life"], Awaitable[None]]


class Doom(trio.abc.Instrument):
    """Ends the process at the n-th passage of a crash point, before the n-th step of a task, or
    right after the n-th promise to a user."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._steps = self.points = self.promises = 0
        """How many are left; 0: never."""

    def after_steps(self, steps: int) -> None:
        """Only from now on steps are counted: thirty years have half a million."""
        self._steps = steps
        trio.lowlevel.add_instrument(self)

    def never(self) -> None:
        """What is over is not ended by a death."""
        if self._steps:
            trio.lowlevel.remove_instrument(self)
        self._steps = self.points = self.promises = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps -= 1
        if not self._steps:
            self._life.die("between two steps")

    def point(self, name: str) -> None:
        if self.points:
            self.points -= 1
            if not self.points:
                self._life.die(name)

    def promise(self) -> None:
        """A call that changed a file, or an fsync, came back to its user."""
        if self.promises:
            self.promises -= 1
            if not self.promises:
                self._life.die("after a promise")


class Life(Site):
    """A site with users, faults, an operator, and time.

    Attributes:
        busy: an act goes on, so time must not be skipped.
    """

    def __init__(self, world: World, machine: Machine, mock: trio.testing.MockClock) -> None:
        super().__init__(world, machine, mock)
        self.busy = 0
        self.doom = Doom(self)
        self.nursery: trio.Nursery
        self.operator = Operator(self)
        self.disks: Any = None
        self._targets: list[float] = []
        self.full_writes = 0
        """So many writes to the pool find no room."""

    # Time

    @property
    def idle(self) -> bool:
        """Nothing is under way in the engine."""
        engine = self.engine
        return not (
            self.busy
            or engine.mounts._claims
            or engine.recaller._jobs
            or len(engine.recaller._backlog)
            or engine.migrator._active
            or engine.robot.moving
            or engine.mounts.robot_care.trouble
            or any(bay.busy or bay.emptying for bay in engine.mounts._bays.values() if bay.up)
        )

    async def pump(self) -> None:
        """Move the clock whenever nothing can run.

        A failure ends the process here: without the pump, who waits shielded would do so for ever.
        """
        try:
            await self._pump()
        except Failure as fault:
            fail(self.world, fault)
            leave(self.world)

    async def _pump(self) -> None:
        stride = self.world.size.stride_days * DAY
        while True:
            await trio.testing.wait_all_tasks_blocked()
            wait = trio.lowlevel.current_statistics().seconds_to_next_deadline
            if self.idle:
                ahead = min([*self._targets, *self.operator.times], default=float("inf"))
                wait = max(wait, min(stride, ahead - trio.current_time()))
            if wait == float("inf"):
                raise Failure("nothing can ever happen any more")
            self.clock.jump(max(wait, 0.0))
            self.tick()
            truth.always(self)

    async def until(self, at: float) -> None:
        self._targets.append(at)
        await trio.sleep_until(at)
        self._targets.remove(at)
        self.tick()

    async def pause(self, seconds: float) -> None:
        """An act waits, and time may be skipped meanwhile."""
        self.busy -= 1
        await self.until(trio.current_time() + seconds)
        self.busy += 1

    async def settle(self) -> None:
        """Return when nothing is under way and the operator has repaired what he can."""
        began = trio.current_time()
        while not self.idle or self.operator.wanted:
            if trio.current_time() > began + PATIENCE:
                days = PATIENCE / DAY
                raise Failure(f"still under way after {days:.0f} days: {self.under_way()}")
            await self.until(trio.current_time() + (DAY if self.idle else 1800.0))

    def fill_pool(self) -> None:
        """Writes find no room as long as `full_writes` says."""
        real = files.append_all

        def append_all(fd: int, data: bytes, offset: int, size: int) -> None:
            if self.full_writes:
                self.full_writes -= 1
                raise OSError(errno.ENOSPC, "no space left on device")
            real(fd, data, offset, size)

        files.append_all = append_all

    def heard(self, event: Event) -> None:
        """A release is judged at once; a drive that was taken down is looked at by somebody."""
        if event.kind == "released":
            truth.released(self, event.fields["ino"])
        elif event.kind == "drive_down":
            self.operator.later(random.Random(event.seq), "look_at_drives")

    def under_way(self) -> str:
        """What keeps it from being idle."""
        engine = self.engine
        status = engine.mounts.status()
        drives = [d for d in status["drives"] if not d["up"] or d["busy"] or d["for"]]
        jobs = [(job.ino, job.volume, job.ended) for job in engine.recaller._jobs.values()]
        return (
            f"claims {status['claims'][:3]}, recalls {jobs[:5]}, batches"
            f" {engine.migrator._active}, robot {status['robot']}, drives {drives},"
            f" repairs {self.operator.wanted}"
        )

    # The end

    def die(self, where: str) -> None:
        """kill -9, or a power cut if that is what this life was to end by."""
        world = self.world
        self.tick()
        world.died = "cut" if world.cut_ahead else "kill"
        world.counts[f"died by {world.died}"] += 1
        world.reached.add(where)
        world.note(f"dies by {world.died} at {where}")
        if self.disks is not None:
            self.disks.cut(self.machine.rng)
        leave(world)

    # The plan

    async def live(self, acts: dict[str, Callable[[Life, Any], Awaitable[None]]]) -> None:
        """From the start to the end of the plan, a restart, or a death."""
        world = self.world
        self.clock.jump(world.now - trio.current_time())
        world.lives += 1
        self.fill_pool()
        crash.point, before = self.doom.point, crash.point
        try:
            async with trio.open_nursery() as self.nursery:
                self.busy += 1
                self.nursery.start_soon(self.pump)
                async with self.running():
                    self.busy -= 1
                    self.nursery.start_soon(self.operator.run)
                    await self._live(acts)
                    self.operator.stop()
                    self.busy += 1
                self.doom.never()
                self.nursery.cancel_scope.cancel()
        finally:
            crash.point = before
        self.tick()

    async def _live(self, acts: dict[str, Callable[[Life, Any], Awaitable[None]]]) -> None:
        world = self.world
        await checks.catalog_is_sound(self, slow=True)
        if world.died:
            died, world.died = world.died, ""
            self.busy += 1
            await checks.after_death(self, died)
            self.busy -= 1
        while world.at_step < len(world.steps):
            step = world.steps[world.at_step]
            await self.until(step.at)
            world.at_step += 1
            world.note(f"step {step.kind}")
            world.counts[f"step {step.kind}"] += 1
            if step.kind == "restart":
                return
            self.busy += 1
            await acts[step.kind](self, step)
            self.busy -= 1
            age(self)
            await self.settle()
            await checks.quick(self)
        await checks.whole(self)


def leave(world: World) -> None:
    """Write the world down and end this process."""
    path = Path(world.root) / LIFE
    with path.open("wb") as out:
        pickle.dump(world, out)
    os._exit(0)


def fail(world: World, fault: BaseException) -> None:
    """What went wrong, into the world."""
    causes = _causes(fault)
    world.failure = "; ".join(f"{type(c).__name__}: {c}" for c in causes)[:2000]
    world.log += "".join(traceback.format_exception(causes[0])).splitlines()[-60:]


def _causes(fault: BaseException) -> list[BaseException]:
    if isinstance(fault, BaseExceptionGroup):
        return [cause for inner in fault.exceptions for cause in _causes(inner)]
    return [fault]


async def tolerant(act: Awaitable[Any]) -> HsmError | None:
    """What an order was refused with, if it was."""
    try:
        await act
    except Conflict as fault:
        return fault
    return None
