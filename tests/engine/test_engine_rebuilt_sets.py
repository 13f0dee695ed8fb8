"""After a rebuild from discs alone: sets are sets, lost members have rows, nothing is sound yet."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hsmfs.catalog.catalog import Catalog
from hsmfs.engine.rebuild import sample
from hsmfs.engine.rebuild.run import Rebuild, Report
from hsmfs.engine.rebuild.sources import Images, Robot
from hsmfs.library.simulated.hands import put_in, take_out
from hsmfs.states import SetState, VolumeState

SETS = 'recall_retries = 1\n[sets]\nparity = "raid5"\ndiscs = 3\n'
DATA = [bytes(range(256)) * 20_000, bytes(reversed(range(256))) * 20_000]
LOG = "inventory differs|lost|passed over|disc cannot be had|is suspect|do not come back"


@pytest.fixture
def lab(make_lab):
    return make_lab(slots=8, disc="8 MiB", more=SETS)


async def filled(lab) -> list[str]:
    """Two files, each on a disc of one closed set of 2+1; the barcodes of its discs.

    A rehearsal of the rebuild with one disc takes one with files, though parity was burned last.
    """
    async with lab.running() as engine:
        for number, data in enumerate(DATA):
            await lab.archive(await lab.file(b"f%d" % number, data))
        await lab.until(lambda: [s.state for s in engine.catalog.sets.all()] == [SetState.CLOSED])
        rehearsal = sample.order(engine, 1)
        await rehearsal.done.wait()
        assert rehearsal.result is not None
        assert rehearsal.result["lines"] == rehearsal.result["same"] == 1
        (group,) = engine.catalog.sets.all()
        return [disc.barcode for disc in engine.catalog.sets.discs(group.id)]


async def rebuilt(lab, *, images: bool = False, backup: Path | None = None) -> Report:
    shutil.rmtree(lab.config.daemon.state)
    shutil.rmtree(lab.config.pool[0].path)
    lab.config.pool[0].path.mkdir()
    config = lab.config
    source = Images(config.library.path) if images else Robot(config.library)
    work = Rebuild(config, source, lambda p: None, new_pools=True, backup=backup)
    return await work.run()


def member(engine, index: int):
    (group,) = engine.catalog.sets.all()
    assert group.state is SetState.CLOSED
    return next(d for d in engine.catalog.sets.discs(group.id) if d.set_index == index)


@pytest.mark.expect_log(LOG)
@pytest.mark.parametrize("images", [False, True], ids=["library", "images"])
async def test_files_of_a_lost_disc_that_no_snapshot_knows_come_back_by_parity(lab, images):
    """The last data disc alone told of itself; only the parity disc knows that there was one."""
    discs = await filled(lab)
    take_out(lab.config.library.path, discs[1])
    shutil.rmtree(lab.config.library.path / "shelf")
    report = await rebuilt(lab, images=images)
    assert (report.unknown, report.unread) == ({}, {})
    assert images or report.missing == [discs[1]]
    async with lab.running() as engine:
        lost = member(engine, 1)
        assert (lost.barcode, lost.element) == (discs[1], None)
        for number, data in enumerate(DATA):
            assert await lab.read(engine.catalog.names.resolve(b"/f%d" % number).ino) == data
        await engine.renewer.ask(lost)
        await lab.until(lambda: engine.catalog.sets.rebuild(lost.id) is None, 60)
        new = member(engine, 1)
        assert new.state is VolumeState.FULL and new.barcode != discs[1]


@pytest.mark.expect_log(LOG)
async def test_files_of_more_lost_discs_than_parity_bears_are_told_plainly(lab):
    discs = await filled(lab)
    for barcode in discs[:2]:
        take_out(lab.config.library.path, barcode)
    report = await rebuilt(lab)
    assert set(report.unknown) == set(discs[:2])
    assert all("gone" in why for why in report.unknown.values())


@pytest.mark.expect_log(LOG)
async def test_a_lost_parity_disc_is_made_anew(make_lab):
    lab = make_lab(slots=8, disc="8 MiB", more=SETS.replace("raid5", "raid6").replace("3", "4"))
    discs = await filled(lab)
    take_out(lab.config.library.path, discs[3])
    await rebuilt(lab)
    async with lab.running() as engine:
        lost = member(engine, 3)
        assert lost.state is VolumeState.LOST
        await engine.renewer.ask(lost)
        await lab.until(lambda: engine.catalog.sets.rebuild(lost.id) is None, 60)
        assert member(engine, 3).state is VolumeState.FULL


@pytest.mark.expect_log(LOG + "|parity put off")
async def test_a_set_whose_parity_discs_are_all_lost_gets_new_ones(make_lab, monkeypatch):
    """Nothing tells that there were any: it is open again, and closed as any other."""
    monkeypatch.setattr("hsmfs.engine.sets.AGAIN", 0.1)
    lab = make_lab(slots=8, disc="8 MiB", more=SETS.replace("raid5", "raid6").replace("3", "4"))
    discs = await filled(lab)
    for barcode in discs[2:]:
        take_out(lab.config.library.path, barcode)
    await rebuilt(lab)
    async with lab.running() as engine:
        (group,) = engine.catalog.sets.all()
        assert group.state is not SetState.CLOSED
        await lab.until(lambda: engine.catalog.sets.get(group.id).state is SetState.CLOSED, 60)
        new = [member(engine, index).barcode for index in (2, 3)]
        assert set(new).isdisjoint(discs)


@pytest.mark.expect_log(LOG)
@pytest.mark.parametrize("known", ["neither", "the old one", "both"])
async def test_a_disc_made_anew_and_the_old_one_have_one_place(lab, tmp_path, known):
    """The old disc is still in the library; known: which of them the backup has."""
    discs = await filled(lab)
    backups = tmp_path / "backups"
    async with lab.running() as engine:
        old = member(engine, 0)
        if known == "the old one":
            await engine.backups.make(backups)
        await engine.renewer.ask(old)
        await lab.until(lambda: engine.catalog.sets.rebuild(old.id) is None, 60)
        new = member(engine, 0).barcode
        if known == "both":
            await engine.backups.make(backups)
    report = await rebuilt(lab, backup=None if known == "neither" else backups)
    assert report.findings == 0
    async with lab.running() as engine:
        (group,) = engine.catalog.sets.all()
        in_set = [disc.barcode for disc in engine.catalog.sets.discs(group.id)]
        assert in_set == [new, *discs[1:]]
        retired = engine.catalog.volumes.by_barcode(old.barcode).state is VolumeState.RETIRED
        assert retired == (known == "both")
        take_out(lab.config.library.path, discs[1])
        await engine.mounts.inventory.sync()
        assert await lab.read(engine.catalog.names.resolve(b"/f1").ino) == DATA[1]


@pytest.mark.expect_log(LOG)
async def test_a_disc_that_was_lost_when_the_backup_was_made_is_there_again(lab, tmp_path):
    (first, *_), root = await filled(lab), lab.config.library.path
    async with lab.running() as engine:
        await engine.mounts.take_out(first)
        slot = engine.robot.where(first).address
        take_out(root, first)
        await engine.mounts.look()
        assert engine.catalog.volumes.by_barcode(first).state is VolumeState.LOST
        await engine.backups.make(tmp_path / "backups")
    put_in(root, first, slot)
    await rebuilt(lab, backup=tmp_path / "backups")
    async with lab.running() as engine:
        assert engine.catalog.volumes.by_barcode(first).state is VolumeState.FULL


@pytest.mark.expect_log(LOG + "|parity put off")
async def test_a_set_that_was_open_is_closed_after_its_discs_were_read(lab, monkeypatch):
    """No disc tells the checksum of its own image, which parity needs."""
    monkeypatch.setattr("hsmfs.engine.sets.AGAIN", 0.1)
    async with lab.running():
        await lab.archive(await lab.file(b"f0", DATA[0]))
    await rebuilt(lab)
    async with lab.running() as engine:
        (group,) = engine.catalog.sets.all()
        await engine.migrator.sets.close(group)
        await lab.until(lambda: engine.catalog.sets.get(group.id).state is SetState.CLOSED, 60)
        take_out(lab.config.library.path, member(engine, 0).barcode)
        await engine.mounts.inventory.sync()
        assert await lab.read(engine.catalog.names.resolve(b"/f0").ino) == DATA[0]


@pytest.mark.expect_log(LOG)
async def test_discs_are_suspect_until_they_are_read_then_sound(lab, monkeypatch):
    discs = await filled(lab)
    await rebuilt(lab)
    catalog = Catalog.open(lab.config.daemon.state)
    states = {v.barcode: v.state for v in catalog.volumes.all() if v.uuid}
    catalog.close()
    assert states[discs[1]] is states[discs[2]] is VolumeState.SUSPECT
    async with lab.running() as engine:
        # Nobody asked: what was never read back is due at once.
        await lab.until(
            lambda: all(engine.catalog.volumes.by_barcode(b).state is VolumeState.FULL
                        for b in discs)
        )  # fmt: skip


async def test_numbers_of_sets_go_on_after_the_names_that_are_there(lab):
    async with lab.running() as engine, engine.catalog.write():
        engine.catalog.db.execute(
            "INSERT INTO volume_sets (name, uuid, k, m, created_ns)"
            " VALUES ('SET00002', 'u', 2, 1, 1)"
        )
        assert engine.catalog.sets.add(2, 1, 1, None, 5).name == "SET00003"
