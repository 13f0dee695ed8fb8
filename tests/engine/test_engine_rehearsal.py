"""hsmctl rebuild --sample: what it says of a whole rebuild, and that it leaves nothing behind."""

from __future__ import annotations

import pytest

from hsmfs.engine.eta import Speeds
from hsmfs.engine.rebuild import sample
from hsmfs.engine.rebuild.estimate import visits


async def rehearsed(lab, discs=2):
    job = sample.order(lab.engine, discs)
    await job.done.wait()
    assert job.error is None
    return job.result


async def test_every_part_of_a_rebuild_is_in_the_estimate(lab):
    await lab.archive(*[await lab.file(b"f%d" % n, b"x" * 5000) for n in range(3)])
    before = {path.name for path in lab.config.daemon.state.iterdir()}
    found = await rehearsed(lab)
    assert found["lines"] == found["same"] > 0
    parts = found["parts"]
    assert list(parts) == ["discs", "snapshot", "manifests", "names", "pools", "fsck"]
    assert found["full_seconds"] == pytest.approx(sum(parts.values()), abs=0.4)
    assert found["unmeasured"] is None
    assert found["drives"] == len(lab.engine.library.drives)
    blank = [v for v in lab.engine.catalog.volumes.all() if v.uuid is None]
    assert found["full_discs"] > len(blank)
    assert {path.name for path in lab.config.daemon.state.iterdir()} == before


async def test_without_room_for_a_copy_it_says_what_it_leaves_out(lab, monkeypatch):
    await lab.archive(await lab.file(b"f", b"x" * 5000))
    monkeypatch.setattr("hsmfs.engine.rebuild.estimate.ROOM", 10**12)
    found = await rehearsed(lab, 1)
    assert "less room" in found["unmeasured"]
    assert (found["parts"]["names"], found["parts"]["fsck"]) == (0.0, 0.0)
    assert found["coverage"] == 100.0


@pytest.mark.parametrize(
    ("written", "blank", "drives", "seconds"),
    [
        (10, 0, 1, 10 * (20 + 30 + 5)),
        (10, 4, 1, 10 * (20 + 30 + 5) + 4 * (20 + 30)),
        (10, 0, 2, 10 * (20 + 30 + 5) / 2),
        (10, 0, 100, 10 * 20),  # the robot has no more arms
        (0, 0, 1, 0),
    ],
)
def test_drives_work_side_by_side_and_the_robot_alone(written, blank, drives, seconds):
    speeds = Speeds(exchange=10, load=30, seek=1, read_rate=10**6)
    assert visits(written, blank, drives, speeds, 5) == seconds
