"""A catalog made again from the discs of a library: everything that was on them is there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys

import pytest
import trio

from hsmfs import clock
from hsmfs.catalog.catalog import Catalog
from hsmfs.engine.backups import Backups
from hsmfs.engine.fsck import fsck
from hsmfs.engine.rebuild.outlook import ASSUMED
from hsmfs.engine.rebuild.run import FOLDER, LOST, Rebuild
from hsmfs.engine.rebuild.sources import Images, Robot
from hsmfs.errors import ChangerError, Conflict, NotFound, PoolUnavailable
from hsmfs.pool.store import Pool
from hsmfs.states import FileState, VolumeState
from hsmfs.types import ROOT

MIB = 1 << 20
TABLES = {
    "inodes": "ino, mode, uid, gid, nlink, rdev, size, mtime_ns, ctime_ns, btime_ns, version",
    "dentries": "parent, name, ino",
    "xattrs": "*",
    "digests": "*",
    "copies": "ino, version, copy_no, volume, state, part, parts, offset, length, sector, stored,"
    " compressed, frame_ends",
}


def rows(catalog, table):
    where = " WHERE ino != 1" if table == "inodes" else ""
    return set(catalog.db.execute(f"SELECT {TABLES[table]} FROM {table}{where}").fetchall())


class Archive:
    """Some files on some discs: what a test loses the catalog of."""

    def __init__(self, site):
        self.site = site

    async def fill(self):
        site = self.site
        folder = await site.folder("患者".encode())
        self.large = await site.file(b"large", 20 * MIB)
        self.small = await site.file(b"bad\xff", 5000, folder)
        self.moved = await site.file(b"before", 5000, folder)
        async with site.catalog.write():
            site.catalog.xattrs.set(self.small, b"user.study", b"\0\1")
            site.catalog.names.link(self.small, ROOT, b"second name", 5)
        async with site.running():
            await site.archive(self.large, self.small, self.moved, copies=1)
            async with site.catalog.write():
                now = clock.now_ns()
                site.catalog.names.rename(folder, b"before", ROOT, b"after", now)
            self.late = await site.file(b"late", 7000, folder)
            await site.write(self.small, b"new bytes")
            await site.archive(self.small, self.moved, self.late, copies=2)
        self.alone = await site.file(b"alone", 3000)

    def close(self):
        self.old = {table: rows(self.site.catalog, table) for table in TABLES}
        self.site.catalog.close()

    def lose(self):
        """The state directory is gone."""
        self.close()
        shutil.rmtree(self.site.root / "state")

    async def rebuild(
        self, source=None, *, new_pools=False, backup=None, told=lambda progress: None
    ):
        work = Rebuild(
            self.site.config, source or Robot(self.site.config.library), told,
            new_pools=new_pools, backup=backup,
        )  # fmt: skip
        report = await work.run()
        self.site.catalog = Catalog.open(self.site.root / "state")
        self.site.uuid = Pool.uuid_at(self.site.root / "pool")
        await self.site.start()
        return report

    async def clean(self):
        elements = await self.site.library.changer.inventory()
        found = await fsck(self.site.catalog, self.site.pools, elements)
        assert found.clean, found.as_dict()


@pytest.fixture
async def archive(site):
    found = Archive(site)
    await found.fill()
    return found


async def test_from_the_library(archive):
    site = archive.site
    await site.library.close()
    archive.lose()
    report = await archive.rebuild()
    assert report.findings == 0 and not report.unread
    for table in ("xattrs", "digests", "copies"):
        assert rows(site.catalog, table) == archive.old[table], table
    assert rows(site.catalog, "inodes") >= {
        row for row in archive.old["inodes"] if row[0] in (archive.large, archive.late)
    }
    names = {"患者/".encode() + b"bad\xff", b"second name"}
    assert set(site.catalog.names.paths(archive.small)) == names
    assert site.catalog.names.paths(archive.moved) == [b"after"]
    # Its bytes are on disk, and on a disc that nobody has read back since: not proven.
    assert site.state(archive.large) == FileState.RESIDENT
    assert not (site.root / "state" / FOLDER).exists()
    await archive.clean()


async def test_a_file_that_was_never_archived_is_in_lost_found(archive):
    site = archive.site
    await site.library.close()
    archive.lose()
    report = await archive.rebuild()
    assert report.lost["unnamed"] == 1
    (path,) = site.catalog.names.paths(archive.alone)
    assert path == b"lost+found/#%d" % archive.alone
    assert len(site.on_disk(archive.alone)) == 3000
    assert "pool" in (site.root / "state" / LOST).read_text()


async def test_without_pools_every_byte_comes_from_discs(archive):
    site = archive.site
    await site.library.close()
    archive.lose()
    shutil.rmtree(site.root / "pool")
    with pytest.raises(PoolUnavailable):
        await archive.rebuild()
    report = await archive.rebuild(new_pools=True)
    assert report.kept_in_pools == 0
    assert site.state(archive.large) == FileState.MIGRATED
    async with site.running():
        assert (await site.read_back(archive.small)).startswith(b"new bytes")
        assert len(await site.read_back(archive.large)) == 20 * MIB
    await archive.clean()


async def test_from_images(archive, tmp_path):
    site = archive.site
    await site.library.close()
    archive.lose()
    media = site.root / "library"
    report = await archive.rebuild(Images(media))
    assert rows(site.catalog, "copies") == archive.old["copies"]
    assert report.known == len(site.volumes(VolumeState.FULL) + site.volumes(VolumeState.SUSPECT))


async def test_one_figure_says_how_long_all_phases_take(archive):
    await archive.site.library.close()
    archive.lose()
    told = []
    await archive.rebuild(told=lambda p: told.append((p.phase, p.done, p.seconds_left)))
    assert list(dict.fromkeys(phase for phase, _, _ in told)) == list(ASSUMED)
    known = [left for phase, done, left in told if phase != "discs" or done]
    assert None not in known
    assert told[0] == ("discs", 0, None)


@pytest.mark.parametrize("form", ["make", "make_file"])
async def test_a_backup_that_is_newer_than_the_snapshot_is_the_base(archive, tmp_path, form):
    site = archive.site
    await getattr(Backups(site.catalog, site.config, site.events), form)(tmp_path / "backups")
    await site.library.close()
    archive.lose()
    report = await archive.rebuild(backup=tmp_path / "backups")
    assert report.snapshot.startswith("backup ")
    assert (report.discs, report.lost) == (0, {})
    for table in TABLES:
        assert rows(site.catalog, table) == archive.old[table], table
    assert len(site.volumes(VolumeState.SUSPECT)) == 0
    await archive.clean()


async def test_a_backup_of_a_clock_that_was_ahead_puts_none_off(site, tmp_path, monkeypatch):
    dest, backups = tmp_path / "backups", Backups(site.catalog, site.config, site.events)
    with monkeypatch.context() as ahead:
        now = clock.now_ns() + 365 * 86_400 * 10**9
        ahead.setattr(clock, "now_ns", lambda: now)
        await backups.make(dest)
    assert await backups._first(dest) <= site.config.catalog.backup_interval


async def test_bytes_changed_on_disk_since_are_a_new_version(archive):
    site = archive.site
    await site.library.close()
    path = site.pool.path_of(archive.large)
    archive.lose()
    with open(path, "r+b") as file:
        file.write(b"changed")
    await archive.rebuild()
    attr = site.catalog.inodes.get_raw(archive.large)
    assert (attr.version, attr.state) == (2, FileState.RESIDENT)
    with open(path, "rb") as file:
        assert file.read(7) == b"changed"
    await archive.clean()


async def test_released_files_are_stubs_again(archive):
    site = archive.site
    async with site.running():
        await site.releaser.release(archive.large, "test")
    await site.library.close()
    archive.lose()
    report = await archive.rebuild()
    assert site.state(archive.large) == FileState.MIGRATED
    assert "set aside" in report.lost or site.catalog.inodes.absent(archive.large)
    await archive.clean()


async def test_refuses_a_catalog_and_no_images(archive, tmp_path):
    site = archive.site
    with pytest.raises(Conflict):
        await Rebuild(site.config, Images(tmp_path), lambda p: None, new_pools=False).run()
    await site.library.close()
    archive.lose()
    (tmp_path / "nothing").mkdir()
    with pytest.raises(NotFound):
        await archive.rebuild(Images(tmp_path / "nothing"))
    site.catalog = Catalog.create(site.root / "other")


async def test_a_disc_in_the_gripper_and_a_blank_one_that_is_gone(archive, tmp_path):
    site = archive.site
    await Backups(site.catalog, site.config, site.events).make(tmp_path / "backups")
    await site.library.close()
    archive.lose()
    elements = site.root / "library/elements"
    discs = sorted(elements.glob("*/*"))
    written = next(path for path in discs if (path / "disc.iso").exists())
    blank = next(path for path in discs if not (path / "disc.iso").exists())
    written.rename(elements / "00001" / written.name)
    blank.rename(tmp_path / blank.name)
    report = await archive.rebuild(backup=tmp_path / "backups")
    assert not report.unread
    assert site.catalog.volumes.by_barcode(written.name).element != 1
    gone = site.catalog.volumes.by_barcode(blank.name)
    assert gone.state is VolumeState.LOST
    await archive.clean()


async def test_a_robot_that_fails_says_so_plainly(archive):
    site = archive.site
    await site.library.close()
    archive.lose()
    fault = {"kind": "robot_jam", "leaves": "source"}
    (site.root / "library/faults.json").write_text(json.dumps([fault]))
    with pytest.raises(ChangerError):
        await archive.rebuild()
    site.catalog = Catalog.create(site.root / "other")


CONFIG = """
[daemon]
mountpoint = "/mnt/hsmfs-test"
state = "{root}/state"
[[pool]]
name = "p"
path = "{root}/pool"
[library]
kind = "simulated"
path = "{root}/library"
drives = 2
magazines = 1
slots_per_magazine = 6
import_export = 1
disc = "16 MiB"
exchange = "0 s"
load = "0 s"
seek = "0 s"
[engine]
spool = "{root}/spool"
spool_limit = "200 MiB"
"""
HSMCTL = "import sys; from hsmfs.cli.main import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.slow
@pytest.mark.parametrize(
    "point",
    [
        "rebuild.disc.taken", "rebuild.disc.recorded:2", "rebuild.snapshot.taken",
        "rebuild.draft.begun", "rebuild.batch.committed", "rebuild.settled",
        "rebuild.pools.matched", "rebuild.draft.sealed", "rebuild.in_place", "robot.lifted:2",
    ],
)  # fmt: skip
async def test_goes_on_when_killed_at(archive, point):
    site = archive.site
    await site.library.close()
    archive.lose()
    config = site.root / "hsmfs.toml"
    config.write_text(CONFIG.format(root=site.root))
    command = [sys.executable, "-c", HSMCTL, "--config", str(config), "rebuild", "--json"]
    environment = {**os.environ, "HSMFS_CRASH": point}
    killed = await trio.run_process(command, env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    again = await trio.run_process(command, capture_stdout=True, check=False)
    if point != "rebuild.in_place":
        assert again.returncode == 0, again.stdout
    site.catalog = Catalog.open(site.root / "state")
    await site.start()
    for table in ("xattrs", "digests", "copies"):
        assert rows(site.catalog, table) == archive.old[table], table
    await archive.clean()
