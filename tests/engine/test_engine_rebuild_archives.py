"""Discs of two archives in one library: a rebuild never takes inodes of one for the other's."""

from __future__ import annotations

import shutil

import pytest

from hsmfs.catalog.catalog import Catalog
from hsmfs.engine.backups import offline
from hsmfs.engine.rebuild.run import Rebuild
from hsmfs.engine.rebuild.sources import Images, Robot
from hsmfs.errors import Conflict, NotFound
from hsmfs.states import VolumeState
from hsmfs.types import ROOT

OURS, THEIRS = b"ours" * 3000, b"theirs" * 3000


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
    slots = ours.config.library.path / "elements"
    (disc,) = {path.parent for path in theirs.config.library.path.rglob("disc.iso")}
    (blank, *_) = sorted(slots.glob("*/S0001D04"))
    shutil.rmtree(blank)
    shutil.copytree(disc, blank.with_name("Z1"), symlinks=True)
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
