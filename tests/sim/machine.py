"""One machine whose every choice follows from a seed: threads, time, identities, task order.

Real code runs unchanged; what it asks of the system is answered here. A job for a thread runs as a
greenlet on the loop's own thread, where a seeded number of other steps came first, so that nothing
depends on the operating system's scheduler. trio's order of runnable tasks is drawn from the seed.
`install` is for good: use it in a process of its own.
"""

from __future__ import annotations

import itertools
import os
import random
import secrets
import time
import uuid
from collections.abc import Callable, MutableSequence, Sequence
from pathlib import Path
from typing import Any

import trio
from greenlet import getcurrent, greenlet

from hsmfs import clock, durable, pressure
from hsmfs.catalog import redo
from hsmfs.disc import image, parity_image
from hsmfs.disc.manifest import AUDIT, CATALOG, MANIFEST, PARITY, README, SUMS, VOLUME
from hsmfs.pool import examine, store
from hsmfs.types import InodeNo

REAL_MONOTONIC = time.monotonic
TICK_NS = 200_000
"""How far the processor's clocks move at each look: a batch of 10 ms ends after 50 of them."""
OWN = tuple(
    f"/{name}" for name in ("files", AUDIT, CATALOG, MANIFEST, PARITY, README, SUMS, VOLUME)
)
REDO_BYTES = 96 * 1024
"""A small redo log, so that it is full now and then."""


class Machine:
    """What `install` draws from; `steps` counts the steps of all tasks since the start."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.ticks = itertools.count(1)
        self.busy = False
        """Whether the disks seem loaded: commits then go the way of a thread."""


class _Call:
    """What a job in a thread asks of the loop."""

    def __init__(self, f: Callable[..., Any], *args: Any) -> None:
        self.f, self.args = f, args


async def _run_sync(f: Callable[..., Any], *args: Any, **_: Any) -> Any:
    """Stands for trio.to_thread.run_sync."""
    await trio.lowlevel.checkpoint()
    for _ in range(_machine.rng.randrange(3)):
        await _others()
    job = greenlet(f)
    found = job.switch(*args)
    while not job.dead:
        try:
            value = await found.f(*found.args)
        except BaseException as fault:
            found = job.throw(fault)
        else:
            found = job.switch(value)
    await _others()
    return found


async def _others() -> None:
    """All others that can run take a step; mostly there are none, and a turn of the loop costs."""
    run = trio._core._run
    if run._r.batch or run.GLOBAL_RUN_CONTEXT.runner.runq:  # type: ignore[attr-defined]
        await trio.lowlevel.cancel_shielded_checkpoint()


class _Order(random.Random):
    """The order of tasks in each turn of trio's loop; batch: those of this turn still to run."""

    batch: Sequence[object] = ()

    def shuffle(self, batch: MutableSequence[Any]) -> None:
        super().shuffle(batch)
        self.batch = batch


async def _flushed(fd: int, *, data_only: bool = False) -> None:
    """Stands for durable.flushed, which asks the kernel."""
    await _run_sync(lambda: (os.fdatasync if data_only else os.fsync)(fd))


def _from_thread(f: Callable[..., Any], *args: Any, **_: Any) -> Any:
    return getcurrent().parent.switch(_Call(f, *args))


def _check_cancelled() -> None:
    getcurrent().parent.switch(_Call(trio.lowlevel.checkpoint_if_cancelled))


def _dated(change: Callable[..., Any]) -> Callable[..., Any]:
    """Who changes a file dates it, as the kernel does: after a crash its inode gets that time."""

    def dated(fd: int, *args: Any) -> Any:
        done = change(fd, *args)
        os.utime(fd, ns=(clock.now_ns(),) * 2)
        return done

    return dated


def _born_dated(self: store.Pool, ino: InodeNo, *, create: bool) -> int:
    """Stands for Pool._open: a file that is made has the date of now, too."""
    there = os.path.exists(self.path_of(ino))
    fd = _open(self, ino, create=create)
    if not there:
        os.utime(fd, ns=(clock.now_ns(),) * 2)
    return fd


def _xorriso(words: list[str], *given: Any) -> list[str]:
    """Stands for run_xorriso: the image has nothing of this machine, be it inode numbers of the
    files that it is made of, or the time when the disc's own files and folders were made."""
    words[words.index("-hardlinks") + 1] = "off"
    script = Path(words[words.index("-options_from_file") + 1])
    known = script.read_text(encoding="utf-8", errors="surrogateescape")
    with script.open("a", encoding="ascii") as out:
        for path in OWN:
            if path in known:
                out.write(f"-alter_date b-c ={clock.now_ns() // 10**9} {path} --\n")
    return _run_xorriso(words, *given)


_run_xorriso = image.run_xorriso
_open = store.Pool._open
_machine = Machine(0)


def install(seed: int) -> Machine:
    """Give this process over to the seed."""
    global _machine
    machine = _machine = Machine(seed)
    run = trio._core._run
    run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[attr-defined]
    run._r = _Order(seed)
    trio.to_thread.run_sync = _run_sync  # type: ignore[assignment]
    trio.from_thread.run = _from_thread  # type: ignore[assignment]
    trio.from_thread.check_cancelled = _check_cancelled
    durable.flushed = _flushed
    clock.Beside.do = lambda self, job: job()  # type: ignore[method-assign,assignment]

    def monotonic_ns() -> int:
        return next(machine.ticks) * TICK_NS

    time.monotonic_ns = time.perf_counter_ns = monotonic_ns
    time.monotonic = lambda: monotonic_ns() / 1e9
    uuid.uuid4 = lambda: uuid.UUID(int=machine.rng.getrandbits(128), version=4)
    secrets.randbelow = machine.rng.randrange
    os.getpid = lambda: 4711
    os.pwrite, os.ftruncate = _dated(os.pwrite), _dated(os.ftruncate)
    store.punch_hole = examine.punch_hole = _dated(store.punch_hole)
    store.Pool._open = _born_dated  # type: ignore[method-assign]
    image.run_xorriso = parity_image.run_xorriso = _xorriso
    redo.SIZE = REDO_BYTES
    pressure.DISK.busy = lambda: machine.busy  # type: ignore[method-assign]
    pressure.WritePressure.may_block = (  # type: ignore[method-assign]
        lambda self, size: machine.busy
    )
    # Images bear no other dates than the files'.
    os.environ["SOURCE_DATE_EPOCH"] = "1900000000"
    return machine
