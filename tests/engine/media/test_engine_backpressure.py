"""Orders wait while their pool has no room, and readers do not."""

import errno

import pytest
import trio

from hsmfs.catalog.queues import RecallClass
from hsmfs.engine import backpressure
from hsmfs.errors import PoolFull

ONE, TWO, THREE = "S0001D01", "S0001D02", "S0001D03"


def fill(rig, percent, capacity):
    """The pool is so large, and so full."""
    pool = next(iter(rig.files.pools))
    pool.capacity, pool.used = capacity, capacity * percent // 100


def waits(rig, *inos):
    return all(rig.recaller.why(ino)["state"] == "waiting for room" for ino in inos)


@pytest.fixture
async def one_drive(make_rig, monkeypatch):
    monkeypatch.setattr(backpressure, "LOOK", 0.01)
    rig = make_rig(drives=1)
    await rig.start()
    yield rig
    await rig.stop()


@pytest.mark.expect_log("orders wait")
async def test_orders_wait_below_the_high_watermark_and_no_disc_is_fetched_for_them(
    one_drive, chunky, nursery
):
    rig, moves = one_drive, []
    inos = [await rig.stub(chunky, disc) for disc in (ONE, TWO, THREE)]
    fill(rig, 88, 20 * len(chunky))
    move = rig.library.changer.move

    async def counted(*args):
        moves.append(args)
        await move(*args)

    rig.library.changer.move = counted
    for ino in inos:
        await rig.recaller.request(ino, RecallClass.BULK, "admin")
    await rig.serve(nursery)
    await rig.until(lambda: waits(rig, *inos))
    await rig.until(lambda: not rig.mounts.status()["claims"])
    assert len(moves) == 1
    assert await rig.read(inos[1]) == chunky, "a reader has what lies above"
    await rig.until(lambda: waits(rig, inos[0], inos[2]))
    fill(rig, 0, 20 * len(chunky))
    for ino in inos:
        await rig.ended(ino)
        assert rig.catalog.inodes.absent(ino) == []
    assert [e.kind for e in rig.events.since(0)].count("orders_wait") == 1


@pytest.mark.expect_log("orders wait")
async def test_what_comes_in_takes_room(one_drive, chunky, nursery):
    rig, inos = one_drive, [await one_drive.stub(chunky, disc) for disc in (ONE, TWO, THREE)]
    fill(rig, 0, 3 * len(chunky))
    for ino in inos:
        await rig.recaller.request(ino, RecallClass.BULK, "admin")
    await rig.serve(nursery)
    await rig.until(lambda: sum(waits(rig, ino) for ino in inos) == 1)
    await rig.until(lambda: sum(not rig.catalog.inodes.absent(ino) for ino in inos) == 2)
    assert next(iter(rig.files.pools)).used == 2 * len(chunky)


@pytest.mark.expect_log("orders wait")
async def test_a_full_pool_fails_a_reader_and_keeps_the_order(one_drive, chunky, nursery):
    rig, ino = one_drive, await one_drive.stub(chunky, ONE)
    fill(rig, 100, 20 * len(chunky))
    await rig.recaller.request(ino, RecallClass.STANDARD, "admin")
    await rig.serve(nursery)
    await rig.until(lambda: waits(rig, ino))
    with pytest.raises(PoolFull) as full:
        await rig.read(ino)
    assert full.value.errno == errno.ENOSPC
    assert waits(rig, ino) and rig.catalog.queues.recall(ino)
    assert await rig.recaller.cancel(ino)
    assert rig.catalog.queues.recall(ino) is None


@pytest.mark.expect_log("orders wait|recall failed")
async def test_an_order_that_finds_no_room_until_its_age_limit_ends(one_drive, chunky, nursery):
    rig, ino = one_drive, await one_drive.stub(chunky, ONE)
    fill(rig, 95, 20 * len(chunky))
    schedule = rig.config.schedule.model_copy(update={"bulk_age_limit": 0.05})
    rig.recaller.configure(rig.config.model_copy(update={"schedule": schedule}))
    await rig.recaller.request(ino, RecallClass.BULK, "admin")
    await rig.serve(nursery)
    await rig.ended(ino)
    assert isinstance(rig.recaller.failure(ino), PoolFull)


@pytest.mark.expect_log("recall failed")
async def test_an_order_that_the_pool_can_never_hold_ends_at_once(one_drive, chunky, nursery):
    rig, ino = one_drive, await one_drive.stub(chunky, ONE)
    fill(rig, 0, len(chunky))
    await rig.recaller.request(ino, RecallClass.BULK, "admin")
    await rig.serve(nursery)
    await rig.ended(ino)
    assert isinstance(rig.recaller.failure(ino), PoolFull)


@pytest.mark.expect_log("orders wait")
async def test_orders_outlive_a_restart_while_they_wait(one_drive, chunky, nursery):
    rig, ino = one_drive, await one_drive.stub(chunky, ONE)
    fill(rig, 95, 20 * len(chunky))
    await rig.recaller.request(ino, RecallClass.BULK, "admin")
    async with trio.open_nursery() as first:
        await rig.serve(first)
        await rig.until(lambda: waits(rig, ino))
        first.cancel_scope.cancel()
    await rig.stop()
    await rig.start()
    await rig.serve(nursery)
    await rig.ended(ino)
    assert rig.catalog.inodes.absent(ino) == []
