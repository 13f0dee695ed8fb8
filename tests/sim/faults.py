"""What goes wrong, by the plan; operator.py mends it. docs/simulation.md gives the sources."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import trio

from hsmfs import clock
from hsmfs.catalog.queues import RecallClass
from hsmfs.errors import HsmError
from hsmfs.library.ports import DiscStatus, ElementKind
from hsmfs.states import FileState
from hsmfs.types import SECTOR, InodeNo

from .library import Disc, Shelves
from .plan import Step
from .truth import disc_of
from .world import DAY, YEAR

if TYPE_CHECKING:
    from .life import Life

MEDIAN_YEARS = 40.0
SIGMA = 0.7
"""The lognormal distribution of the years until a disc's first sectors do not read."""
STEPS = 20_000
POINTS = 150
PROMISES = 12
"""A death comes after up to so many steps of tasks, crash points, or promises."""


def _shelves(life: Life) -> Shelves:
    shelves = life.world.shelves
    assert shelves is not None
    return shelves


def _burned(life: Life, rng: random.Random) -> Disc | None:
    """A disc with files, by chance."""
    discs = [d for d in _shelves(life).all_discs() if d.status is DiscStatus.CLOSED]
    return rng.choice(discs) if discs else None


def age(life: Life) -> None:
    """Discs that are due decay: a run of sectors does not read any more, at times silently."""
    shelves, now = _shelves(life), trio.current_time()
    for disc in shelves.all_discs():
        if disc.status is not DiscStatus.CLOSED:
            continue
        rng = random.Random(f"{life.world.seed} {disc.name}")
        if disc.fails_at == float("inf"):
            years = MEDIAN_YEARS * rng.lognormvariate(0.0, SIGMA)
            disc.fails_at = disc.burned_at + years * YEAR
        if disc.fails_at <= now and not disc.bad:
            life.world.note(f"disc {disc.name} decays")
            life.world.counts["discs decayed"] += 1
            _scratch(life, disc, rng)


def _spot(life: Life, disc: Disc, rng: random.Random) -> int:
    """A sector of the disc, mostly one with bytes of a file."""
    volume = life.catalog.volumes.by_barcode(disc.name)
    laid = life.catalog.copies.laid(volume.id, 0, 1000) if volume is not None else []
    if laid and rng.random() < 0.8:
        where = rng.choice(laid).where
        return where.sector + rng.randrange(-(-where.stored // SECTOR))
    return rng.randrange(disc.written // SECTOR)


def _scratch(life: Life, disc: Disc, rng: random.Random) -> None:
    sectors, at = disc.written // SECTOR, _spot(life, disc, rng)
    disc.bad_since = min(disc.bad_since, trio.current_time())
    disc.bad.update(range(at, min(sectors, at + rng.choice((1, 4, 32)))))


async def bad_sectors(life: Life, step: Step) -> None:
    rng = random.Random(step.seed)
    disc = _burned(life, rng)
    if disc is not None:
        _scratch(life, disc, rng)


async def silent_rot(life: Life, step: Step) -> None:
    """A sector reads without an error, but wrong; mostly one of a file that is wanted just then."""
    rng = random.Random(step.seed)
    disc, at = _next_read(life, rng) if rng.random() < 0.7 else (None, 0)
    if disc is None and (disc := _burned(life, rng)) is not None:
        at = _spot(life, disc, rng)
    if disc is not None:
        disc.wrong.add(at)
        await _want(life, disc.name, at)


def _next_read(life: Life, rng: random.Random) -> tuple[Disc | None, int]:
    """A disc and a sector on it that a recall of some stub would read, behind the stub's head."""
    attrs = map(life.engine.files.attr, (InodeNo(f.ino) for f in life.world.files.values()))
    stubs = [attr for attr in attrs if attr is not None and attr.state == FileState.MIGRATED]
    if not stubs:
        return None, 0
    attr = rng.choice(stubs)
    loaded = {d.name for at in _shelves(life).drives if (d := _shelves(life).places.get(at))}
    found = []
    for copy in life.catalog.copies.readable(attr.ino, attr.base_version):
        volume = life.catalog.volumes.get(copy.where.volume)
        disc = disc_of(life, volume.barcode) if volume is not None else None
        if disc is not None and disc.sound:
            found.append((disc.name not in loaded, copy.copy_no, copy.where, disc))
    if not found:
        return None, 0
    _, _, where, disc = min(found, key=lambda one: one[:2])
    last = max(0, -(-where.stored // SECTOR) - 1)
    return disc, where.sector + rng.randint(min(2, last), last)


async def flaky_drive(life: Life, step: Step) -> None:
    rng = random.Random(step.seed)
    for address in rng.sample(list(_shelves(life).drives), 2):
        _shelves(life).drives[address].flaky = rng.randrange(1, 4)


async def dead_drive(life: Life, step: Step) -> None:
    rng = random.Random(step.seed)
    address = rng.choice(list(_shelves(life).drives))
    _shelves(life).drives[address].dead = True
    life.operator.later(rng, "mend_drive", address, 20 * DAY)


async def hanging_drive(life: Life, step: Step) -> None:
    rng = random.Random(step.seed)
    address = rng.choice(list(_shelves(life).drives))
    _shelves(life).drives[address].hangs = True
    life.operator.later(rng, "mend_drive", address)


async def spoiled_burn(life: Life, step: Step) -> None:
    rng = random.Random(step.seed)
    _shelves(life).drives[rng.choice(list(_shelves(life).drives))].spoils = 1


async def fragile_disc(life: Life, step: Step) -> None:
    """The next blanks take what is burned, and do not keep it."""
    rng = random.Random(step.seed)
    blanks = [d for d in _shelves(life).places.values() if d.status is DiscStatus.BLANK]
    for disc in [*blanks[:2], *blanks[-2:], *rng.sample(blanks, min(len(blanks), 4))]:
        disc.fragile = True


async def weird_disc(life: Life, step: Step) -> None:
    """Blanks that are not blank any more, though their labels are new."""
    rng = random.Random(step.seed)
    blanks = [d for d in _shelves(life).places.values() if d.status is DiscStatus.BLANK]
    for disc in [*blanks[:1], *rng.sample(blanks, min(len(blanks), 2))]:
        disc.status = DiscStatus.INCOMPLETE


async def jam(life: Life, step: Step) -> None:
    rng = random.Random(step.seed)
    _shelves(life).jams = rng.choice((1, 1, 3, 50))
    _shelves(life).jam_keeps = rng.random() < 0.5
    life.operator.later(rng, "mend_robot")


async def door(life: Life, step: Step) -> None:
    rng = random.Random(step.seed)
    _shelves(life).door_open = True
    life.operator.later(rng, "close_door", within=0.5 * DAY)


def _in_slots(life: Life) -> list[int]:
    return [
        e.address for e in _shelves(life).elements
        if e.kind is ElementKind.STORAGE and e.address in _shelves(life).places
    ]  # fmt: skip


def _some_discs(life: Life, rng: random.Random, count: int) -> list[int]:
    """Slots, those of burned discs first."""
    slots = _in_slots(life)
    burned = [at for at in slots if _is_burned(life, at)]
    pool = burned if len(burned) >= count else slots
    return rng.sample(pool, min(count, len(pool)))


def _is_burned(life: Life, at: int) -> bool:
    return _shelves(life).places[at].status is DiscStatus.CLOSED


async def wrong_shelf(life: Life, step: Step) -> None:
    """Somebody opens the library and puts discs back into each other's slots."""
    rng = random.Random(step.seed)
    places, slots = _shelves(life).places, _some_discs(life, rng, rng.choice((2, 3)))
    discs = [places[at] for at in slots]
    for at, disc in zip(slots, [*discs[1:], *discs[:1]], strict=True):
        places[at] = disc
    life.operator.later(rng, "inventory")


async def swapped_labels(life: Life, step: Step) -> None:
    """Two discs bear each other's labels, until somebody sees it."""
    rng = random.Random(step.seed)
    slots = [at for at in _some_discs(life, rng, 2) if _is_burned(life, at)]
    if len(slots) == 2:  # a blank disc is whatever its label says
        one, two = (_shelves(life).places[at] for at in slots)
        one.label, two.label = two.label, one.label
        true = {one.name: one.name, two.name: two.name}
        life.operator.later(rng, "label", true, 10 * DAY)
        await _look_and_read(life, [one.name, two.name])


async def _look_and_read(life: Life, names: list[str]) -> None:
    """The robot looks at the labels, and files are wanted from these discs."""
    try:
        await life.engine.mounts.inventory.sync(rescan=True)
    except HsmError:
        return
    for name in names:
        await _want(life, name)


async def _want(life: Life, name: str, sector: int = 0) -> None:
    """Files are wanted that lie on a disc, from a sector on."""
    volume = life.catalog.volumes.by_barcode(name)
    for copy in life.catalog.copies.laid(volume.id, sector, 5) if volume is not None else []:
        if life.engine.files.attr(copy.ino) is not None:
            await life.engine.recaller.request(copy.ino, RecallClass.BULK, "hsmctl")


async def unreadable_label(life: Life, step: Step) -> None:
    rng = random.Random(step.seed)
    for at in _some_discs(life, rng, 1):
        disc = _shelves(life).places[at]
        disc.label = None
        life.operator.later(rng, "label", {disc.name: disc.name}, 10 * DAY)


async def taken_out(life: Life, step: Step) -> None:
    """A disc lies on somebody's desk for some days."""
    rng = random.Random(step.seed)
    for at in _some_discs(life, rng, 1):
        disc = _shelves(life).places.pop(at)
        _shelves(life).outside[disc.name] = disc
        life.operator.later(rng, "put_back", disc.name, 10 * DAY)


async def lost_disc(life: Life, step: Step) -> None:
    """A disc is destroyed."""
    rng = random.Random(step.seed)
    for at in _some_discs(life, rng, 1):
        disc = _shelves(life).places.pop(at)
        _shelves(life).outside[disc.name] = disc
        life.world.state.setdefault("destroyed", []).append(disc.name)
        life.operator.later(rng, "inventory")


async def full_pool(life: Life, step: Step) -> None:
    life.full_writes = random.Random(step.seed).randrange(1, 20)


async def clock_jump(life: Life, step: Step) -> None:
    """Somebody sets the wall clock; it is right again after the next jump, or never."""
    rng = random.Random(step.seed)
    life.tick()
    life.world.wall_ns += int(rng.uniform(-2, 2) * YEAR * 1e9)
    life.set_clocks()
    life.world.note(f"wall clock {clock.now_ns()}")
    await life.engine.trust.look()


async def loaded_disks(life: Life, step: Step) -> None:
    """The disks are busy, so commits and opens go the way of threads; or they are not any more."""
    life.machine.busy = random.Random(step.seed).random() < 0.6


async def kill(life: Life, step: Step) -> None:
    """The process dies after one of the next promises to a user, at one of the next crash points,
    or between two steps of the loop."""
    rng = random.Random(step.seed)
    chance = rng.random()
    if chance < 0.4:
        life.doom.promises = rng.randrange(1, PROMISES)
    elif chance < 0.75:
        life.doom.points = 1 + int(POINTS * rng.random() ** 3)
    else:
        life.doom.after_steps(1 + int(STEPS * rng.random() ** 3))


async def check(life: Life, step: Step) -> None:
    """The end of the plan."""


FAULTS = {
    f.__name__: f
    for f in (
        bad_sectors, silent_rot, flaky_drive, dead_drive, hanging_drive, spoiled_burn, fragile_disc,
        weird_disc, jam, door, wrong_shelf, swapped_labels, unreadable_label, taken_out, lost_disc,
        full_pool, clock_jump, loaded_disks, kill, check,
    )
} | {"cut": kill}  # fmt: skip
