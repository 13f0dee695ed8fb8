"""An engine on a library whose magazines move whole, to units of two drives."""

from __future__ import annotations

import shutil

import pytest
import trio

from hsmfs.catalog.catalog import Catalog
from hsmfs.catalog.queues import RecallClass
from hsmfs.engine.preview import preview
from hsmfs.engine.rebuild.run import Rebuild
from hsmfs.engine.rebuild.sources import Robot
from hsmfs.engine.schedule import Purpose
from hsmfs.errors import DriveError
from hsmfs.library.simulated.magazines import GRIPPER, magazines_out, note_magazine
from hsmfs.states import FileState, SetState, VolumeState

SETS = '[sets]\nparity = "raid5"\ndiscs = 3\n'
DATA = [bytes(range(256)) * 20_000, bytes(reversed(range(256))) * 20_000]
ONE, TWO, THREE, FOUR = (f"S0001D0{n}" for n in range(1, 5))
NEXT = "S0002D01"


@pytest.fixture
def make_whole(make_lab):
    def make(**settings):
        given = {"drives": 4, "slots": 4, "mail": 0, "magazines": 3, "group": 2, "disc": "8 MiB"}
        return make_lab(**given | settings)

    return make


def counted(engine, monkeypatch) -> list[tuple[int, int | None]]:
    """The ways of magazines from now on."""
    carry, ways = engine.library.changer.carry, []

    async def noted(magazine, unit):
        ways.append((magazine, unit))
        await carry(magazine, unit)

    monkeypatch.setattr(engine.library.changer, "carry", noted)
    return ways


def use(engine, barcode, urgency=RecallClass.STANDARD):
    volume = engine.catalog.volumes.by_barcode(barcode)
    return engine.mounts.use(volume.id, Purpose.BURN, urgency=urgency, who="test")


def bay(engine, name):
    return next(bay for bay in engine.mounts._bays.values() if bay.drive.name == name)


async def closed_set(lab) -> list[str]:
    """Two files, each on a disc of a closed set of 2+1, released; the barcodes of its discs."""
    engine = lab.engine
    for number, data in enumerate(DATA):
        ino = await lab.file(b"f%d" % number, data)
        await lab.archive(ino)
    await lab.until(lambda: [s.state for s in engine.catalog.sets.all()] == [SetState.CLOSED])
    for number in range(len(DATA)):
        await engine.releaser.release(ino_of(engine, number), "test")
        assert engine.files.attr(ino_of(engine, number)).state == FileState.MIGRATED
    (group,) = engine.catalog.sets.all()
    discs = [disc.barcode for disc in engine.catalog.sets.discs(group.id)]
    assert len({disc[:5] for disc in discs}) == 1, "a set lies in one magazine"
    return discs


def ino_of(engine, number):
    return engine.catalog.names.resolve(b"/f%d" % number).ino


async def test_many_discs_of_a_magazine_cost_one_carry(make_whole, monkeypatch):
    lab = make_whole(drives=2)
    async with lab.running() as engine, trio.open_nursery() as nursery:
        ways, got = counted(engine, monkeypatch), []

        async def user(barcode):
            async with use(engine, barcode):
                got.append(barcode)

        for barcode in (ONE, TWO, THREE, FOUR):
            nursery.start_soon(user, barcode)
        await lab.until(lambda: len(got) == 4)
        assert ways == [(1, 1)]
        assert {e["unit"] for e in engine.mounts.status()["drives"]} == {"unit 1"}


async def test_two_magazines_take_turns_in_one_unit(make_whole, monkeypatch):
    lab = make_whole(drives=2)
    async with lab.running() as engine:
        ways = counted(engine, monkeypatch)
        for barcode in (ONE, NEXT, TWO):
            async with use(engine, barcode) as session:
                assert session.medium.blank
        assert ways == [(1, 1), (1, None), (2, 1), (2, None), (1, 1)]
        assert engine.catalog.volumes.open_carries() == []
        kinds = [r.kind for r in engine.catalog.audit.after(0)]
        assert kinds.count("magazine.carried") == len(ways)


async def test_a_set_is_made_released_and_read_again_and_costs_one_carry(make_whole, monkeypatch):
    lab = make_whole(more=SETS)
    async with lab.running() as engine:
        discs = await closed_set(lab)
        for disc in discs:
            await engine.mounts.to_rack(disc)
        assert magazines_out(lab.config.library.path) == {}
        ways = counted(engine, monkeypatch)
        for number, data in enumerate(DATA):
            assert await lab.read(ino_of(engine, number)) == data
        assert len(ways) == 1


@pytest.mark.expect_log("lost|do not come back")
async def test_a_degraded_read_from_parity_costs_one_carry(make_whole, monkeypatch):
    lab = make_whole(more=SETS)
    async with lab.running() as engine:
        discs = await closed_set(lab)
        for disc in discs:
            await engine.mounts.to_rack(disc)
        async with engine.catalog.write():
            lost = engine.catalog.volumes.by_barcode(discs[0]).id
            engine.catalog.volumes.set_state(lost, VolumeState.LOST, "test")
        roots = [engine.files.attr(ino_of(engine, n)) for n in range(2)]
        told = await preview(engine, roots, RecallClass.STANDARD)
        assert (told.by_parity, told.exchanges) == (1, 2)  # one for each kind of reading
        ways = counted(engine, monkeypatch)
        assert await lab.read(ino_of(engine, 0)) == DATA[0]
        assert len(ways) == 1
        assert await lab.read(ino_of(engine, 1)) == DATA[1]
        assert len(ways) == 1


async def test_a_carry_cut_off_by_a_crash(make_whole):
    lab = make_whole()
    async with lab.running() as engine:
        async with use(engine, ONE):
            pass
        await engine.mounts.to_rack(ONE)
    catalog = Catalog.open(lab.config.daemon.state)
    async with catalog.write():
        catalog.volumes.begin_carry(1, 2, 1)
    catalog.close()
    note_magazine(lab.config.library.path, 1, GRIPPER)
    async with lab.running() as engine:
        assert engine.catalog.volumes.open_carries() == []
        assert magazines_out(lab.config.library.path) == {}
        said = [e.fields for e in engine.events.since(0) if e.kind == "inventory_differs"]
        assert said[0]["meaning"] == (
            "magazine 1 was being carried to unit 2; the robot still holds it"
        )
        async with use(engine, ONE):
            pass


@pytest.mark.expect_log("drive down")
async def test_a_disc_in_a_drive_that_is_down_is_had_by_the_next_one(make_whole, monkeypatch):
    lab = make_whole()
    async with lab.running() as engine:
        async with use(engine, ONE) as session:
            first = session.drive.name
        ways = counted(engine, monkeypatch)
        await engine.mounts.drive_down(first, "cleaning")
        async with use(engine, ONE) as session:
            assert session.drive.name != first
        assert ways == []


@pytest.mark.expect_log("drive down")
async def test_a_magazine_leaves_a_unit_that_is_down(make_whole, monkeypatch):
    lab = make_whole()
    async with lab.running() as engine:
        async with use(engine, ONE):
            pass
        ways = counted(engine, monkeypatch)
        for name in ("d1", "d2"):
            await engine.mounts.drive_down(name, "cleaning")
        async with use(engine, TWO) as session:
            assert session.drive.name in ("d3", "d4")
        assert ways == [(1, None), (1, 2)]


@pytest.mark.expect_log("does not eject|drive down|magazine held fast")
async def test_a_drive_that_keeps_its_disc_keeps_the_magazine(make_whole, monkeypatch):
    """Others go on: other magazines in the other unit, its own discs in the other drive."""
    monkeypatch.setattr("hsmfs.engine.bays.EJECT_WAIT", 0)
    lab = make_whole()
    async with lab.running() as engine:
        async with use(engine, ONE) as session:
            stuck = bay(engine, session.drive.name)
            (other,) = (mate for mate in engine.mounts.units.mates(stuck) if mate is not stuck)

        async def locked():
            raise DriveError("the tray is locked")

        monkeypatch.setattr(stuck.drive, "eject", locked)
        await engine.mounts.to_rack(ONE)
        assert not stuck.up and engine.robot.magazine_in(1) == 1
        async with use(engine, NEXT) as session:
            assert engine.robot.unit_of(session.drive) == 2
            async with use(engine, TWO) as session:
                assert session.drive.name == other.drive.name
        with pytest.raises(DriveError, match="held fast"):
            async with use(engine, ONE):
                pass
        await engine.mounts.drive_down(other.drive.name, "cleaning")
        with pytest.raises(DriveError, match=r"magazine 1 of disc S0001D02 is held fast"):
            async with use(engine, TWO):
                pass
        async with use(engine, "S0003D01"):
            pass


@pytest.mark.expect_log("robot in trouble")
async def test_a_unit_behind_an_open_door_is_not_asked_again_and_again(make_whole, monkeypatch):
    lab = make_whole()
    async with lab.running() as engine, trio.open_nursery() as nursery:
        async with use(engine, ONE):
            pass
        fetch, sync, tries, looks, got = (
            engine.robot.fetch, engine.mounts.inventory.sync, [], [], trio.Event()
        )  # fmt: skip

        async def tried(*args, **kw):
            tries.append(args)
            await fetch(*args, **kw)

        async def looked(**kw):
            looks.append(kw)
            return await sync(**kw)

        async def user():
            async with use(engine, TWO):
                got.set()

        monkeypatch.setattr(engine.robot, "fetch", tried)
        monkeypatch.setattr(engine.mounts.inventory, "sync", looked)
        lab.fail({"kind": "door_open"})
        nursery.start_soon(user)
        await lab.until(lambda: len(looks) == 2)
        assert len(tries) == 1
        lab.fail()
        await got.wait()


async def test_an_export_names_the_slot_of_a_magazine_in_the_rack(make_whole):
    lab = make_whole(drives=2)
    async with lab.running() as engine:
        ino = await lab.file(b"f", DATA[0])
        await lab.archive(ino)
        disc, _ = lab.disc(ino)
        assert magazines_out(lab.config.library.path) != {}
        ordered = await engine.vault.export([disc.barcode], "vault")
        assert ordered["mail_slots"] == 0
        await lab.until(lambda: engine.vault.leaving()[0]["ready"])
        assert engine.vault.leaving()[0]["place"].startswith("magazine 1 slot")
        assert magazines_out(lab.config.library.path) == {}


@pytest.mark.expect_log("inventory differs|passed over|is suspect")
async def test_the_catalog_is_made_again_from_the_discs(make_whole):
    lab = make_whole(more=SETS)
    async with lab.running():
        await closed_set(lab)
    shutil.rmtree(lab.config.daemon.state)
    shutil.rmtree(lab.config.pool[0].path)
    lab.config.pool[0].path.mkdir()
    work = Rebuild(lab.config, Robot(lab.config.library), lambda p: None, new_pools=True)
    report = await work.run()
    assert (report.unknown, report.unread, report.missing) == ({}, {}, [])
    assert magazines_out(lab.config.library.path) == {}
    async with lab.running() as engine:
        for number, data in enumerate(DATA):
            assert await lab.read(ino_of(engine, number)) == data
