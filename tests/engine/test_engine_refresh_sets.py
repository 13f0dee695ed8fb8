"""Sets with parity are replaced: a parity disc anew, a whole set by its files, on larger discs."""

from __future__ import annotations

import json

import pytest

from hsmfs import config as configs
from hsmfs.engine import set_views
from hsmfs.engine.refresh import PARITY, REBUILD, REPACK
from hsmfs.library.simulated.hands import put_in, take_out
from hsmfs.library.simulated.layout import ELEMENTS, GEOMETRY_FILE
from hsmfs.states import FileState, SetState, VolumeState

SETS = '[sets]\nparity = "raid5"\ndiscs = 3\n'
DATA = [bytes(range(256)) * 20_000, bytes(reversed(range(256))) * 20_000]


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr("hsmfs.engine.refresh.LOOK", 0.1)


def sets_lab(make_lab, more="", **settings):
    return make_lab(**{"slots": 8, "disc": "8 MiB", "more": SETS + more} | settings)


async def filled(lab, data=DATA):
    """Files, each on a data disc of one closed set; their inodes and the set's discs."""
    sets = lab.engine.catalog.sets
    inos = []
    for number, content in enumerate(data):
        inos.append(await lab.file(b"f%d" % number, content))
        await lab.archive(inos[-1])
    (group,) = sets.all()
    await lab.engine.migrator.sets.close(group)
    await lab.until(lambda: sets.get(group.id).state is SetState.CLOSED)
    return inos, sets.discs(group.id)


async def copied(lab) -> None:
    """The files of all orders are on other discs; only the parity of these is missing."""
    rows = lab.engine.catalog.refreshes.open
    await lab.until(
        lambda: any(row.error.endswith(PARITY) for row in rows())
        and all(row.error.endswith(PARITY) or not row.error for row in rows()),
        60, flush=True,
    )  # fmt: skip


async def close_sets(lab) -> None:
    for group in lab.engine.catalog.sets.unfinished():
        await lab.engine.migrator.sets.close(group)


async def replaced(lab) -> None:
    await lab.until(lambda: not lab.engine.catalog.refreshes.open(), 60, flush=True)


@pytest.mark.expect_log("unreadable|is suspect|failed its test")
async def test_a_parity_disc_that_fails_its_test_is_made_anew(make_lab):
    lab = sets_lab(make_lab)
    async with lab.running() as engine:
        _, discs = await filled(lab)
        bad = discs[2]
        lab.fail({"kind": "unreadable", "barcode": bad.barcode, "sector": 40, "count": 1})
        await engine.scrubber.ask([bad], "test")
        sets = engine.catalog.sets
        await lab.until(lambda: sets.discs(bad.set_id)[2].barcode != bad.barcode, 60)
        new = sets.discs(bad.set_id)[2]
        assert (new.state, new.set_index) == (VolumeState.FULL, 2)
        assert engine.catalog.volumes.get(bad.id).state is VolumeState.RETIRED
        assert [row.kind for row in engine.catalog.refreshes.all()] == [REBUILD]


@pytest.mark.expect_log("inventory differs|lost")
@pytest.mark.parametrize("lost", [False, True])
async def test_a_disc_that_was_made_anew_leaves_a_certificate(make_lab, lost):
    """One that was lost, when it turns up again."""
    lab = sets_lab(make_lab)
    async with lab.running() as engine:
        _, discs = await filled(lab)
        old, root, slot = discs[0].barcode, lab.config.library.path, discs[0].element
        if lost:
            await engine.mounts.take_out(old)
            slot = engine.robot.where(old).address
            take_out(root, old)
            await engine.mounts.look()
        assert await engine.replace_disc(discs[0], "test") == "rebuild"
        await lab.until(lambda: engine.catalog.sets.rebuild(discs[0].id) is None, 60)
        if lost:
            assert not engine.catalog.refreshes.all()
            put_in(root, old, slot)
            await engine.mounts.look()
        await replaced(lab)
        retired = engine.catalog.volumes.by_barcode(old)
        assert retired.burned_ns == discs[0].burned_ns
        row = engine.catalog.refreshes.get(retired.id)
        facts = json.loads((engine.refresher.certificates / f"{row.certificate}.json").read_text())
        assert (facts["disc"], facts["reason"]) == (old, REBUILD)
        assert [(f["path"], f["lives_on"]) for f in facts["files"]] == [("/f0", True)]


async def test_a_set_is_refreshed_as_a_whole(make_lab):
    lab = sets_lab(make_lab)
    async with lab.running() as engine:
        inos, discs = await filled(lab)
        for ino in inos:
            await engine.releaser.release(ino, "test")
        asked = await engine.refresher.ask([discs[0]], "refresh", "test")
        assert {v.id for v in asked} == {v.id for v in discs}
        await replaced(lab)
        for disc in discs:
            assert engine.catalog.volumes.get(disc.id).state is VolumeState.RETIRED
            paper = engine.catalog.refreshes.get(disc.id).certificate
            assert (engine.refresher.certificates / f"{paper}.json").exists()
        old = set_views.all_sets(engine)[0]
        assert (old["state"], old["missing"]) == ("retired", 0)
        await lab.until(lambda: not engine.catalog.queues.migrations(), 60, flush=True)
        for ino, data in zip(inos, DATA, strict=True):
            assert engine.files.attr(ino).state == FileState.MIGRATED
            assert engine.catalog.copies.proven(ino, 1) == 1  # no disc was spent on a second one
            assert lab.disc(ino)[0].id not in {v.id for v in discs}
            assert await lab.read(ino) == data


async def test_a_set_of_mostly_dead_files_is_repacked_by_itself(make_lab, monkeypatch):
    monkeypatch.setattr("hsmfs.engine.refresh.REPACK_LOOK", 0.3)
    lab = sets_lab(make_lab, "[scrub]\nrepack_below = 30\n")
    async with lab.running() as engine:
        (dead, alive), discs = await filled(lab, [DATA[0], b"alive" * 1000])
        orders = engine.catalog.refreshes
        assert not orders.all()
        async with engine.catalog.write():
            engine.catalog.names.unlink(1, b"f0", 5)
        await engine.files.purge(dead)
        await lab.until(lambda: len(orders.all()) == 3, flush=True)
        assert {row.kind for row in orders.all()} == {REPACK}
        await copied(lab)
        await close_sets(lab)
        await replaced(lab)
        assert {engine.catalog.volumes.get(v.id).state for v in discs} == {VolumeState.RETIRED}
        assert await lab.read(alive) == b"alive" * 1000


@pytest.mark.expect_log("inventory differs|lost")
async def test_old_discs_move_to_larger_ones(make_lab):
    lab = sets_lab(make_lab)
    async with lab.running() as engine:
        inos, discs = await filled(lab)
        blanks = [v.barcode for v in engine.catalog.volumes.all(VolumeState.BLANK)]
        places = [engine.catalog.volumes.by_barcode(b).element for b in blanks]
    root = lab.config.library.path
    geometry = root / ELEMENTS / GEOMETRY_FILE
    geometry.write_text(json.dumps(json.loads(geometry.read_text()) | {"disc_bytes": 16 << 20}))
    for number, (barcode, place) in enumerate(zip(blanks, places, strict=True)):
        take_out(root, barcode)
        put_in(root, f"L{number:04d}", place)
    lab.config = configs.loads(lab.text.replace('disc = "8 MiB"', 'disc = "16 MiB"'))
    async with lab.running() as engine:
        await engine.mounts.inventory.sync()
        await engine.refresher.ask([discs[0]], "refresh", "larger discs")
        await copied(lab)
        await close_sets(lab)
        await replaced(lab)
        (new,) = {lab.disc(ino)[0].barcode for ino in inos}
        assert new.startswith("L")  # what filled two discs lies on one
        for ino, data in zip(inos, DATA, strict=True):
            assert engine.files.attr(ino).state == FileState.PREMIGRATED
            assert await lab.read(ino) == data


@pytest.mark.expect_log("inventory differs|lost")
@pytest.mark.parametrize("needs", ["parity", "copies"])
async def test_old_discs_count_until_the_new_ones_have_parity_too(make_lab, needs):
    """Else the loss of one new disc would lose files that had outlived the loss of any old one."""
    lab = sets_lab(make_lab, f'release_needs = "{needs}"\n')
    async with lab.running() as engine:
        (dead, alive), discs = await filled(lab, [DATA[0], DATA[1][:1_000_000]])
        await engine.releaser.release(alive, "test")
        async with engine.catalog.write():
            engine.catalog.names.unlink(1, b"f0", 5)
        await engine.files.purge(dead)
        await engine.refresher.ask([discs[0]], REPACK, "test")
        await copied(lab)
        assert engine.catalog.copies.proven(alive, 1) == 2
        assert engine.catalog.copies.protected(alive, 1) == 1
        assert {engine.catalog.volumes.get(v.id).state for v in discs} == {VolumeState.FULL}
        (new,) = [v for v in engine.catalog.volumes.all(VolumeState.FULL) if v.id not in
                  {disc.id for disc in discs}]  # fmt: skip
        take_out(lab.config.library.path, new.barcode)
        await engine.mounts.inventory.sync()
        assert await lab.read(alive) == DATA[1][:1_000_000]


async def test_an_order_for_its_files_meanwhile_spends_no_disc(make_lab):
    lab = sets_lab(make_lab)
    async with lab.running() as engine:
        inos, discs = await filled(lab, [DATA[0][:1_000_000], DATA[1][:1_000_000]])
        for ino in inos:
            await engine.releaser.release(ino, "test")
        await engine.refresher.ask([discs[0]], "refresh", "test")
        await copied(lab)
        await engine.migrator.archive(inos, 1, "somebody")
        await close_sets(lab)
        await replaced(lab)
        await lab.until(lambda: not engine.catalog.queues.migrations(), 60, flush=True)
        assert [engine.catalog.copies.proven(ino, 1) for ino in inos] == [1, 1]
        assert {c.copy_no for ino in inos for c in engine.catalog.copies.all_of(ino)} == {1, 2}
