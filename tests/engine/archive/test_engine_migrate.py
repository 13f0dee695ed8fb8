"""Archiving with real images and a simulated library: what is on discs, and what counts."""

from __future__ import annotations

import errno
import os

import pytest
import trio

from hsmfs import crash
from hsmfs.engine import spool
from hsmfs.engine.schedule import Purpose
from hsmfs.errors import Conflict, PosixError
from hsmfs.states import BurnState, FileState, VolumeState

MIB = 1 << 20


async def test_archived_verified_released(site):
    data = os.urandom(3 * MIB)
    ino = await site.file(b"a.dcm", data)
    small = await site.file(b"b.dcm", b"small")
    empty = await site.file(b"empty", b"")
    async with site.running():
        await site.archive(ino, small, empty)
        assert [site.state(i) for i in (ino, small, empty)] == [FileState.PREMIGRATED] * 3
        assert await site.releaser.release(ino, "test") > 2 * MIB
        assert site.state(ino) == FileState.MIGRATED
        assert await site.read_back(ino) == data
        assert await site.read_back(small) == b"small"
    site.sound()
    (event,) = [e for e in site.events.since(0) if e.kind == "volume_archived"]
    assert event.fields["files"] == 3


async def test_two_copies_on_different_volumes(site):
    ino = await site.file(b"f", 100_000)
    async with site.running():
        await site.archive(ino, copies=2, release=True)
    assert len({copy.where.volume for copy in site.copies(ino)}) == 2
    assert site.state(ino) == FileState.MIGRATED
    site.sound()


@pytest.mark.expect_log("is damaged|burn given up|another disc is taken")
async def test_written_discs_among_the_blank_ones_are_set_aside(site, tmp_path):
    noise = tmp_path / "noise"
    noise.write_bytes(os.urandom(MIB))
    strangers = [volume.barcode for volume in site.catalog.volumes.all()][:4]
    drive = site.library.drives[0]
    for barcode in strangers:
        await site.robot.fetch(barcode, drive)
        await drive.load()
        await drive.burn(noise, lambda done: None)
        await drive.eject()
        await site.robot.put_away(drive)
    data = os.urandom(MIB)
    ino = await site.file(b"f", data)
    async with site.running():
        await site.archive(ino)
        assert await site.read_back(ino) == data
    assert site.volumes(VolumeState.DAMAGED) == strangers
    told = [e.fields["volume"] for e in site.events.since(0) if e.kind == "foreign_disc"]
    assert told == strangers, "more of them than a burn has attempts"
    for barcode in strangers:
        (image,) = (site.root / "library").rglob(f"{barcode}/*.iso")
        assert image.read_bytes() == noise.read_bytes()
    site.sound()


async def test_a_second_copy_later(site):
    ino = await site.file(b"f", 100_000)
    async with site.running():
        await site.archive(ino)
        await site.archive(ino, copies=2)
        attr = site.files.attr(ino)
        assert site.catalog.copies.proven(ino, attr.version) == 2
        await site.archive(ino, copies=2)
    assert len(site.volumes(VolumeState.FULL)) == 2
    site.sound()


async def test_what_shrinks_fills_a_disc_with_more(make_site):
    site = await make_site(engine="compression = 3")
    disc = site.config.library.disc
    text = b"".join(b"%08d" % n for n in range(disc // 32))
    async with site.running():
        await site.archive(await site.file(b"first", text))
        await site.archive(*[await site.file(b"%d" % n, text) for n in range(6)])
    assert 6 * len(text) > 1.4 * disc
    assert len(site.volumes(VolumeState.FULL)) == 2
    site.sound()


async def test_compressed_files_come_back(make_site):
    site = await make_site(engine="compression = 3")
    data = b"".join(b"%08d" % n for n in range(700_000))
    ino = await site.file(b"text", data)
    async with site.running():
        await site.archive(ino)
        (copy,) = site.copies(ino)
        assert copy.where.compressed and copy.where.stored < len(data) / 2
        assert await site.read_back(ino) == data
    site.sound()


async def test_larger_than_a_disc(site):
    data = os.urandom(30 * MIB)
    ino = await site.file(b"large", data)
    async with site.running():
        await site.archive(ino)
        assert await site.read_back(ino) == data
    assert site.copies(ino)[0].where.parts == 3
    assert site.state(ino) == FileState.PREMIGRATED
    site.sound()


async def test_a_full_disc_does_not_wait(site):
    inos = [await site.file(b"f%d" % n, 4 * MIB) for n in range(5)]
    async with site.running():
        await site.migrator.archive(inos)
        await site.until(lambda: site.catalog.queues.migrations_waiting()[0] <= 2)
        await site.migrator.settled()
        assert site.catalog.queues.migrations_waiting()[0] == 2, "the rest waits for burn_wait"
        await site.archive()
    site.sound()


async def test_burn_wait_passes(make_site):
    site = await make_site(burn_wait="0 s")
    ino = await site.file(b"f", 1000)
    async with site.running():
        await site.migrator.archive([ino])
        await site.until(lambda: site.state(ino) == FileState.PREMIGRATED)


async def test_the_disc_holds_folders_links_and_names(site, tmp_path):
    folder = await site.folder("病人".encode())
    inner = await site.folder(b"empty folder", folder)
    ino = await site.file(b"\xff\xfe", b"odd name", folder)
    async with site.catalog.write():
        names = site.catalog.names
        names.create(folder, b"link", 0o120777, 0, 0, 1, target=b"\xff\xfe")
        site.catalog.xattrs.set(ino, b"user.x", b"y")
        names.link(ino, inner, b"other name", 1)
    async with site.running():
        await site.archive(ino)
    (full,) = site.volumes(VolumeState.FULL)
    images = [p for p in site.config.library.path.rglob(f"{full}/*") if p.is_file()]
    image = max(images, key=lambda p: p.stat().st_size)
    out = tmp_path / "out"
    await trio.run_process(
        ["xorriso", "-osirrox", "on", "-indev", image, "-extract", "/", out],
        capture_stderr=True, capture_stdout=True,
    )  # fmt: skip
    found = os.fsencode(out) + b"/files/" + "病人".encode()
    assert os.readlink(found + b"/link") == b"\xff\xfe"
    with open(found + b"/empty folder/other name", "rb") as file:
        assert file.read() == b"odd name"
    assert (out / "CATALOG.sqlite.zst").stat().st_size > 1000


# Changes while a disc is made


def during(site, step, action):
    """Run action once just before a step of the burner."""
    burner = site.migrator.burner
    real = getattr(burner, step)

    async def wrapped(*arguments):
        setattr(burner, step, real)
        await action()
        return await real(*arguments)

    setattr(burner, step, wrapped)


@pytest.mark.parametrize("step", ["_moved", "_burn", "verify", "_commit"])
async def test_a_file_changed_meanwhile_is_not_premigrated(site, step):
    ino = await site.file(b"f", 100_000)
    other = await site.file(b"other", 100_000)
    seen = []

    async def change():
        await site.write(ino, b"new")
        await site.migrator.cancel(ino)
        seen.append(site.files.attr(ino).version)

    during(site, step, change)
    async with site.running():
        await site.archive(ino, other)
    assert seen == [2]
    assert site.state(ino) == FileState.RESIDENT and site.files.attr(ino).version == 2
    assert site.state(other) == FileState.PREMIGRATED
    assert site.catalog.copies.proven(ino, 2) == 0
    site.sound()


async def test_a_changed_file_that_stays_queued_is_archived_anew(site):
    ino = await site.file(b"f", 100_000)
    during(site, "verify", lambda: site.write(ino, b"new"))
    async with site.running():
        await site.archive(ino)
        assert site.state(ino) == FileState.PREMIGRATED
        assert (await site.read_back(ino))[:3] == b"new"
    assert site.files.attr(ino).version == 2
    site.sound()


@pytest.mark.parametrize("step", ["_moved", "_burn", "verify"])
async def test_rename_truncate_and_unlink_meanwhile(site, step):
    renamed, cut, gone = [await site.file(name, 50_000) for name in (b"a", b"b", b"c")]
    stays = await site.file(b"d", 50_000)

    async def change():
        live = site.files.open(cut, write=True)
        await site.files.truncate(live, 10)
        site.files.close(live, write=True)
        async with site.catalog.write():
            site.catalog.names.rename(1, b"a", 1, b"renamed", 2)
            site.catalog.names.unlink(1, b"c", 2)
        if step == "_moved":  # the image is being made: the inode is held
            with pytest.raises(Conflict, match="in use"):
                await site.files.purge(gone)
        else:
            await site.files.purge(gone)

    during(site, step, change)
    async with site.running():
        await site.archive(renamed, cut, gone, stays)
        assert site.state(renamed) == site.state(stays) == FileState.PREMIGRATED
        assert site.state(cut) == FileState.PREMIGRATED and site.files.attr(cut).size == 10
        assert len(await site.read_back(cut)) == 10
    site.sound()


async def test_an_open_file_may_be_archived_but_not_one_being_written(site):
    ino = await site.file(b"f", 1000)
    live = site.files.open(ino, write=True)
    async with site.running():
        await site.archive(ino)
        assert site.state(ino) == FileState.PREMIGRATED
        await site.files.write(live, 0, b"new")
        assert site.state(ino) == FileState.RESIDENT
    site.files.close(live, write=True)


# Faults


@pytest.mark.expect_log("failed|burn given up|another disc|drive down|volume|suspect")
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "burn_fails", "barcode": "S0001D01", "at_byte": 200_000},
        {"kind": "corrupt", "barcode": "S0001D01", "sector": 120, "count": 1},
        {"kind": "unreadable", "barcode": "S0001D01", "sector": 120, "count": 1},
        {"kind": "corrupt", "barcode": "S0001D01", "sector": 17, "count": 1},
    ],
)
async def test_a_spoiled_disc_is_followed_by_another(site, fault):
    site.fail(fault)
    ino = await site.file(b"f", 1 * MIB)
    async with site.running():
        await site.archive(ino)
    assert site.volumes(VolumeState.DAMAGED) == ["S0001D01"]
    assert site.state(ino) == FileState.PREMIGRATED
    assert [site.catalog.volumes.get(c.where.volume).state for c in site.copies(ino)] == [
        VolumeState.FULL
    ]
    site.sound()


@pytest.mark.expect_log("operator must add blank discs|another disc|burn given up|failed")
async def test_no_blank_disc_waits_for_the_operator(make_site):
    site = await make_site(discs=1)
    one, two = await site.file(b"a", 1000), await site.file(b"b", 1000)
    async with site.running():
        await site.archive(one)
        await site.migrator.archive([two])
        await site.migrator.flush()
        await site.until(lambda: site.migrator.blanks.wanted)
        assert site.state(two) == FileState.RESIDENT
        assert site.catalog.queues.migration(two) is not None
    assert "blank_discs_wanted" in site.kinds()


@pytest.mark.expect_log("spool full|checksums|not archived now")
async def test_a_full_spool_waits(site, monkeypatch):
    monkeypatch.setattr(spool, "_LOOK_AGAIN", 0.1)
    ino = await site.file(b"f", 1000)
    real = site.migrator.spool._free
    site.migrator.spool._free = lambda: 0
    async with site.running():
        await site.migrator.archive([ino])
        await site.migrator.flush()
        await site.until(lambda: "spool_full" in site.kinds())
        assert site.state(ino) == FileState.RESIDENT
        site.migrator.spool._free = real
        with trio.fail_after(30):
            await site.migrator.settled()
    assert site.state(ino) == FileState.PREMIGRATED


@pytest.mark.expect_log("not archived now")
async def test_rotten_bytes_are_not_burned(site):
    ino = await site.file(b"f", 100_000)
    async with site.running():
        await site.archive(ino)
        with open(site.pool.path_of(ino), "r+b") as file:
            file.write(b"rot")
        site.migrator._snapshots = None  # is not asked what a disc would carry
        await site.archive(ino, copies=2)
    assert len(site.volumes(VolumeState.FULL)) == 1, "no disc was spent"
    assert "migration_put_off" in site.kinds()


async def test_a_stub_asks_for_its_bytes_first(site):
    ino = await site.file(b"f", 200_000)
    asked = []

    async def recall(ino, who):
        asked.append(ino)

    site.migrator.recall = recall
    async with site.running():
        await site.archive(ino, release=True)
        await site.archive(ino, copies=2)
    assert asked == [ino]


async def test_cancel(site):
    ino = await site.file(b"f", 1000)
    await site.migrator.archive([ino])
    await site.migrator.cancel(ino)
    assert not site.catalog.queues.migrations()
    with pytest.raises(Conflict, match="not queued"):
        await site.migrator.cancel(ino)


@pytest.mark.expect_log("all files changed|burn given up|migration failed")
async def test_a_release_while_the_image_is_made_costs_no_disc(site):
    ino, other = await site.file(b"f", 200_000), await site.file(b"g", 1000)
    async with site.running():
        await site.archive(ino)
        during(site, "_moved", lambda: site.releaser.release(ino, "test"))
        await site.archive(ino, other, copies=2)
    assert not site.volumes(VolumeState.DAMAGED)
    assert site.state(ino) == FileState.MIGRATED
    assert site.state(other) == FileState.PREMIGRATED


# Kills

POINTS = [
    "migrate.queued", "stage.batch.sealed", "migrate.staged", "burn.planned", "burn.image.built",
    "burn.copies.added", "burn.staged", "burn.started", "mounts.burn.start", "mounts.burn.end",
    "burn.ended", "burn.verifying", "burn.verified", "burn.pools.synced", "burn.committed",
    "burn.commit.durable", "finish.batch.marked", "finish.file.released", "finish.burn.ended",
    "release.before", "release.after",
]  # fmt: skip
SPOILED = {"burn.started", "mounts.burn.start", "mounts.burn.end", "burn.ended"}


@pytest.mark.expect_log("burn given up|cut off|inventory|lost")
@pytest.mark.parametrize("point", POINTS)
async def test_killed_at(site, monkeypatch, point):
    data = os.urandom(1 * MIB)
    ino, small = await site.file(b"f", data), await site.file(b"g", b"g")
    seen = []

    def passed(name):
        if name == point and not seen:
            seen.append(name)
            site.keep()

    monkeypatch.setattr(crash, "point", passed)
    async with site.running():
        await site.archive(ino, small, release=True)
    assert seen
    await site.restart(killed=True)
    async with site.running():
        await site.archive()
        for each, content in ((ino, data), (small, b"g")):
            assert site.state(each) in (FileState.PREMIGRATED, FileState.MIGRATED)
            assert await site.read_back(each) == content
    spoiled = site.volumes(VolumeState.DAMAGED)
    assert bool(spoiled) == (point in SPOILED), "only a burn that was cut off costs a disc"
    site.sound()


async def test_a_file_deleted_before_its_recall_stops_no_burns(site):
    ino = await site.file(b"f", 100_000)
    other = await site.file(b"g", 100_000)

    async def recall(ino, who):
        raise PosixError(errno.ENOENT)  # as Recaller.request of an inode that is gone

    site.migrator.recall = recall
    async with site.running():
        await site.archive(ino, release=True)
        await site.migrator.archive([ino], copies=2)
        await site.archive(other)
    assert site.state(other) == FileState.PREMIGRATED


@pytest.mark.expect_log("migration failed|burn given up|not ended yet")
@pytest.mark.parametrize("left", [BurnState.VERIFYING, BurnState.VERIFIED])
async def test_a_burn_that_a_disk_keeps_from_its_end_stops_no_others(site, monkeypatch, left):
    async with site.running():
        volume = site.catalog.volumes.all()[0].id
    async with site.catalog.write():
        site.catalog.queues.add_burn(volume, 1, site.migrator.spool.image(volume), 1)
        site.catalog.volumes.start(volume, "uuid", None)
        site.catalog.db.execute("UPDATE burns SET state = ?", (left,))
    (site.root / "spool").mkdir(exist_ok=True)
    (site.root / "spool" / site.migrator.spool.image(volume)).touch()
    use, finish = site.mounts.use, site.migrator.finisher.finish

    def reads_not(wanted, purpose, **more):
        if purpose is Purpose.READ:
            raise OSError(errno.EIO, "the disk is gone")
        return use(wanted, purpose, **more)

    async def finishes_not(wanted):
        if wanted == volume:
            raise OSError(errno.EIO, "the disk is gone")
        await finish(wanted)

    monkeypatch.setattr(site.mounts, "use", reads_not)
    monkeypatch.setattr(site.migrator.finisher, "finish", finishes_not)
    ino = await site.file(b"f", 1000)
    async with site.running():
        await site.archive(ino)
    assert site.state(ino) == FileState.PREMIGRATED
    told = "migration_failed" if left is BurnState.VERIFYING else "burn_failed"
    assert told in site.kinds()
    assert (site.catalog.queues.burn(volume) is None) == (left is BurnState.VERIFYING)
