"""A rebuild with drives that do not work: no disc is given up for the fault of one drive."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hsmfs.catalog.catalog import Catalog
from hsmfs.catalog.draft import Disc
from hsmfs.engine.rebuild.crew import Crew
from hsmfs.engine.rebuild.harvest import Harvest
from hsmfs.engine.rebuild.run import Rebuild
from hsmfs.engine.rebuild.sources import Robot
from hsmfs.errors import DriveError, HsmError
from hsmfs.states import VolumeState

DEAD = {"kind": "load_fails", "times": None}


@pytest.fixture
async def lost(site):
    """A site with four written discs whose catalog is gone; what its copies were."""
    async with site.running():
        for number in range(4):
            ino = await site.file(b"f%d" % number, 3000)
            await site.archive(ino, copies=1)
    await site.library.close()
    site.old = rows(site)
    site.catalog.close()
    for path in (site.root / "state").iterdir():
        path.unlink()
    yield site
    if not (site.root / "state/catalog.db").exists():
        site.catalog = Catalog.create(site.root / "other")


def rows(site):
    return set(site.catalog.db.execute("SELECT ino, version, volume, sector FROM copies"))


async def rebuild(site):
    work = Rebuild(site.config, Robot(site.config.library), lambda p: None, new_pools=False)
    report = await work.run()
    site.catalog = Catalog.open(site.root / "state")
    return report


@pytest.mark.expect_log("used no more")
async def test_a_dead_drive_costs_no_disc(lost):
    lost.fail(DEAD | {"drive": "d1"})
    report = await rebuild(lost)
    assert (report.unread, report.findings) == ({}, 0)
    assert list(report.drives) == ["d1"]
    assert len(rows(lost)) == len(lost.old)


async def test_a_disc_that_one_drive_does_not_read_is_read_in_the_other(lost):
    lost.fail({"kind": "unreadable", "drive": "d1", "sector": 0, "count": 1 << 20})
    report = await rebuild(lost)
    assert (report.unread, report.drives) == ({}, {})
    assert len(rows(lost)) == len(lost.old)


@pytest.mark.expect_log("disc passed over")
async def test_a_disc_that_no_drive_reads_is_named(lost):
    bad = min(path.parent.name for path in (lost.root / "library").rglob("disc.iso"))
    lost.fail({"kind": "unreadable", "barcode": bad, "sector": 0, "count": 1 << 20})
    report = await rebuild(lost)
    assert list(report.unread) == [bad]
    assert lost.catalog.volumes.by_barcode(bad).state is VolumeState.DAMAGED


@pytest.mark.expect_log("used no more")
async def test_without_a_drive_that_works_there_is_no_catalog(lost):
    lost.fail(DEAD)
    with pytest.raises(DriveError, match=r"d1.*d2"):
        await rebuild(lost)
    lost.fail()
    assert len((await rebuild(lost)).unread) == 0
    assert len(rows(lost)) == len(lost.old)


async def test_discs_of_one_uuid_do_not_meet_in_the_folder(tmp_path):
    """Two drives may have a disc in hand and the one that was made anew of it."""
    harvest = Harvest(tmp_path)
    disc = Disc("u", "A", "A", 1, "", 0, 0, 1, None, "u", 1, 1, 0)
    anew = replace(disc, barcode="B")
    for path in (harvest.manifest, harvest.places, harvest.extract):
        assert path(disc) != path(anew)


async def test_a_full_disk_says_so_plainly(site):
    async def use(drive, barcode):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        await Crew(site.library).each(lambda code: True, min, use)


@pytest.mark.expect_log("used no more")
async def test_a_drive_that_keeps_its_disc_is_used_no_more(site, monkeypatch):
    used: list[tuple[str, str]] = []
    first = site.library.drives[0]

    async def stuck():
        raise DriveError("drive d1 does not give its disc back")

    monkeypatch.setattr(first, "eject", stuck)
    crew = Crew(site.library)

    async def use(drive, barcode):
        used.append((drive.name, barcode))
        if len(used) == 1:
            raise HsmError("not this one")

    discs = [e.barcode for e in await crew.elements() if e.barcode]
    faults = await crew.each(lambda code: code not in {c for _, c in used[1:]}, min, use)
    assert [name for name, _ in used].count("d1") == 1
    assert list(crew.out) == ["d1"]
    assert {code for _, code in used} == set(discs)
    assert list(faults) in ([], [used[0][1]])
