"""Discs in drives: the right one, one at a time, and troubles that stay where they are."""

from __future__ import annotations

import pytest
import trio

from hsmfs.catalog.queues import RecallClass
from hsmfs.engine import identify
from hsmfs.engine.schedule import Purpose
from hsmfs.errors import (
    DriveError,
    ForeignDisc,
    UnreadableSector,
    VolumeMissing,
    WrongVolume,
)
from hsmfs.library.ports import ElementKind
from hsmfs.library.simulated import hands
from hsmfs.library.simulated.faults import Fault, FaultKind
from hsmfs.states import VolumeState
from hsmfs.types import SECTOR

ONE, TWO, THREE = "S0001D01", "S0001D02", "S0001D03"
NOW, BULK = RecallClass.INTERACTIVE, RecallClass.BULK


def use(rig, barcode, purpose=Purpose.READ, urgency=RecallClass.STANDARD):
    return rig.mounts.use(rig.volume(barcode).id, purpose, urgency=urgency, who="test")


async def test_start_takes_the_library_over(rig, nursery):
    await nursery.start(rig.mounts.run)
    volumes = rig.catalog.volumes.all()
    assert len(volumes) == 12
    assert all(
        v.state is VolumeState.BLANK and v.capacity == rig.library.disc_bytes for v in volumes
    )
    assert [d.name for d in rig.catalog.volumes.drives()] == ["d1", "d2"]
    assert rig.mounts.status()["robot"] == "ready"


@pytest.mark.expect_log("inventory differs")
async def test_hands_in_the_library(rig, nursery):
    await nursery.start(rig.mounts.run)
    hands.swap(rig.sim.path, ONE, TWO)
    hands.take_out(rig.sim.path, THREE)
    found = await rig.mounts.inventory.sync()
    assert sorted(d.kind.value for d in found) == ["missing", "swapped", "swapped"]
    assert rig.volume(THREE).state is VolumeState.LOST
    with pytest.raises(VolumeMissing, match="lost"):
        async with use(rig, THREE, Purpose.BURN):
            pass
    assert await rig.mounts.inventory.sync() == []
    hands.put_in(rig.sim.path, THREE, rig.robot.where(ONE).address + 1)
    await rig.mounts.inventory.sync()
    assert rig.volume(THREE).state is VolumeState.BLANK


@pytest.mark.expect_log("inventory differs")
async def test_a_blank_disc_in_another_ones_slot_is_not_burned_for_it(rig, nursery):
    await nursery.start(rig.mounts.run)
    hands.swap(rig.sim.path, ONE, TWO)
    async with use(rig, ONE, Purpose.BURN) as session:
        assert hands.place_of(rig.sim.path, ONE) == session.drive.address


async def test_a_burn_begins_while_the_robot_fetches_the_next_disc(make_rig, nursery, monkeypatch):
    rig = make_rig(recall_drives=0)
    await rig.start()
    await nursery.start(rig.mounts.run)
    move, moves, go_on, ready = rig.library.changer.move, [], trio.Event(), []

    async def held(src, dst):
        moves.append(dst)
        if len(moves) == 2:
            await go_on.wait()
        await move(src, dst)

    async def burn(barcode):
        async with use(rig, barcode, Purpose.BURN):
            ready.append(barcode)
            await rig.until(lambda: len(ready) == 2)

    monkeypatch.setattr(rig.library.changer, "move", held)
    nursery.start_soon(burn, ONE)
    nursery.start_soon(burn, TWO)
    try:
        await rig.until(lambda: ready and len(moves) == 2)
    finally:
        go_on.set()
    await rig.until(lambda: len(ready) == 2)


async def test_a_move_cut_off_by_a_crash(rig, nursery):
    await rig.mounts.inventory.sync()
    drive, home = rig.library.drives[0].address, rig.robot.where(ONE).address
    async with rig.catalog.write():
        rig.catalog.volumes.begin_move(ONE, home, drive, 1)
    await rig.stop()
    await rig.start()
    await nursery.start(rig.mounts.run)
    assert rig.catalog.volumes.open_moves() == []
    assert rig.volume(ONE).element == home


@pytest.mark.expect_log("disc is (suspect|damaged)")
async def test_burn_then_read_without_an_exchange(rig, nursery, tmp_path):
    await nursery.start(rig.mounts.run)
    image = tmp_path / "any"
    image.write_bytes(b"x" * SECTOR * 64)
    async with use(rig, ONE, Purpose.BURN, BULK) as session:
        assert session.medium.blank
        await session.burn(image, lambda done: None)
        assert not session.medium.blank
        assert await session.read(0, 1) == b"x" * SECTOR
    assert rig.volume(ONE).loads == 1
    with pytest.raises(ForeignDisc, match="should be blank and was written by others"):
        async with use(rig, ONE, Purpose.BURN):
            pass
    assert rig.volume(ONE).state is VolumeState.DAMAGED


@pytest.mark.expect_log("disc is (suspect|damaged)")
async def test_the_label_inside_is_checked(rig, chunky, nursery):
    ino, other = await rig.file(chunky), await rig.file(chunky[::-1])
    await rig.burn(TWO, [(other, 0, len(chunky))])
    await rig.burn(ONE, [(ino, 0, len(chunky))], label=TWO)
    await nursery.start(rig.mounts.run)
    with pytest.raises(WrongVolume, match=f"{ONE} is {TWO} inside"):
        async with use(rig, ONE):
            pass
    for barcode in (ONE, TWO):
        assert rig.volume(barcode).state is VolumeState.SUSPECT
        assert "inside" in rig.volume(barcode).reason


@pytest.mark.expect_log("disc is suspect|unreadable")
async def test_a_disc_whose_label_does_not_read_is_known_by_its_volume_id(
    rig, chunky, nursery, monkeypatch
):
    async def unread(session, read=None):
        raise UnreadableSector("cannot read sector 40", 40)

    monkeypatch.setattr(identify, "read_label", unread)
    await rig.burn(TWO, [(await rig.file(chunky), 0, len(chunky))])
    await rig.burn(ONE, [(await rig.file(chunky), 0, len(chunky))], label=TWO)
    await nursery.start(rig.mounts.run)
    async with use(rig, TWO) as session:
        assert session.volume.barcode == TWO
    with pytest.raises(WrongVolume, match=f"{ONE} has the volume identifier HSM_{TWO}"):
        async with use(rig, ONE):
            pass


@pytest.mark.expect_log("another drive is asked|drive down|disc is suspect")
@pytest.mark.parametrize(("drives", "lies"), [(2, 1), (2, 2), (1, 1)])
async def test_a_wrong_description_is_looked_at_in_another_drive(
    make_rig, chunky, nursery, monkeypatch, drives, lies
):
    """Before the disc is blamed. If it reads there, it was the first drive."""
    rig, lied = make_rig(drives=drives), []
    await rig.start()
    await rig.burn(ONE, [(await rig.file(chunky), 0, len(chunky))])
    await nursery.start(rig.mounts.run)
    read_label = identify.read_label

    async def lie(session, read=None):
        if len(lied) < lies:
            lied.append(session.drive.name)
            raise ForeignDisc("no ISO 9660")
        return await read_label(session, read)

    monkeypatch.setattr(identify, "read_label", lie)
    if drives > lies:
        async with use(rig, ONE) as session:
            await session.read(16, 1)
        assert session.drive.name not in lied
        assert rig.volume(ONE).state is VolumeState.FULL
    else:
        with pytest.raises(ForeignDisc, match="not written by hsmfs"):
            async with use(rig, ONE):
                pass
        assert len(set(lied)) == drives
        assert rig.volume(ONE).state is VolumeState.SUSPECT


@pytest.mark.expect_log("disc is (suspect|damaged)")
async def test_blank_where_a_full_disc_should_be(rig, nursery):
    await nursery.start(rig.mounts.run)
    async with rig.catalog.write():
        rig.catalog.volumes.start(rig.volume(ONE).id, "u")
        rig.catalog.volumes.close(rig.volume(ONE).id, 1, "s", "", 1)
    with pytest.raises(WrongVolume, match="blank"):
        async with use(rig, ONE):
            pass


@pytest.mark.expect_log("drive or disc failed")
@pytest.mark.expect_log("disc is (suspect|damaged)")
async def test_a_half_burned_disc_is_damaged(rig, nursery, tmp_path):
    await nursery.start(rig.mounts.run)
    image = tmp_path / "any"
    image.write_bytes(b"x" * SECTOR * 64)
    rig.library.faults.add(Fault(FaultKind.BURN_FAILS, at_byte=SECTOR))
    with pytest.raises(DriveError):
        async with use(rig, ONE, Purpose.BURN) as session:
            await session.burn(image, lambda done: None)
    with pytest.raises(ForeignDisc, match="holds a session that was not ended"):
        async with use(rig, ONE, Purpose.BURN):
            pass
    assert rig.volume(ONE).state is VolumeState.DAMAGED


async def test_one_drive_is_kept_for_reads(rig, chunky, nursery):
    ino = await rig.stub(chunky, ONE)
    await rig.serve(nursery)
    order = []

    async def burner(barcode, release):
        async with use(rig, barcode, Purpose.BURN, BULK):
            order.append(barcode)
            await release.wait()

    async with trio.open_nursery() as burns:
        release = trio.Event()
        for barcode in (TWO, THREE):
            burns.start_soon(burner, barcode, release)
        await rig.until(lambda: order)
        assert await rig.read(ino) == chunky
        assert len(order) == 1
        release.set()
    assert sorted(order) == [TWO, THREE]


@pytest.mark.expect_log("drive down")
async def test_a_session_yields(make_rig, chunky, nursery):
    rig = make_rig(drives=1)
    await rig.start()
    await rig.stub(chunky, ONE)
    await rig.stub(chunky[::-1], TWO)
    await nursery.start(rig.mounts.run)
    got = trio.Event()

    async def urgent():
        async with use(rig, TWO, urgency=NOW):
            got.set()

    async with trio.open_nursery() as others:
        async with use(rig, ONE, urgency=BULK) as session:
            assert not session.wanted_elsewhere
            others.start_soon(urgent)
            await rig.until(lambda: session.wanted_elsewhere)
        await got.wait()
    async with use(rig, ONE) as session:
        await rig.mounts.drive_down("d1", "cleaning")
        assert session.wanted_elsewhere
    assert rig.catalog.volumes.drives()[0].reason == "cleaning"
    nursery.cancel_scope.cancel()


@pytest.mark.expect_log("drive down|recall failed|drive or disc failed")
async def test_a_stuck_drive_stalls_nobody_else(rig, chunky, nursery):
    stuck, well = await rig.stub(chunky, ONE, THREE), await rig.stub(chunky[::-1], TWO)
    first = rig.library.drives[0]
    forever = trio.Event()

    async def load():
        await forever.wait()

    first.load = load
    rig.mounts.load_limit = 0.3
    await rig.serve(nursery)
    got = {}

    async def reader(ino):
        got[ino] = await rig.read(ino)

    async with trio.open_nursery() as readers:
        readers.start_soon(reader, stuck)
        await rig.until(lambda: rig.robot.in_drive(first) == ONE)
        readers.start_soon(reader, well)
    assert got == {stuck: chunky, well: chunky[::-1]}
    state = rig.mounts.status()["drives"][0]
    assert not state["up"] and state["stuck"] and "to load" in state["reason"]
    with pytest.raises(DriveError, match="held fast"):
        async with use(rig, ONE):
            pass
    forever.set()


async def test_who_gives_up_leaves_the_move_to_end(rig, nursery):
    await nursery.start(rig.mounts.run)
    began, go = trio.Event(), trio.Event()
    move = rig.library.changer.move

    async def slow(src, dst):
        began.set()
        await go.wait()
        await move(src, dst)

    rig.library.changer.move = slow
    async with trio.open_nursery() as users:

        async def user():
            async with use(rig, ONE, Purpose.BURN):
                raise AssertionError("cancelled before")

        users.start_soon(user)
        await began.wait()
        users.cancel_scope.cancel()
    assert rig.mounts.status()["claims"] == []
    go.set()
    async with use(rig, TWO, Purpose.BURN) as session:
        assert session.volume.barcode == TWO
    assert rig.catalog.volumes.open_moves() == []
    assert rig.robot.where(ONE).drive == "d1"


async def test_a_stuck_robot_holds_up_only_moves(rig, chunky, nursery, expect_log):
    here = await rig.stub(chunky, ONE)
    await rig.serve(nursery)
    await rig.read(here)
    expect_log("robot stuck")
    go = trio.Event()
    move = rig.library.changer.move

    async def slow(src, dst):
        await go.wait()
        await move(src, dst)

    rig.library.changer.move = slow
    rig.mounts.robot_care.move_limit = 0.1
    got = trio.Event()

    async def burner():
        async with use(rig, TWO, Purpose.BURN):
            got.set()

    async with trio.open_nursery() as users:
        users.start_soon(burner)
        await rig.until(lambda: rig.mounts.status()["robot"] != "ready")
        async with use(rig, ONE) as session:
            assert len(await session.read(0, 1)) == SECTOR
        assert not got.is_set()
        go.set()
    assert got.is_set() and rig.mounts.status()["robot"] == "ready"


@pytest.mark.expect_log("does not eject|drive down")
@pytest.mark.parametrize(("times", "up"), [(2, 2), (3, 1)])
async def test_a_drive_that_does_not_eject_is_asked_again(rig, nursery, monkeypatch, times, up):
    monkeypatch.setattr("hsmfs.engine.bays.EJECT_WAIT", 0)
    await nursery.start(rig.mounts.run)
    refusals = iter(range(times))
    for drive in rig.library.drives:

        async def eject(real=drive.eject):
            if next(refusals, None) is not None:
                raise DriveError("the tray is locked")
            await real()

        monkeypatch.setattr(drive, "eject", eject)
    async with use(rig, ONE, Purpose.BURN):
        assert rig.mounts.drives_up == up


@pytest.mark.expect_log("drive down")
async def test_an_operator_moves_a_disc(rig, nursery):
    await nursery.start(rig.mounts.run)
    mail = next(e for e in rig.robot.elements.values() if e.kind is ElementKind.IMPORT_EXPORT)
    await rig.mounts.move(ONE, mail.address)
    assert rig.volume(ONE).element == mail.address
    assert await rig.mounts.inventory.sync() == []
    await rig.mounts.drive_down("d2", "cleaning")
    await rig.mounts.drive_up(rig.library.drives[1].serial)
    assert rig.mounts.drives_up == 2


async def test_two_arms_fetch_two_discs_at_once_and_none_twice(make_rig, nursery, monkeypatch):
    rig = make_rig(drives=3, arms=2, recall_drives=0)
    await rig.start()
    await nursery.start(rig.mounts.run)
    move, moves, both, ready = rig.library.changer.move, [], trio.Event(), []

    async def held(src, dst):
        moves.append(dst)
        if len(moves) == 2:
            both.set()
        await both.wait()
        await move(src, dst)

    async def burn(barcode):
        async with use(rig, barcode, Purpose.BURN):
            ready.append(barcode)

    monkeypatch.setattr(rig.library.changer, "move", held)
    for barcode in (ONE, ONE, TWO):
        nursery.start_soon(burn, barcode)
    await rig.until(lambda: len(ready) == 3)
    assert len(moves) == 2
    assert rig.catalog.volumes.open_moves() == []
