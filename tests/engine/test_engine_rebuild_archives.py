"""Discs of two archives in one library: a rebuild never takes inodes of one for the other's."""

from __future__ import annotations

import shutil

import pytest

from hsmfs.catalog.catalog import Catalog
from hsmfs.engine.backups import offline
from hsmfs.engine.rebuild.run import Rebuild
from hsmfs.engine.rebuild.sources import Images, Robot, _Tour
from hsmfs.errors import Conflict, NotFound
from hsmfs.states import VolumeState
from hsmfs.types import ROOT

OURS, THEIRS = b"ours" * 3000, b"theirs" * 3000


def put_disc(theirs, ours) -> None:
    """The one disc that theirs has written lies in ours as Z1, in the place of a blank one."""
    slots = ours.config.library.path / "elements"
    (disc,) = {path.parent for path in theirs.config.library.path.rglob("disc.iso")}
    (blank, *_) = sorted(slots.glob("*/S0001D04"))
    shutil.rmtree(blank)
    shutil.copytree(disc, blank.with_name("Z1"), symlinks=True)


@pytest.fixture
async def both(make_lab):
    """Ours, without its catalog, with a newer disc of another archive in it, called Z1.

    Both archives have one file, of the same inode number and version.
    """
    ours, theirs = make_lab("b", slots=4), make_lab("a", slots=4)
    for lab, name, data in ((ours, b"mine", OURS), (theirs, b"other", THEIRS)):
        async with lab.running() as engine:
            ino = await lab.file(name, data)
            await lab.archive(ino, release=True)
            lab.uuid, lab.ino = engine.catalog.sets.archive, ino
    assert ours.ino == theirs.ino and ours.uuid != theirs.uuid
    put_disc(theirs, ours)
    await offline(ours.config, ours.root / "backups", None)
    shutil.rmtree(ours.config.daemon.state)
    return ours, theirs


async def rebuild(lab, source=None, **options):
    source = source or Robot(lab.config.library)
    return await Rebuild(lab.config, source, lambda p: None, new_pools=False, **options).run()


async def served(lab):
    async with lab.running() as engine:
        assert engine.catalog.sets.archive == lab.uuid
        assert engine.catalog.names.lookup(ROOT, b"other") is None
        attr = engine.catalog.names.lookup(ROOT, b"mine")
        assert await lab.read(attr.ino) == OURS
        return engine.catalog.volumes.by_barcode("Z1")


async def test_nothing_is_guessed(both):
    ours, theirs = both
    with pytest.raises(Conflict, match="several archives") as told:
        await rebuild(ours)
    assert ours.uuid in str(told.value) and theirs.uuid in str(told.value)
    with pytest.raises(NotFound):
        await rebuild(ours, archive="no such")
    report = await rebuild(ours, archive=ours.uuid)
    assert report.foreign == {"Z1": theirs.uuid}
    disc = await served(ours)
    assert disc.state is VolumeState.DAMAGED and "adopt" in disc.reason


async def test_images(both, tmp_path):
    ours, theirs = both
    (tmp_path / "images").mkdir()
    for number, path in enumerate(sorted(ours.config.library.path.rglob("disc.iso"))):
        shutil.copy(path, tmp_path / f"images/{number}.iso")
    with pytest.raises(Conflict):
        await rebuild(ours, Images(tmp_path / "images"))
    report = await rebuild(ours, Images(tmp_path / "images"), archive=ours.uuid)
    assert list(report.foreign.values()) == [theirs.uuid]
    catalog = Catalog.open(ours.config.daemon.state)
    assert [name for name, _ in names(catalog)] == [b"mine"]
    catalog.close()


async def test_a_backup_tells_whose_it_is(both):
    ours, theirs = both
    report = await rebuild(ours, backup=ours.root / "backups")
    assert report.foreign == {"Z1": theirs.uuid}
    await served(ours)


def names(catalog):
    return catalog.db.execute("SELECT name, ino FROM dentries WHERE parent = 1").fetchall()


@pytest.mark.expect_log("inventory differs")
async def test_a_snapshot_that_knows_adopted_discs_tells_whose_it_is(make_lab, monkeypatch):
    """Though they are visited first."""
    ours = make_lab("b", slots=4, more="[catalog]\nsnapshot_every = 1\n")
    theirs = make_lab("a", slots=4)
    async with theirs.running():
        await theirs.archive(await theirs.file(b"other", THEIRS))
    async with ours.running():
        pass  # its library exists
    put_disc(theirs, ours)
    async with ours.running() as engine:
        ours.uuid = engine.catalog.sets.archive
        async with engine.catalog.write():
            into = engine.catalog.names.create(ROOT, b"in", 0o040755, 0, 0, 1)
        async for _ in engine.disc_adopter.adopt([], ["Z1"], into):
            pass
        await ours.archive(await ours.file(b"mine", OURS))
    shutil.rmtree(ours.config.daemon.state)
    monkeypatch.setattr(_Tour, "_choose", lambda self, open_: max(open_))
    report = await rebuild(ours)
    assert (report.foreign, report.unread) == ({}, {})
    async with ours.running() as engine:
        assert engine.catalog.sets.archive == ours.uuid
        for name, data in ((b"/mine", OURS), (b"/in/other", THEIRS)):
            assert await ours.read(engine.catalog.names.resolve(name).ino) == data
