"""Discs of another hsmfs, taken over from the drives of the library: files, sets, parity."""

from __future__ import annotations

import shutil

import pytest

from hsmfs.engine.rebuild import sample
from hsmfs.engine.schedule import Purpose
from hsmfs.errors import Conflict, ForeignDisc, MediaError, NotFound, VolumeMissing
from hsmfs.library.simulated.hands import SHELF, place_of, put_in, take_out
from hsmfs.library.simulated.layout import element_path
from hsmfs.states import FileState, SetState, VolumeState
from hsmfs.types import ROOT

SETS = 'recall_retries = 1\n[sets]\nparity = "raid5"\ndiscs = 3\n'
DATA = {b"one": bytes(range(256)) * 20_000, b"two": bytes(reversed(range(256))) * 20_000}


@pytest.fixture
def at_b(make_lab):
    return make_lab("b", slots=10, disc="8 MiB", more=SETS)


@pytest.fixture
async def foreign(make_lab, at_b):
    """A closed set of 2+1 of another hsmfs, whose discs lie in ours as Z1, Z2 and Z3."""
    lab = make_lab("a", slots=4, disc="8 MiB", more=SETS)
    async with lab.running() as engine:
        for name, data in DATA.items():
            await lab.archive(await lab.file(name, data))
        await lab.until(lambda: [s.state for s in engine.catalog.sets.all()] == [SetState.CLOSED])
        uuid = engine.catalog.sets.all()[0].uuid
        discs = [d.barcode for d in engine.catalog.sets.discs(engine.catalog.sets.all()[0].id)]
    async with at_b.running():
        pass  # its library exists
    theirs, ours = lab.config.library.path, at_b.config.library.path
    (ours / SHELF).mkdir()
    for number, barcode in enumerate(discs, 1):
        address = place_of(ours, f"S0001D{number + 5:02d}")
        shutil.rmtree(element_path(ours, address) / f"S0001D{number + 5:02d}")
        source = element_path(theirs, place_of(theirs, barcode)) / barcode
        shutil.copytree(source, ours / SHELF / f"Z{number}", symlinks=True)
        put_in(ours, f"Z{number}", address)
    return uuid


async def adopt(lab, *barcodes, images=()):
    engine = lab.engine
    into = engine.catalog.names.lookup(ROOT, b"in")
    if into is None:
        async with engine.catalog.write():
            into = engine.catalog.names.create(ROOT, b"in", 0o040755, 0, 0, 1)
    steps = [step async for step in engine.disc_adopter.adopt(images, barcodes, into)]
    assert steps[-1]["kind"] == "end"
    return steps[-1]


def ours_disc(engine) -> str:
    group = engine.catalog.sets.all()[0]
    return engine.catalog.sets.discs(group.id)[0].barcode


def ino(lab, name: bytes) -> int:
    return lab.engine.catalog.names.resolve(b"/in/" + name).ino


@pytest.mark.expect_log("inventory differs")
async def test_discs_in_the_drive_with_their_parity(at_b, foreign):
    async with at_b.running() as engine:
        await at_b.archive(await at_b.file(b"ours", b"x" * 1000))
        told = []
        engine.files.renamed = lambda parent, name: told.append(name)
        done = await adopt(at_b, "Z1", "Z3", "Z2")
        assert (done["made"], done["discs"], done["refused"]) == (2, 3, 0)
        assert sorted(told) == [b"one", b"two"]
        ours, group = engine.catalog.sets.all()
        assert ours.name == "SET00001" and group.uuid == foreign
        assert group.name.startswith("SET00001-") and group.state is SetState.CLOSED
        assert [d.barcode for d in engine.catalog.sets.discs(group.id)] == ["Z1", "Z2", "Z3"]
        for name, data in DATA.items():
            assert engine.files.attr(ino(at_b, name)).state == FileState.MIGRATED
            assert await at_b.read(ino(at_b, name)) == data
        again = await adopt(at_b, "Z1", "Z2", "Z3")
        assert (again["made"], again["copies"]) == (0, 0)
        job = sample.order(engine, 9)
        found = [line async for line in job.lines()][-1]
        assert (found["adopted"], found["different"]) == (3, [])
        assert found["discs"] == [ours_disc(engine)]


@pytest.mark.expect_log("inventory differs|disc cannot be had|lost")
async def test_parity_serves_a_disc_that_was_lost_after(at_b, foreign):
    async with at_b.running() as engine:
        await adopt(at_b, "Z1", "Z2", "Z3")
        for bay in engine.mounts._bays.values():
            await engine.mounts.take_out(engine.robot.in_drive(bay.drive) or "")
        take_out(at_b.config.library.path, "Z1")
        await engine.mounts.inventory.sync()
        assert engine.catalog.volumes.by_barcode("Z1").state is VolumeState.LOST
        for name, data in DATA.items():
            assert await at_b.read(ino(at_b, name)) == data


@pytest.mark.expect_log("inventory differs|lost|is suspect|disc cannot be had")
async def test_a_member_that_nobody_saw_is_made_anew_and_adopted(at_b, foreign):
    """Its disc never came: parity makes it, and what is on it is taken over then."""
    async with at_b.running() as engine:
        assert (await adopt(at_b, "Z1", "Z3"))["made"] == 1
        lost = next(v for v in engine.catalog.volumes.all(VolumeState.LOST) if v.uuid)
        group = engine.catalog.sets.by_uuid(foreign)
        assert (lost.set_id, lost.set_index) == (group.id, 1)
        await engine.renewer.ask(lost)
        await at_b.until(lambda: engine.catalog.sets.rebuild(lost.id) is None, 60)
        new = engine.catalog.volumes.get(lost.id)
        assert new.state is VolumeState.FULL and new.barcode != lost.barcode
        assert (await adopt(at_b, new.barcode))["made"] == 1
        assert (await adopt(at_b, new.barcode))["made"] == 0
        for name, data in DATA.items():
            assert await at_b.read(ino(at_b, name)) == data


@pytest.mark.expect_log("inventory differs")
async def test_what_is_not_adopted(at_b, foreign):
    async with at_b.running() as engine:
        await at_b.archive(await at_b.file(b"ours", b"x" * 1000))
        (mine,) = engine.catalog.volumes.all(VolumeState.FULL)
        blank = engine.catalog.volumes.all(VolumeState.BLANK)[-1]
        for barcode, fault, text in (
            (mine.barcode, Conflict, "of this catalog"),
            ("S0001D05", MediaError, "is blank"),
            ("NOSUCH", NotFound, "no disc NOSUCH"),
        ):
            with pytest.raises(fault, match=text):
                await adopt(at_b, barcode)
        assert engine.catalog.volumes.get(blank.id).state is VolumeState.BLANK
        take_out(at_b.config.library.path, "Z2")
        await engine.mounts.inventory.sync()
        with pytest.raises(VolumeMissing):
            await adopt(at_b, "Z2")


@pytest.mark.expect_log("inventory differs|is damaged")
async def test_a_disc_that_was_taken_for_a_blank_one_is_adopted_all_the_same(at_b, foreign):
    async with at_b.running() as engine:
        disc = engine.catalog.volumes.by_barcode("Z1")
        with pytest.raises(ForeignDisc, match="written by hsmfs: disc 1 of set SET00001"):
            async with engine.mounts.use(disc.id, Purpose.BURN):
                raise AssertionError("it was given out to be burned")
        assert engine.catalog.volumes.get(disc.id).state is VolumeState.DAMAGED
        await adopt(at_b, "Z1")
        assert engine.catalog.volumes.get(disc.id).state is VolumeState.FULL
        assert await at_b.read(ino(at_b, b"one")) == DATA[b"one"]


@pytest.mark.expect_log("inventory differs")
async def test_an_image_and_its_disc_are_one(at_b, foreign):
    root = at_b.config.library.path
    async with at_b.running():
        image = element_path(root, place_of(root, "Z1")) / "Z1/disc.iso"
        copy = at_b.root / "one.iso"
        shutil.copy(image, copy)
        assert (await adopt(at_b, "Z1"))["made"] == 1
        assert (await adopt(at_b, images=[copy]))["made"] == 0
