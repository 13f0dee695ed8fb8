"""Recalls: bytes come back checked, from whichever copy is good."""

from __future__ import annotations

import errno
import random

import pytest
import trio

from hsmfs.catalog.queues import RecallClass
from hsmfs.errors import OnShelf, PosixError, RecallCancelled, RecallFailed, RecallTimeout
from hsmfs.library.simulated.faults import Fault, FaultKind
from hsmfs.states import CopyState, FileState, VolumeState
from hsmfs.types import CHUNK, SECTOR, Range, Requester
from hsmfs.watchdog import LoopWatch

ONE, TWO, THREE = "S0001D01", "S0001D02", "S0001D03"


async def test_a_reader_gets_its_bytes_and_the_file_becomes_resident(rig, chunky, nursery):
    ino = await rig.stub(chunky, ONE)
    assert rig.files.attr(ino).state == FileState.MIGRATED
    await rig.serve(nursery)
    assert await rig.read(ino, 2 * CHUNK + 5, 100) == chunky[2 * CHUNK + 5 :][:100]
    assert await rig.read(ino) == chunky
    await rig.ended(ino)
    assert rig.files.attr(ino).state == FileState.PREMIGRATED
    assert rig.catalog.inodes.absent(ino) == []
    (event,) = [e for e in rig.events.since(0) if e.kind == "recalled"]
    assert event.fields["volume"] == ONE and event.fields["requester"].startswith("reader[")


async def test_compressed_frames(rig, nursery):
    data = b"the same line again and again\n" * 500_000
    ino = await rig.stub(data, ONE, pack=True)
    await rig.serve(nursery)
    assert await rig.read(ino, CHUNK + 7, 1000) == data[CHUNK + 7 :][:1000]
    assert await rig.read(ino) == data


async def test_parts_on_two_discs(rig, chunky, nursery):
    ino = await rig.file(chunky)
    await rig.burn(ONE, [(ino, 0, 2 * CHUNK)], number=(1, 2))
    await rig.burn(TWO, [(ino, 2 * CHUNK, len(chunky) - 2 * CHUNK)], number=(2, 2))
    await rig.release(ino)
    await rig.serve(nursery)
    assert await rig.read(ino) == chunky
    await rig.ended(ino)
    assert rig.files.attr(ino).state == FileState.PREMIGRATED


async def test_duplicates_join(rig, chunky, nursery):
    ino = await rig.stub(chunky, ONE)
    await rig.serve(nursery)
    got = []

    async def reader(offset):
        got.append(await rig.read(ino, offset, 10) == chunky[offset : offset + 10])

    async with trio.open_nursery() as readers:
        for offset in range(0, len(chunky), CHUNK // 4):
            readers.start_soon(reader, offset)
        await rig.recaller.request(ino, RecallClass.BULK, "admin")
    assert len(got) == 13 and all(got)
    await rig.ended(ino)
    assert rig.volume(ONE).loads == 1
    assert len([e for e in rig.events.since(0) if e.kind == "recalled"]) == 1


@pytest.mark.expect_log("unreadable|disc is suspect")
@pytest.mark.parametrize("kind", [FaultKind.UNREADABLE, FaultKind.CORRUPT])
async def test_a_bad_sector_sends_to_the_next_copy(rig, chunky, nursery, kind):
    ino = await rig.stub(chunky, ONE, TWO)
    bad = rig.sector(ino, ONE) + CHUNK // SECTOR + 3
    rig.library.faults.add(Fault(kind, barcode=ONE, sector=bad))
    await rig.serve(nursery)
    assert await rig.read(ino) == chunky
    assert rig.volume(ONE).state is VolumeState.SUSPECT and rig.volume(ONE).read_errors == 1
    assert "sector" in rig.volume(ONE).reason
    states = {c.copy_no: c.state for c in rig.catalog.copies.all_of(ino)}
    assert states == {1: CopyState.DAMAGED, 2: CopyState.VALID}


async def test_a_disc_under_quarantine_is_read_only_if_no_other_will_do(rig, chunky, nursery):
    one, other = await rig.file(chunky), await rig.file(chunky)
    await rig.burn(ONE, [(one, 0, len(chunky)), (other, 0, len(chunky))])
    await rig.burn(TWO, [(one, 0, len(chunky))], copy=2)
    for ino in (one, other):
        await rig.release(ino)
    await rig.serve(nursery)
    assert await rig.read(other) == chunky  # ONE lies in a drive now
    await rig.mounts.ledger.quarantine(rig.volume(ONE), "fell down")
    assert await rig.read(one) == chunky
    assert rig.volume(TWO).loads == 1
    await rig.ended(one)
    await rig.release(other)
    assert await rig.read(other) == chunky


@pytest.mark.expect_log("unreadable|recall failed|disc is suspect")
async def test_no_copy_left_says_which_disc_and_sector(rig, chunky, nursery):
    ino = await rig.stub(chunky, ONE)
    bad = rig.sector(ino, ONE) + 3
    rig.library.faults.add(Fault(FaultKind.UNREADABLE, barcode=ONE, sector=bad))
    await rig.serve(nursery)
    with pytest.raises(RecallFailed, match=rf"disc {ONE}: .* sector {bad}") as failed:
        await rig.read(ino)
    assert failed.value.errno == errno.EIO
    why = rig.recaller.why(ino)
    assert why["state"] == "failed" and str(bad) in why["error"] and why["next_step"]
    assert rig.catalog.queues.recall(ino) is None


@pytest.mark.expect_log("drive")
@pytest.mark.parametrize("kind", [FaultKind.LOAD_FAILS, FaultKind.READ_FAILS])
async def test_a_failing_drive_is_taken_down_and_the_other_one_reads(rig, chunky, nursery, kind):
    ino = await rig.stub(chunky, ONE)
    rig.library.faults.add(Fault(kind, drive="d1", times=None))
    await rig.serve(nursery)
    assert await rig.read(ino) == chunky
    await rig.until(lambda: not rig.mounts.status()["drives"][0]["up"])
    assert ONE in rig.mounts.status()["drives"][0]["reason"]
    assert rig.volume(ONE).state is VolumeState.FULL
    await rig.mounts.drive_up("d1")
    assert rig.mounts.status()["drives"][0]["up"]


@pytest.mark.expect_log("drive or disc failed")
async def test_one_drive_that_fails_once_is_tried_again(make_rig, chunky, nursery):
    rig = make_rig(drives=1)
    await rig.start()
    ino = await rig.stub(chunky, ONE)
    rig.library.faults.add(Fault(FaultKind.LOAD_FAILS, drive="d1"))
    rig.library.faults.add(Fault(FaultKind.READ_FAILS, drive="d1"))
    await rig.serve(nursery)
    assert await rig.read(ino) == chunky
    nursery.cancel_scope.cancel()


@pytest.mark.expect_log("robot in trouble")
@pytest.mark.parametrize("leaves", ["source", "transport"])
async def test_a_jam_is_cleared(rig, chunky, nursery, leaves):
    ino = await rig.stub(chunky, ONE)
    await rig.serve(nursery)
    rig.library.faults.add(Fault(FaultKind.ROBOT_JAM, leaves=leaves))
    assert await rig.read(ino) == chunky
    assert rig.catalog.volumes.open_moves() == []


@pytest.mark.expect_log("robot in trouble|inventory differs")
async def test_an_open_door_holds_up_only_what_needs_a_move(rig, chunky, nursery):
    here, there = await rig.stub(chunky, ONE), await rig.stub(chunky[::-1], TWO)
    await rig.serve(nursery)
    assert await rig.read(here) == chunky
    await rig.ended(here)
    await rig.release(here)
    rig.library.faults.add(Fault(FaultKind.DOOR_OPEN))
    got = []

    async def blocked():
        got.append(await rig.read(there))

    async with trio.open_nursery() as readers:
        readers.start_soon(blocked)
        await rig.until(lambda: [e for e in rig.events.since(0) if e.kind == "robot_trouble"])
        assert await rig.read(here) == chunky
        assert not got and "door" in rig.recaller.why(there)["robot"]
        rig.library.faults.clear(FaultKind.DOOR_OPEN)
    assert got == [chunky[::-1]]


@pytest.mark.expect_log("inventory differs|recall failed")
async def test_a_missing_disc_is_lost_and_comes_back(rig, chunky, nursery):
    ino = await rig.stub(chunky, ONE)
    await rig.serve(nursery)
    rig.library.faults.add(Fault(FaultKind.MISSING, barcode=ONE))
    with pytest.raises(RecallFailed, match=ONE):
        await rig.read(ino)
    assert rig.volume(ONE).state is VolumeState.LOST and "missing" in rig.volume(ONE).reason
    rig.library.faults.clear()
    await rig.mounts.inventory.sync()
    assert rig.volume(ONE).state is VolumeState.FULL
    assert await rig.read(ino) == chunky


async def test_an_exported_disc_is_a_clear_error_or_another_copy(rig, chunky, nursery, expect_log):
    ino, other = await rig.stub(chunky, ONE), await rig.stub(chunky, TWO, THREE)
    await rig.serve(nursery)
    async with rig.catalog.write():
        for barcode in (ONE, TWO):
            rig.catalog.volumes.go_away(rig.volume(barcode).id, VolumeState.EXPORTED, "")
            rig.catalog.volumes.set_location(rig.volume(barcode).id, "vault 3")
    expect_log("recall failed")
    expect_log("operator must bring a disc")
    with pytest.raises(OnShelf, match="vault 3"):
        await rig.read(ino)
    assert await rig.read(other) == chunky


async def test_the_last_reader_leaves(rig, chunky, nursery):
    ino = await rig.stub(chunky, ONE)
    rig.library.faults.add(Fault(FaultKind.DOOR_OPEN))
    async with trio.open_nursery() as inner:
        with trio.CancelScope() as reader:
            async with trio.open_nursery() as readers:
                inner.start_soon(rig.recaller.run)
                readers.start_soon(rig.read, ino)
                await rig.until(lambda: rig.recaller.waiters())
                await trio.sleep(0.05)
                (waiter,) = rig.recaller.waiters()
                assert (waiter.process, waiter.volume) == ("reader", ONE)
                assert rig.catalog.queues.recall(ino) is not None
                reader.cancel()
        await rig.ended(ino)
        assert rig.recaller.waiters() == []
        await rig.recaller.request(ino, RecallClass.BULK, "admin")
        with trio.move_on_after(0.2):
            await rig.read(ino)
        assert rig.catalog.queues.recall(ino) is not None, "an admin's request stays"
        inner.cancel_scope.cancel()


async def test_a_killed_reader_is_dropped(rig, chunky, nursery):
    ino = await rig.stub(chunky, ONE)
    rig.recaller.waiting._left = lambda who, ino: who.pid == 4711
    nursery.start_soon(rig.recaller.run)
    with pytest.raises(RecallCancelled, match="4711"):
        await rig.read(ino, who=Requester(pid=4711))
    await rig.ended(ino)


async def test_waiters_can_be_failed_and_recalls_cancelled(rig, chunky, nursery):
    ino = await rig.stub(chunky, ONE)
    nursery.start_soon(rig.recaller.run)
    errors = []

    async def reader():
        try:
            await rig.read(ino)
        except (PosixError, RecallCancelled) as error:
            errors.append(error)

    async with trio.open_nursery() as readers:
        readers.start_soon(reader)
        await rig.until(lambda: rig.recaller.fail_waiters(lambda w: w.ino == ino, errno.EAGAIN))
    async with trio.open_nursery() as readers:
        readers.start_soon(reader)
        await rig.until(lambda: rig.recaller.job(ino))
        assert await rig.recaller.cancel(ino)
    assert errors[0].number == errno.EAGAIN
    assert isinstance(errors[1], RecallCancelled)
    assert rig.catalog.queues.recall(ino) is None


async def test_requests_outlive_a_restart(rig, chunky, nursery):
    ino, done = await rig.stub(chunky, ONE), await rig.file(b"resident")
    assert await rig.recaller.request(ino, RecallClass.BULK, "admin")
    assert not await rig.recaller.request(done, RecallClass.BULK, "admin")
    async with rig.catalog.write():
        rig.catalog.queues.join_recall(done, RecallClass.BULK, "admin", 1, 0, 8)
    await rig.stop()
    await rig.start()
    await rig.serve(nursery)
    await rig.ended(ino)
    await rig.ended(done)
    assert rig.catalog.inodes.absent(ino) == []
    assert await rig.read(ino) == chunky


async def test_a_reader_joins_what_the_last_run_left(rig, chunky, nursery):
    ino = await rig.stub(chunky, ONE)
    async with rig.catalog.write():
        rig.catalog.queues.join_recall(ino, RecallClass.BULK, "admin", 1, 0, len(chunky))
    await rig.recaller._join(ino, RecallClass.INTERACTIVE, "reader", Range(0, 10), None)
    job = rig.recaller.job(ino)
    assert (job.for_readers, job.urgency, job.end) == (False, 0, len(chunky))
    await rig.serve(nursery)
    await rig.ended(ino)
    assert rig.catalog.inodes.absent(ino) == []


async def test_a_file_overwritten_in_part_is_completed(rig, chunky, nursery):
    ino = await rig.stub(chunky, ONE)
    await rig.serve(nursery)
    live = rig.files.open(ino, write=True)
    await rig.files.write(live, 5, b"new")
    rig.files.close(live, write=True)
    await rig.until(lambda: not rig.catalog.inodes.absent(ino))
    await rig.ended(ino)
    assert await rig.read(ino) == chunky[:5] + b"new" + chunky[8:]
    assert rig.files.attr(ino).state == FileState.RESIDENT


async def test_truncated_and_unlinked_while_queued(rig, chunky, nursery):
    cut, gone = await rig.stub(chunky, ONE), await rig.stub(chunky, TWO)
    for ino in (cut, gone):
        await rig.recaller.request(ino, RecallClass.BULK, "admin")
    live = rig.files.open(cut, write=True)
    await rig.files.truncate(live, 0)
    rig.files.close(live, write=True)
    await rig.files.flush_closed()
    async with rig.catalog.write():
        rig.catalog.names.unlink(1, rig.catalog.names.paths(gone)[0], 1)
    await rig.files.purge(gone)
    await rig.serve(nursery)
    await rig.ended(cut)
    await rig.ended(gone)
    assert rig.files.attr(cut).size == 0


async def test_two_drives_at_once(rig, chunky, nursery):
    """Neither recall ends before both discs are in drives."""
    one, two = await rig.stub(chunky, ONE), await rig.stub(chunky[::-1], TWO)
    both = trio.Event()
    for drive in rig.library.drives:
        read = drive.read

        async def gated(sector, count, read=read):
            if all(d["volume"] for d in rig.mounts.status()["drives"]):
                both.set()
            await both.wait()
            return await read(sector, count)

        drive.read = gated
    await rig.serve(nursery)
    async with trio.open_nursery() as readers:
        for ino in (one, two):
            readers.start_soon(rig.read, ino)
    assert both.is_set()


async def test_only_the_range_asked_for(rig, chunky, nursery):
    ino = await rig.stub(chunky, ONE)
    await rig.serve(nursery)
    await rig.recaller.request(ino, RecallClass.STANDARD, "admin", Range(CHUNK, CHUNK + 1))
    await rig.ended(ino)
    assert rig.catalog.inodes.absent(ino) == [Range(0, CHUNK), Range(2 * CHUNK, len(chunky))]
    assert rig.files.attr(ino).state == FileState.PARTIAL


@pytest.mark.expect_log("recall failed")
async def test_no_room(rig, chunky, nursery):
    ino = await rig.stub(chunky, ONE)
    pool = next(iter(rig.files.pools))
    pool.capacity, pool.used = len(chunky), 100
    asked = []

    async def make_room(need, *, heads):
        assert heads, "a reader is worth the heads of others"
        asked.append(need)
        return False

    rig.files.make_room = make_room
    await rig.serve(nursery)
    with pytest.raises(Exception, match="no room") as full:
        await rig.read(ino)
    assert full.value.errno == errno.ENOSPC and asked == [len(chunky)]


@pytest.mark.expect_log("recall failed")
async def test_a_wait_has_a_bound_but_the_recall_goes_on(make_rig, chunky, nursery):
    rig = make_rig()
    rig.config = rig.config.model_copy(
        update={"fs": rig.config.fs.model_copy(update={"wait_limit": 0.2, "max_waiters": 1})}
    )
    await rig.start()
    ino = await rig.stub(chunky, ONE)
    errors = []

    async def reader():
        with pytest.raises(RecallTimeout):
            await rig.read(ino)
        errors.append("late")

    async with trio.open_nursery() as readers:
        readers.start_soon(reader)
        await rig.until(lambda: rig.recaller.waiters())
        with pytest.raises(PosixError) as full:
            await rig.read(ino)
        assert full.value.number == errno.EAGAIN
    assert errors == ["late"]
    await rig.recaller.request(ino, RecallClass.STANDARD, "admin")
    await rig.serve(nursery)
    await rig.ended(ino)
    assert rig.catalog.inodes.absent(ino) == []
    nursery.cancel_scope.cancel()


async def test_the_engine_may_be_ended_at_any_moment(rig, chunky):
    """A bit later each time, then started anew on the same state: no byte is wrong or lost."""
    data = {}
    for seed in range(3):
        content = chunky[seed:]
        data[await rig.stub(content, f"S0001D0{seed + 1}")] = content
    for step in range(12):
        for ino in data:
            await rig.recaller.request(ino, RecallClass.BULK, "admin")
        with trio.move_on_after(0.02 * step):
            async with trio.open_nursery() as workers:
                await rig.serve(workers)
                await trio.sleep_forever()
        await rig.stop()
        await rig.start()
        for ino, content in data.items():
            pool_file = rig.files.pools[rig.files.attr(ino).pool].path_of(ino)
            with open(pool_file, "rb") as file:
                on_disk = file.read()
            absent = rig.catalog.inodes.absent(ino)
            for index in range(0, len(content), CHUNK):
                if not any(r.overlaps(Range(index, index + CHUNK)) for r in absent):
                    assert on_disk[index : index + CHUNK] == content[index : index + CHUNK]
    async with trio.open_nursery() as workers:
        await rig.serve(workers)
        for ino, content in data.items():
            assert await rig.read(ino) == content
            await rig.ended(ino)
        workers.cancel_scope.cancel()
    assert rig.catalog.queues.recalls() == []


async def test_nothing_holds_the_loop(rig, nursery):
    data = random.Random(1).randbytes(300_000)
    inos = [await rig.file(data) for _ in range(60)]
    await rig.burn(ONE, [(ino, 0, len(data)) for ino in inos])
    for ino in inos:
        await rig.release(ino)
    with LoopWatch(sample=True) as watch:
        await rig.serve(nursery)
        for ino in inos:
            await rig.recaller.request(ino, RecallClass.BULK, "admin")
        for ino in inos:
            await rig.ended(ino)
    assert not watch.stalls, "\n".join(map(str, watch.stalls))
