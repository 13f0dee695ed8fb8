"""Requests that stay rows until it is their disc's turn."""

import pytest

from hsmfs import limits
from hsmfs.catalog.queues import RecallClass
from hsmfs.engine import backlog
from hsmfs.errors import RecallFailed
from hsmfs.states import VolumeState

ONE, TWO, THREE = "S0001D01", "S0001D02", "S0001D03"


async def test_what_is_no_job_yet_is_shown_cancelled_and_served_to_readers(
    rig, chunky, nursery, monkeypatch
):
    monkeypatch.setattr(limits, "RECALL_JOBS", 0)
    inos = [await rig.stub(chunky, disc) for disc in (ONE, TWO)]
    await rig.serve(nursery)
    for ino in inos:
        assert await rig.recaller.request(ino, RecallClass.BULK, "admin")
    assert not [ino for ino in inos if rig.recaller.job(ino)]
    assert rig.recaller.why(inos[0])["requester"] == "admin"
    assert rig.recaller.wants(rig.volume(TWO).id)
    assert await rig.read(inos[1], 0, 10) == chunky[:10]
    await rig.ended(inos[1])
    assert rig.catalog.inodes.absent(inos[1]) == [], "an admin wants all of it"
    assert not await rig.recaller.cancel(inos[1])
    assert await rig.recaller.cancel(inos[0])
    assert rig.catalog.queues.recall(inos[0]) is None


@pytest.mark.expect_log("can be read")
async def test_few_requests_are_jobs_at_once_and_all_are_served(rig, nursery, monkeypatch):
    monkeypatch.setattr(limits, "RECALL_JOBS", 2)
    monkeypatch.setattr(backlog, "BLOCK", 1)
    monkeypatch.setattr(backlog, "LOOK", 2)
    inos = [await rig.file(b"%d" % n * 5000) for n in range(8)]
    await rig.burn(ONE, [(ino, 0, 5000) for ino in inos[::2]])
    await rig.burn(TWO, [(ino, 0, 5000) for ino in inos[1::2]])
    for ino in inos:
        await rig.release(ino)
    jobs, lost = rig.recaller._jobs, await rig.stub(b"lost", THREE)
    async with rig.catalog.write():  # left by the last run, one of them on a disc that is gone
        for ino in (*inos[:4], lost):
            rig.catalog.queues.join_recall(ino, RecallClass.BULK, "admin", 1, 0, 5000)
        rig.catalog.volumes.set_state(rig.volume(THREE).id, VolumeState.DAMAGED)
    most = 0

    async def place(job):
        nonlocal most
        most = max(most, len(jobs))
        await placed(job)

    placed, rig.recaller._place = rig.recaller._place, place
    await rig.serve(nursery)
    for ino in inos[4:]:
        await rig.recaller.request(ino, RecallClass.BULK, "admin")
    await rig.until(lambda: not rig.catalog.queues.recalls())
    assert not [ino for ino in inos if rig.catalog.inodes.absent(ino)]
    assert most == 2
    assert isinstance(rig.recaller.failure(lost), RecallFailed)


async def test_what_is_put_off_is_served_at_its_age_limit_though_there_is_no_room_for_its_class(
    make_rig, nursery, monkeypatch
):
    monkeypatch.setattr(limits, "RECALL_JOBS", 1)
    monkeypatch.setattr(backlog, "BLOCK", 3)
    rig = make_rig()
    await rig.start()
    ino = await rig.stub(b"x" * 5000, ONE)
    async with rig.catalog.write():
        rig.catalog.queues.join_recall(ino, RecallClass.BULK, "admin", 1, 0, 5000)
    await rig.serve(nursery)
    await rig.until(lambda: rig.recaller.wants(rig.volume(ONE).id))
    schedule = rig.config.schedule.model_copy(update={"bulk_age_limit": 0.05})
    rig.recaller.configure(rig.config.model_copy(update={"schedule": schedule}))
    await rig.ended(ino)
    assert rig.catalog.inodes.absent(ino) == []
