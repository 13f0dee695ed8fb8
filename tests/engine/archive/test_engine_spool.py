"""Images that are written over, and the room they take."""

from __future__ import annotations

from pathlib import Path

import trio

from hsmfs.engine.spool import Spool
from hsmfs.types import VolumeId


async def test_an_old_image_is_written_over_and_none_is_left_behind(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000)
    first, second, third = (spool.image(VolumeId(n)) for n in (1, 2, 3))
    (tmp_path / first).write_bytes(b"old")
    await spool.retire(first)
    await spool.retire(second)
    assert not (tmp_path / first).exists()

    await spool.reuse(second)
    await spool.reuse(third)
    assert (tmp_path / second).read_bytes() == b"old"
    assert not (tmp_path / third).exists()

    await spool.retire(second)
    await spool.forget_old()
    assert list(tmp_path.iterdir()) == []


async def test_old_images_make_way_for_a_batch(tmp_path: Path, monkeypatch) -> None:
    spool = Spool(tmp_path, 1000)
    (tmp_path / spool.image(VolumeId(1))).write_bytes(b"old")
    await spool.retire(spool.image(VolumeId(1)))
    monkeypatch.setattr(spool, "_free", lambda: 0 if any(tmp_path.iterdir()) else 1000)
    async with spool.room(500):
        assert list(tmp_path.iterdir()) == []


async def test_a_start_removes_old_images(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000)
    (tmp_path / spool.image(VolumeId(1))).write_bytes(b"old")
    await spool.retire(spool.image(VolumeId(1)))
    await spool.clear(set())
    assert list(tmp_path.iterdir()) == []


async def test_a_spool_knows_what_it_keeps(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000)
    left, image = spool.image(VolumeId(1)), spool.image(VolumeId(11))
    (tmp_path / left).touch()
    await spool.clear({left})
    await spool.reuse(image)
    async with spool.batch() as batch:
        assert all(map(spool.keeps, (left, image, batch.name)))
        async with spool.batch() as other:
            assert other != batch
        assert not spool.keeps(spool.image(VolumeId(111)))

    (tmp_path / image).touch()
    await spool.retire(image)
    await spool.remove(left)
    assert [path.name for path in tmp_path.iterdir() if spool.keeps(path.name)] == [f"old-{image}"]
    assert not any(map(spool.keeps, (left, image, batch.name)))


async def test_what_did_not_shrink_leaves_its_room_to_the_next_batch(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000)
    async with spool.room(400, 400) as room:
        spool.packed(room, 100)
        with trio.fail_after(5):
            async with spool.room(250, 250):
                pass
        spool.packed(room, 300)  # no more than it was given
        with trio.move_on_after(0.1) as waited:
            async with spool.room(501):
                pass
        assert waited.cancelled_caught
    with trio.fail_after(5):
        async with spool.room(1000):
            pass
