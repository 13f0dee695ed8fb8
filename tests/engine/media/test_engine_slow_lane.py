"""Recalls of a storm: few discs an hour, after everybody else, and gone when nobody waits."""

import os

import pytest
import trio

from hsmfs.engine.guard import Mode
from hsmfs.errors import PosixError
from hsmfs.library.simulated.faults import Fault, FaultKind
from hsmfs.types import Requester

DISCS = [f"S0001D{number:02}" for number in range(1, 6)]
RULES = """
[[rule]]
name = "storm"
process = ["scan", "nfsd"]
rate = "3 in 10 s"
outcome = "slow"

[[rule]]
name = "off"
process = ["never"]
outcome = "eacces"
"""
SCAN = Requester(os.getpid(), 5, 5, "scan")


@pytest.fixture
async def storm(make_rig, chunky):
    """A file on each of five discs, one drive, and a slow lane that lets one disc an hour in."""
    rig = make_rig(drives=1, recall_drives=0)
    rig.config = rig.config.model_copy(
        update={"guard": rig.config.guard.model_copy(update={"slow_discs": 1})}
    )
    await rig.start()
    await rig.guard.set_mode(Mode.ON)
    await rig.guard.set_rules(RULES)
    rig.inos = [await rig.stub(chunky, barcode) for barcode in DISCS]
    rig.came = []
    yield rig
    await rig.stop()


def read(rig, nursery, ino, who=SCAN):
    async def reader():
        await rig.read(ino, 0, 100, who)
        rig.came.append(ino)

    nursery.start_soon(reader)


def views(rig):
    return {view.ino: view for view in rig.recaller.waiters()}


def loads(rig):
    rows = rig.catalog.db.execute("SELECT count(*) FROM pairs WHERE loads > 0").fetchall()
    return rows[0][0]


@pytest.mark.expect_log("robot in trouble")
async def test_a_storm_gets_one_disc_an_hour_and_a_person_all(storm, nursery):
    rig = storm
    rig.library.faults.add(Fault(FaultKind.DOOR_OPEN))
    await rig.serve(nursery)
    for ino in rig.inos[:4]:
        read(rig, nursery, ino)
    await rig.until(lambda: len(rig.recaller.waiters()) == 4)
    await rig.until(lambda: all(view.slow for view in views(rig).values()))
    assert rig.catalog.queues.recalls() == [], "what a storm wants outlives no restart"
    rig.library.faults.clear()
    rig.mounts._poke()
    await rig.until(lambda: len(rig.came) == 1)
    await rig.until(lambda: {v.state for v in views(rig).values()} == {"slow lane"})
    assert sorted(v.discs_ahead for v in views(rig).values()) == [0, 1, 2]
    assert loads(rig) == 1
    person = Requester(os.getpid(), 1, 1, "cat")
    await rig.read(rig.inos[4], 0, 100, person)
    wanted = next(ino for ino in rig.inos[:4] if ino not in rig.came)
    await rig.read(wanted, 0, 100, person)
    await rig.until(lambda: wanted in rig.came)  # it is read along
    assert loads(rig) == 3
    nursery.cancel_scope.cancel()


async def test_a_disc_in_a_drive_is_read_for_a_storm_as_well(storm, nursery, chunky):
    rig = storm
    more = [await rig.file(chunky) for _ in range(3)]
    await rig.burn("S0001D06", [(ino, 0, len(chunky)) for ino in more])
    for ino in more:
        await rig.release(ino)
    await rig.serve(nursery)
    await rig.read(more[0], 0, 100)
    for ino in [*rig.inos[:2], *more[1:]]:
        read(rig, nursery, ino)
    await rig.until(lambda: set(more[1:]) <= set(rig.came))
    nursery.cancel_scope.cancel()


async def test_the_last_reader_of_the_slow_lane_leaves(storm, nursery):
    rig = storm
    await rig.serve(nursery)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as readers:
            for ino in rig.inos[:4]:
                read(rig, readers, ino)
            await rig.until(lambda: len(rig.came) == 1)
            await rig.until(lambda: {v.state for v in views(rig).values()} == {"slow lane"})
            scope.cancel()
    assert len(rig.recaller._slow) == 0
    left = [ino for ino in rig.inos if rig.recaller.job(ino) is not None]
    assert left in ([], rig.came), "what was begun is read to its end"
    nursery.cancel_scope.cancel()


async def test_who_is_refused_waits_for_nothing(storm, nursery):
    rig = storm
    await rig.serve(nursery)
    with pytest.raises(PosixError, match="rule 'off'"):
        await rig.read(rig.inos[0], 0, 100, Requester(1, 1, 1, "never"))
    assert rig.recaller.job(rig.inos[0]) is None and loads(rig) == 0
    nursery.cancel_scope.cancel()
