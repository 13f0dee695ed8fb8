"""A whole life without barcodes: discs are known by the label inside, and nobody mistakes them."""

from __future__ import annotations

import shutil
from contextlib import suppress

import pytest

from hsmfs import config as configs
from hsmfs.engine.rebuild.run import Rebuild
from hsmfs.engine.rebuild.sources import Robot
from hsmfs.errors import Conflict
from hsmfs.library.simulated.hands import put_in, swap, take_out
from hsmfs.library.simulated.layout import FIRST_IMPORT_EXPORT, disc_in
from hsmfs.states import SetState, VolumeState

SETS = 'recall_retries = 1\n[sets]\nparity = "raid5"\ndiscs = 3\n'
DATA = [bytes(range(256)) * 20_000, bytes(reversed(range(256))) * 20_000]
LOG = "inventory differs|lost|copy|disc|recall"

pytestmark = pytest.mark.expect_log(LOG)


@pytest.fixture
def lab(make_lab):
    return unlabelled(make_lab(slots=8, disc="8 MiB", more=SETS))


def unlabelled(lab):
    lab.text = lab.text.replace('kind = "simulated"', 'kind = "simulated"\nbarcodes = false')
    lab.config = configs.loads(lab.text)
    return lab


async def filled(lab) -> list:
    """Two released files, each on a disc of one closed set of 2+1: the set's discs."""
    engine = lab.engine
    await engine.mounts.look(rescan=True)
    inos = [await lab.file(b"f%d" % number, data) for number, data in enumerate(DATA)]
    for ino in inos:
        await lab.archive(ino)
    await lab.until(lambda: [s.state for s in engine.catalog.sets.all()] == [SetState.CLOSED])
    for ino in inos:
        await engine.releaser.release(ino, "test")
    return discs(lab)


def discs(lab) -> list:
    (group,) = lab.engine.catalog.sets.all()
    return lab.engine.catalog.sets.discs(group.id)


def body(lab, disc):
    """What the disc really is: its directory in the simulated library."""
    element = lab.engine.robot.where(disc.barcode)
    return disc_in(lab.config.library.path, element.address).name


async def read_back(lab) -> None:
    for number, data in enumerate(DATA):
        ino = lab.engine.catalog.names.resolve(b"/f%d" % number).ino
        assert await lab.read(ino) == data
        await lab.until(lambda ino=ino: lab.engine.catalog.queues.recall(ino) is None)
        with suppress(Conflict):  # a disc that was lost, or not read back yet, proves less
            await lab.engine.releaser.release(ino, "test")


def forget(lab) -> None:
    (lab.config.library.path / "labels.json").unlink()


async def test_archive_recall_and_restart(lab):
    async with lab.running():
        before = await filled(lab)
        assert all(disc.barcode.startswith("N") for disc in before)
        await read_back(lab)
    async with lab.running():
        assert [d.barcode for d in discs(lab)] == [d.barcode for d in before]
        await read_back(lab)


async def test_what_is_where_may_be_forgotten(lab):
    """Written discs get their names back, blank ones get new ones that no disc has."""
    async with lab.running() as engine:
        before = await filled(lab)
        names = {v.barcode for v in engine.catalog.volumes.all()}
    forget(lab)
    async with lab.running() as engine:
        await engine.mounts.look(rescan=True)
        assert [d.barcode for d in discs(lab)] == [d.barcode for d in before]
        assert all(d.state is VolumeState.FULL for d in discs(lab))
        new = engine.catalog.volumes.blanks().values()
        assert len(new) == 5 and not names & set(new) and min(new) > max(names)
        await read_back(lab)


async def test_a_disc_made_anew_is_not_taken_for_the_one_that_it_replaces(lab):
    async with lab.running() as engine:
        lost = (await filled(lab))[0]
        take_out(lab.config.library.path, body(lab, lost))
        await engine.mounts.look()
        assert engine.catalog.volumes.get(lost.id).state is VolumeState.LOST
        await read_back(lab)
        await engine.renewer.ask(engine.catalog.volumes.get(lost.id))
        await lab.until(lambda: engine.catalog.sets.rebuild(lost.id) is None, 60)
        new = discs(lab)[0]
        assert new.inside == lost.barcode
    forget(lab)
    async with lab.running() as engine:
        await engine.mounts.look(rescan=True)
        assert engine.catalog.volumes.get(new.id).state is VolumeState.FULL
        assert engine.robot.where(lost.barcode) is None
        await read_back(lab)


async def test_discs_that_changed_places_are_nobodys_fault(lab):
    async with lab.running() as engine:
        one, other, _ = await filled(lab)
        for drive in engine.library.drives:
            if (barcode := engine.robot.in_drive(drive)) is not None:
                await engine.mounts.take_out(barcode)
        swap(lab.config.library.path, body(lab, one), body(lab, other))
        await read_back(lab)  # one of them through parity, meanwhile
        await engine.mounts.look(rescan=True)
        assert [engine.catalog.volumes.get(d.id).state for d in (one, other)] == [
            VolumeState.FULL] * 2  # fmt: skip
        assert not any(engine.catalog.volumes.get(d.id).read_errors for d in (one, other))
        await read_back(lab)


async def test_who_reads_a_disc_that_changed_places_gets_it(make_lab):
    """Nobody said anything, and there is no other copy and no parity."""
    lab = unlabelled(make_lab(slots=8, disc="8 MiB", more="recall_retries = 1\n"))
    async with lab.running() as engine:
        await engine.mounts.look(rescan=True)
        inos = [await lab.file(b"f%d" % number, data) for number, data in enumerate(DATA)]
        for ino in inos:
            await lab.archive(ino)
            await engine.releaser.release(ino, "test")
        one, other = (lab.disc(ino)[0] for ino in inos)
        for disc in (one, other):
            await engine.mounts.take_out(disc.barcode)
        swap(lab.config.library.path, body(lab, one), body(lab, other))
        assert [await lab.read(ino) for ino in inos] == DATA
        states = {engine.catalog.volumes.get(disc.id).state for disc in (one, other)}
        assert states == {VolumeState.FULL}


async def test_out_and_in_through_the_mail_slot(lab):
    root = lab.config.library.path
    async with lab.running() as engine:
        disc = (await filled(lab))[0]
        name = body(lab, disc)
        await engine.vault.export([disc.barcode], "vault A")
        await lab.until(lambda: engine.vault.leaving() and engine.vault.leaving()[0]["ready"])
        take_out(root, name)
        await engine.mounts.look()
        assert not engine.vault.leaving()
        put_in(root, name, FIRST_IMPORT_EXPORT)
        assert (await engine.vault.bring_in())["imported"] == [disc.barcode]
        assert engine.catalog.volumes.get(disc.id).state is VolumeState.FULL
        await read_back(lab)


async def test_everything_is_lost_but_the_discs(lab):
    async with lab.running():
        before = await filled(lab)
    forget(lab)
    shutil.rmtree(lab.config.daemon.state)
    shutil.rmtree(lab.config.pool[0].path)
    lab.config.pool[0].path.mkdir()
    source = Robot(lab.config.library)
    report = await Rebuild(lab.config, source, lambda p: None, new_pools=True).run()
    assert (report.unknown, report.unread, report.missing) == ({}, {}, [])
    async with lab.running() as engine:
        assert [d.barcode for d in discs(lab)] == [d.barcode for d in before]
        assert len(engine.catalog.volumes.blanks()) == 5
        await read_back(lab)


async def test_a_disc_in_the_gripper_keeps_its_name(lab):
    async with lab.running() as engine:
        disc = (await filled(lab))[0]
        for drive in engine.library.drives:
            if (barcode := engine.robot.in_drive(drive)) is not None:
                await engine.mounts.take_out(barcode)
        lab.fail({"kind": "robot_jam", "times": 1})
        await read_back(lab)
        assert engine.catalog.volumes.get(disc.id).state is VolumeState.FULL
        assert {v.state for v in discs(lab)} == {VolumeState.FULL}
