"""Releasing, demoting and the regular duties: what goes, what stays, and why."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import trio
import trio.testing

from hsmfs.engine import demote
from hsmfs.engine.demote import Demoter
from hsmfs.engine.housekeeping import Housekeeper
from hsmfs.engine.keeping import Keeping
from hsmfs.engine.policy import rules
from hsmfs.engine.policy.match import Ruleset
from hsmfs.errors import Conflict
from hsmfs.pool.pools import Pools
from hsmfs.pool.store import Pool
from hsmfs.states import FileState, VolumeState
from hsmfs.types import Range

MIB = 1 << 20


@pytest.fixture
async def archived(site):
    """Three archived files of 1, 2 and 3 MiB; the drives are at rest again."""
    inos = [await site.file(b"f%d" % n, n * MIB) for n in (1, 2, 3)]
    async with site.running():
        await site.archive(*inos)
    return inos


async def refused(site, ino):
    with pytest.raises(Conflict) as caught:
        await site.releaser.release(ino, "test")
    return str(caught.value)


async def test_refusals_say_why(site, archived):
    fresh = await site.file(b"fresh", 100_000)
    assert "0 verified copies" in await refused(site, fresh)
    opened = site.files.open(archived[0], write=False)
    assert "is open" in await refused(site, archived[0])
    site.files.close(opened, write=False)
    async with site.catalog.write():
        site.catalog.inodes.set_pinned(archived[1], True)
    assert "pinned" in await refused(site, archived[1])
    await site.releaser.release(archived[2], "test")
    assert "released already" in await refused(site, archived[2])
    assert "no regular file" in await refused(site, 1)


async def test_policies_count_in_a_release(site, archived):
    text = '[[policy]]\nname = "keep"\naction = "never"\npath = ["/f1"]\n'
    text += '[[policy]]\nname = "two"\naction = "archive"\npath = ["/f2"]\ncopies = 2\n'
    text += '[[policy]]\nname = "head"\naction = "archive"\nhead = "1 MiB"\n'
    site.releaser.rules = Ruleset(rules.loads(text).policy, copies=1, head=0)
    assert "policy keep" in await refused(site, archived[0])
    assert "1 verified copies of its present bytes, 2 are wanted" in await refused(
        site, archived[1]
    )
    assert await site.releaser.release(archived[2], "test") == 2 * MIB


async def test_a_damaged_disc_stops_releases(site, archived):
    async with site.catalog.write():
        for barcode in site.volumes(VolumeState.FULL):
            volume = site.catalog.volumes.by_barcode(barcode)
            site.catalog.volumes.set_state(volume.id, VolumeState.SUSPECT, "test")
    assert "0 verified copies" in await refused(site, archived[0])
    assert not await site.releaser.make_room(MIB)


async def test_watermark_releases_the_least_valuable_first(make_site):
    site = await make_site(pool='capacity = "10 MiB"\nhigh = 50\nlow = 40')
    inos = [await site.file(b"f%d" % n, n * MIB) for n in (1, 2, 3)]
    async with site.catalog.write():  # idle for equally long
        site.catalog.db.execute("UPDATE inodes SET atime_ns = 1, mtime_ns = 1, ctime_ns = 1")
    async with site.running():
        await site.archive(*inos)
        site.pool.used = 6 * MIB
        async with trio.open_nursery() as nursery:
            await nursery.start(site.releaser.run)
            await site.until(lambda: "released_space" in site.kinds())
            nursery.cancel_scope.cancel()
    assert [site.state(i) for i in inos] == [
        FileState.PREMIGRATED, FileState.PREMIGRATED, FileState.MIGRATED,
    ]  # fmt: skip


async def test_young_and_recalled_files_stay(make_site):
    site = await make_site(engine="compression = 0")
    site.releaser._residence_ns = 3600 * 10**9
    ino = await site.file(b"f", MIB)
    async with site.running():
        await site.archive(ino)
    assert not await site.releaser.make_room(1)
    assert await site.releaser.release(ino, "test") > 0, "who asks gets it"


async def test_make_room(site, archived):
    assert await site.releaser.make_room(100)
    assert "released_space" in site.kinds()


@pytest.mark.expect_log("heads of files on discs were given up")
async def test_heads_go_last_the_oldest_first(make_site):
    site = await make_site(pool='capacity = "20 MiB"')
    inos = [await site.file(b"f%d" % n, MIB) for n in range(3)]
    bytes_ = [site.on_disk(ino) for ino in inos]
    async with site.running():
        await site.archive(*inos)
        while any(site.state(ino) != FileState.MIGRATED for ino in inos):
            assert await site.releaser.make_room(MIB)
        heads = [[128, 128, 128], [0, 0, 128], [0, 0, 0]]
        for blocks in heads:
            assert [site.catalog.inodes.get_raw(ino).blocks for ino in inos] == blocks
            assert not await site.releaser.make_room(1, heads=False)
            assert await site.releaser.make_room(1) == (blocks != heads[-1])
        assert site.catalog.inodes.absent(inos[0]) == [Range(0, MIB)]
        assert [await site.read_back(ino) for ino in inos] == bytes_
    assert "full pool: heads" in str(site.events.since(0))
    site.sound()


async def test_make_room_passes_over_files_that_are_open(site, archived):
    for ino in archived[1:]:
        site.files.open(ino, write=False)
    assert await site.releaser.make_room(100), "the first choice alone was asked"
    assert site.state(archived[0]) == FileState.MIGRATED


async def test_a_release_that_waited_counts_copies_again(site, archived):
    ino = archived[0]
    live = site.files.hold(ino)
    refusals = []

    async def release():
        refusals.append(await refused(site, ino))

    async with trio.open_nursery() as nursery:
        async with live.lock:
            nursery.start_soon(release)
            await trio.testing.wait_all_tasks_blocked()
            for barcode in site.volumes(VolumeState.FULL):
                volume = site.catalog.volumes.by_barcode(barcode)
                async with site.catalog.write():
                    site.catalog.volumes.set_state(volume.id, VolumeState.SUSPECT, "test")
    site.files.drop(live)
    assert refusals and site.state(ino) == FileState.PREMIGRATED


# Demotion


@pytest.fixture
async def tiers(site, tmp_path):
    uuid = Pool.create(tmp_path / "fast")
    fast = Pool("fast", tmp_path / "fast", "fast")
    async with site.catalog.write():
        fast.id = site.catalog.volumes.register_pool("fast", "fast", uuid)
    disk = site.pool
    site.pool, site.pools = fast, Pools([fast, disk])
    site.files.pools = site.pools
    site.demoter = Demoter(site.catalog, site.pools, site.files, site.events)
    return fast, disk


async def test_demote_moves_bytes_and_holes(site, tiers):
    fast, disk = tiers
    ino = await site.file(b"f", b"start")
    await site.write(ino, b"end", 10 * MIB)
    before = site.on_disk(ino)
    await site.demoter.demote(ino, "test")
    assert not os.path.exists(fast.path_of(ino))
    assert Path(disk.path_of(ino)).read_bytes() == before
    assert os.stat(disk.path_of(ino)).st_blocks < 100
    assert site.files.attr(ino).pool == disk.id
    with pytest.raises(Conflict, match="not on the fast tier"):
        await site.demoter.demote(ino, "test")


async def test_demote_leaves_used_files_alone(site, tiers):
    fast, disk = tiers
    ino = await site.file(b"f", b"data")
    live = site.files.open(ino, write=False)
    with pytest.raises(Conflict, match="in use"):
        await site.demoter.demote(ino, "test")
    site.files.close(live, write=False)
    assert os.path.exists(fast.path_of(ino)) and not os.path.exists(disk.path_of(ino))


async def test_demote_gives_up_if_the_file_is_opened_meanwhile(site, tiers, monkeypatch):
    fast, disk = tiers
    ino = await site.file(b"f", b"data")
    from hsmfs import crash

    opened = []

    def passed(name):
        if name == "demote.copied":
            opened.append(site.files.open(ino, write=True))

    monkeypatch.setattr(crash, "point", passed)
    with pytest.raises(Conflict, match="in use"):
        await site.demoter.demote(ino, "test")
    assert not os.path.exists(disk.path_of(ino))
    site.files.close(opened[0], write=True)
    assert site.files.attr(ino).pool == fast.id


@pytest.mark.expect_log("not demoted")
async def test_a_file_that_does_not_read_keeps_no_other_on_the_fast_tier(
    site, tiers, monkeypatch
):
    fast, _ = tiers
    bad, good = [await site.file(name, MIB) for name in (b"bad", b"good")]
    real = demote.duplicate

    def copy(source, pool, ino):
        if ino == bad:
            raise OSError(errno.EIO, "bad block")
        return real(source, pool, ino)

    monkeypatch.setattr(demote, "duplicate", copy)
    fast.capacity, fast.used, fast.high, fast.low = 3 * MIB, 3 * MIB, 60, 10
    async with trio.open_nursery() as nursery:
        await nursery.start(site.demoter.run)
        await site.until(lambda: "demoted" in site.kinds())
        nursery.cancel_scope.cancel()
    assert "cannot_demote" in site.kinds()
    assert site.files.attr(good).pool != site.files.attr(bad).pool == fast.id


async def test_fast_pool_above_its_watermark(site, tiers):
    fast, disk = tiers
    ino = await site.file(b"f", MIB)
    fast.capacity, fast.used, fast.high, fast.low = 2 * MIB, 2 * MIB, 60, 10
    async with trio.open_nursery() as nursery:
        await nursery.start(site.demoter.run)
        await site.until(lambda: "demoted" in site.kinds())
        nursery.cancel_scope.cancel()
    assert site.files.attr(ino).pool == disk.id


# Housekeeping


@pytest.fixture
def housekeeper(site):
    config = site.config
    keeping = Keeping(site.catalog, site.files, site.events, config.versions, config.trash.keep)
    return Housekeeper(
        site.catalog, site.pools, site.files, keeping, site.events, site.config
    )


async def test_orphans_go_at_the_start(site, housekeeper):
    ino = await site.file(b"f", 1000)
    async with site.catalog.write():
        site.catalog.names.unlink(1, b"f", 2)
    assert await housekeeper.begin() == 1
    assert site.catalog.inodes.get_raw(ino) is None
    assert not os.path.exists(site.pool.path_of(ino))


async def test_sync_makes_closed_files_durable(site, housekeeper):
    ino = await site.file(b"f", b"")
    live = site.files.open(ino, write=True)
    await site.files.write(live, 0, b"12345")
    site.files.close(live, write=True)
    await housekeeper.sync()
    assert site.catalog.inodes.get_raw(ino).size == 5
    assert site.catalog.durable == site.catalog.commits


async def test_nothing_is_written_while_nothing_is_due(site, housekeeper):
    await site.file(b"f", 1000)
    async with site.catalog.write():
        site.catalog.names.rename(1, b"f", 1, b"g", 2 * 10**18)
    before = site.catalog.commits
    await housekeeper._purge_due()
    await housekeeper._look_at_pools()
    assert site.catalog.commits == before


async def test_trash_is_purged_when_due(site, housekeeper):
    ino, kept = await site.file(b"f", 1000), await site.file(b"g", 1000)
    async with site.catalog.write():
        for name, each, keep in ((b"f", ino, 0), (b"g", kept, 4 * 10**18)):
            site.catalog.names.unlink(1, name, 2)
            site.catalog.trash.put(each, 1, name, 2, keep)
    async with trio.open_nursery() as nursery:
        await nursery.start(housekeeper.run)
        await site.until(lambda: "trash_purged" in site.kinds())
        nursery.cancel_scope.cancel()
    assert site.catalog.inodes.get_raw(ino) is None
    assert site.catalog.inodes.get_raw(kept) is not None
