"""fsck of pools, library and spool: each fault is seen, mended without a byte deleted."""

from __future__ import annotations

import os
import stat

import pytest

from hsmfs.catalog.catalog import Catalog
from hsmfs.disc.digest import digest_file
from hsmfs.engine.files import Files
from hsmfs.engine.fsck import Severity, fsck
from hsmfs.engine.spool import Spool
from hsmfs.library.ports import Element, ElementKind
from hsmfs.pool.pools import Pools
from hsmfs.pool.store import Pool
from hsmfs.states import CopyState, FileState, VolumeState
from hsmfs.types import ROOT, Range, StoredPart

SIZE = 100_000


class World:
    """Two pools and two files in the first: `plain`, and `kept`, which is on a disc too."""

    def __init__(self, path):
        self.path = path
        self.pools = []
        self.catalog = Catalog.create(path / "state")
        for name in ("p", "q"):
            Pool.create(path / name)
            self.pools.append(Pool(name, path / name))

    async def start(self):
        catalog = self.catalog
        async with catalog.write():
            for pool in self.pools:
                pool.id = catalog.volumes.register_pool(pool.name, "disk", pool.uuid)
            self.volume = catalog.volumes.add("D01", 10**9, 1)
            catalog.volumes.start(self.volume, "uuid")
            catalog.volumes.close(self.volume, 10**6, "serial", "hash", 2)
        self.p, self.q = self.pools
        self.pools = Pools(self.pools)
        self.files = Files(catalog, self.pools)
        self.plain = await self.create(b"plain")
        self.kept = await self.create(b"kept")
        digest = digest_file(self.file(self.kept))
        async with catalog.write():
            catalog.copies.set_digest(self.kept, 1, digest)
            part = StoredPart(self.volume, 0, 1, 0, SIZE, 40, SIZE)
            catalog.copies.add(self.kept, 1, 1, part, CopyState.VALID)
            catalog.inodes.set_state(self.kept, FileState.PREMIGRATED)

    async def create(self, name):
        async with self.catalog.write():
            attr = self.catalog.names.create(
                ROOT, name, stat.S_IFREG | 0o644, 0, 0, 1, pool=self.p.id
            )
        self.files.born(attr)
        live = self.files.open(attr.ino, write=True)
        await self.files.write(live, 0, b"x" * SIZE)
        self.files.close(live, write=True)
        await self.files.flush_closed()
        return attr.ino

    def file(self, ino, pool=None):
        return type(self.path)((pool or self.p).path_of(ino))

    async def fsck(self, **options):
        return await fsck(self.catalog, self.pools, **options)

    async def mends(self, check, severity=Severity.NOTE, **options):
        """Only that check sees it, once; repaired, nothing is left."""
        report = await self.fsck(repair=True, **options)
        assert [(f.check, f.severity) for f in report.findings] == [(check, severity)]
        assert report.checks[check] == 1
        assert report.left == []
        assert report.repaired
        assert "clean" in report.verdict
        return report

    def lost(self, pool=None):
        folder = (pool or self.p).path / "lost+found"
        return sorted(os.listdir(folder)) if folder.exists() else []

    async def released(self):
        live = self.files.hold(self.kept)
        await self.files.release(live, 4096)
        self.files.drop(live)


@pytest.fixture
async def world(tmp_path):
    world = World(tmp_path)
    await world.start()
    yield world
    world.catalog.close()


async def test_all_is_well(world):
    report = await world.fsck(deep=True, files=world.files)
    assert report.findings == []
    assert report.clean
    assert len(report.checks) > 40
    assert report.as_dict()["clean"] is True


async def test_lost_bytes_are_said(world):
    world.file(world.plain).unlink()
    report = await world.fsck(repair=True)
    (loss,) = report.left
    assert (loss.check, loss.severity) == ("bytes_are_in_the_pool", Severity.LOSS)
    assert loss.ino == world.plain
    assert not report.clean
    assert "DATA IS MISSING" in report.verdict


async def test_lost_bytes_are_said_while_a_reader_has_the_file_open(world):
    await world.released()
    live = world.files.open(world.kept, write=False)
    async with world.catalog.write():
        world.catalog.volumes.set_state(world.volume, VolumeState.LOST, "broken")
    report = await world.fsck(files=world.files)
    assert [f.check for f in report.findings] == ["absent_bytes_are_on_discs"]
    world.files.close(live, write=False)


async def test_lost_bytes_with_a_copy_become_a_stub(world):
    world.file(world.kept).unlink()
    await world.mends("bytes_are_in_the_pool", Severity.ERROR)
    attr = world.catalog.inodes.get_raw(world.kept)
    assert attr.state == FileState.MIGRATED
    assert world.catalog.inodes.absent(world.kept) == [Range(0, SIZE)]


async def test_a_file_that_was_cut_is_taken_from_its_copy(world):
    os.truncate(world.file(world.kept), 10_000)
    await world.mends("pool_files_have_the_files_size", Severity.ERROR)
    assert world.catalog.inodes.absent(world.kept) == [Range(8192, SIZE)]


@pytest.mark.parametrize("size", [10, SIZE + 5])
async def test_sizes_of_clean_files_are_healed(world, size):
    os.truncate(world.file(world.plain), size)
    await world.mends("pool_files_have_the_files_size")
    assert world.file(world.plain).stat().st_size == SIZE


async def test_bytes_of_another_pool_are_found(world):
    target = world.file(world.plain, world.q)
    target.parent.mkdir(parents=True)
    world.file(world.plain).rename(target)
    report = await world.fsck(repair=True)
    assert {f.check for f in report.findings} == {"bytes_are_in_the_pool"}
    assert report.left == []
    assert world.catalog.inodes.get_raw(world.plain).pool == world.q.id


async def test_a_second_file_is_set_aside(world):
    target = world.file(world.plain, world.q)
    target.parent.mkdir(parents=True)
    target.write_bytes(b"old")
    await world.mends("pool_files_are_in_one_pool")
    (name,) = world.lost(world.q)
    assert (world.q.path / "lost+found" / name).read_bytes() == b"old"
    assert world.file(world.plain).stat().st_size == SIZE


async def test_a_second_file_is_set_aside_while_the_first_is_in_use(world):
    target = world.file(world.plain, world.q)
    target.parent.mkdir(parents=True)
    target.write_bytes(b"old")
    live = world.files.open(world.plain, write=True)
    try:
        await world.mends("pool_files_are_in_one_pool", files=world.files)
        assert os.pread(world.files.file(live), 3, 0) == b"xxx"
    finally:
        world.files.close(live, write=True)
    assert not target.exists()


async def test_strangers_are_set_aside_and_never_deleted(world):
    for name in ("one", "two"):
        (world.p.path / "data" / name).write_text(name)
    orphan = world.file(world.plain + 100)
    orphan.parent.mkdir(parents=True, exist_ok=True)
    orphan.write_bytes(b"who")
    report = await world.fsck(repair=True)
    assert [f.check for f in report.findings] == ["pool_files_have_inodes"] * 3
    assert report.left == []
    assert len(world.lost()) == 3
    (world.p.path / "data" / "one").write_text("again")
    await world.fsck(repair=True)
    assert len(world.lost()) == 4


async def test_a_number_beyond_the_catalog_is_never_given(world):
    file = world.file(5_000_000)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"from a newer catalog")
    await world.mends("pool_files_have_inodes", Severity.ERROR)
    assert await world.create(b"new") > 5_000_000


async def test_leaked_blocks_are_punched(world):
    await world.released()
    with open(world.file(world.kept), "r+b") as out:
        out.seek(50_000)
        out.write(b"leak")
    await world.mends("absent_ranges_take_no_space")
    assert world.file(world.kept).stat().st_blocks * 512 <= 8192


async def test_deep_finds_rot_and_keeps_the_rotten_bytes(world):
    with open(world.file(world.kept), "r+b") as out:
        out.write(b"rot")
    assert (await world.fsck()).findings == []
    await world.mends("archived_bytes_match_their_checksums", Severity.ERROR, deep=True)
    assert world.catalog.inodes.get_raw(world.kept).state == FileState.MIGRATED
    (name,) = world.lost()
    assert (world.p.path / "lost+found" / name).read_bytes().startswith(b"rot")


async def test_orphans_go_with_their_bytes(world):
    async with world.catalog.write():
        world.catalog.names.unlink(ROOT, b"plain", 9)
    await world.mends("unlinked_are_in_the_trash")
    assert not world.file(world.plain).exists()


async def test_what_is_in_use_is_left_alone(world):
    live = world.files.open(world.plain, write=True)
    async with world.catalog.write():
        world.catalog.names.unlink(ROOT, b"plain", 9)
    await world.files.write(live, SIZE, b"more")
    report = await world.fsck(files=world.files, repair=True)
    assert report.findings == []
    world.files.close(live, write=True)


async def test_a_file_written_when_the_power_went_is_no_finding(world):
    live = world.files.open(world.plain, write=True)
    await world.files.write(live, SIZE, b"more")
    assert (await world.fsck()).findings == []
    world.files.close(live, write=True)


async def test_the_library_and_the_spool(world, tmp_path):
    slot = Element(1, ElementKind.STORAGE, True, "D99", magazine=1, slot=1)
    report = await world.fsck(library=[slot])
    name = "volumes_are_where_they_should_be"
    assert [(f.check, f.severity) for f in report.findings] == [
        (name, Severity.ERROR), (name, Severity.NOTE),
    ]  # fmt: skip
    there = Element(1, ElementKind.STORAGE, True, "D01", magazine=1, slot=1)
    spool = tmp_path / "spool"
    (spool / "old").mkdir(parents=True)
    (spool / "old" / "x").write_text("x")
    await world.mends("spool_holds_only_burns", library=[there], spool=spool)
    assert os.listdir(spool) == []


async def test_a_healthy_spool_has_no_findings(world, tmp_path):
    keeper = Spool(tmp_path / "spool", 10**6)
    async with world.catalog.write():
        world.catalog.queues.add_burn(world.volume, 1, keeper.image(world.volume), 1)
    made, retired = keeper.image(world.volume), keeper.image(77)
    leftover = keeper.path / "batch-99"
    for folder in (leftover, (keeper.path / made).with_suffix(".staging")):
        folder.mkdir(parents=True)
    for image in (made, retired):
        (keeper.path / image).touch()
    await keeper.retire(retired)
    options = {"spool": keeper.path, "files": world.files, "kept": keeper.keeps}
    name = "spool_holds_only_burns"

    async def strangers(**options):
        report = await world.fsck(**options)
        return [finding.object for finding in report.findings if finding.check == name]

    async with keeper.batch() as running:
        running.mkdir()
        assert await strangers(**options) == ["spool file batch-99"]
        leftover.rmdir()
        assert await strangers(**options) == []
    assert await strangers(spool=keeper.path) == []


async def test_a_damaged_catalog_is_said_and_not_written_to(world):
    world.catalog.close()
    path = world.path / "state" / "catalog.db"
    world.catalog = Catalog.open(world.path / "state")
    await world.catalog.checkpoint()
    root = world.catalog.db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'copies'").get
    size = world.catalog.db.execute("PRAGMA page_size").get
    world.catalog.close()
    with open(path, "r+b") as out:
        out.seek((root - 1) * size)
        out.write(b"\xee" * size)
    world.catalog = Catalog.open(world.path / "state")
    report = await world.fsck(repair=True)
    assert not report.clean
    assert report.repaired == 0
    assert any(finding.object == "catalog" for finding in report.findings)
