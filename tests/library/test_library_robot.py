"""The robot: moves by barcode, one at a time, each on record before it starts."""

import dataclasses

import pytest
import trio

from hsmfs.errors import (
    ChangerError,
    Conflict,
    DoorOpen,
    NotFound,
    SameLabel,
    VolumeMissing,
)
from hsmfs.library.ports import ElementKind
from hsmfs.library.robot import Robot
from hsmfs.library.simulated import hands
from hsmfs.library.simulated.faults import Fault, FaultKind
from hsmfs.library.simulated.library import SimulatedLibrary
from hsmfs.types import Barcode, ElementAddress
from tests.library.conftest import agrees

ONE = Barcode("S0001D01")
TWO = Barcode("S0001D02")


async def test_fetch_and_put_away(robot, library, journal):
    drive, home = library.drives[0], robot.where(ONE).address
    await robot.fetch(ONE, drive)
    assert robot.in_drive(drive) == ONE
    assert robot.where(ONE).drive == "d1"
    await agrees(robot, library)
    await robot.fetch(ONE, drive)
    await robot.put_away(drive)
    await robot.put_away(drive)
    assert robot.where(ONE).address == home
    await agrees(robot, library)
    assert [(m.src, m.dst) for m in journal.moves] == [(home, drive.address), (drive.address, home)]
    assert journal.ended == {0: True, 1: True}


async def test_fetch_exchanges_a_loaded_disc(robot, library):
    drive = library.drives[0]
    await robot.fetch(ONE, drive)
    await drive.load()
    await robot.fetch(TWO, drive)
    assert robot.in_drive(drive) == TWO
    assert robot.where(ONE).slot == 1
    await agrees(robot, library)


async def test_put_away_knows_the_slot_after_a_restart(robot, library, config, journal):
    await robot.fetch(TWO, library.drives[0])
    later = SimulatedLibrary(config)
    robot = Robot(later, journal)
    await robot.put_away(later.drives[0])
    assert robot.where(TWO).slot == 2


async def test_refusals(robot, library):
    first, second = library.drives
    with pytest.raises(VolumeMissing, match="S0009D09"):
        await robot.fetch(Barcode("S0009D09"), first)
    await robot.fetch(ONE, first)
    with pytest.raises(Conflict, match="drive d1"):
        await robot.fetch(ONE, second)
    with pytest.raises(Conflict, match="drive d1"):
        await robot.export(ONE)
    with pytest.raises(Conflict, match="not in a mail slot"):
        await robot.import_(TWO)
    with pytest.raises(NotFound, match="no element"):
        await robot.move(TWO, ElementAddress(9))
    with pytest.raises(Conflict, match=r"slot 3, is full"):
        await robot.move(TWO, robot.where(Barcode("S0001D03")).address)


async def test_export_and_import(robot, library, config):
    mail = await robot.export(ONE)
    assert mail.kind is ElementKind.IMPORT_EXPORT
    hands.take_out(config.path, ONE)
    await robot.inventory()
    assert robot.where(ONE) is None
    hands.put_in(config.path, ONE, mail.address)
    assert (await robot.import_(ONE)).kind is ElementKind.STORAGE
    await agrees(robot, library)


async def test_mail_slots_full(robot):
    await robot.export(ONE)
    await robot.export(TWO)
    with pytest.raises(Conflict, match="no free mail slot"):
        await robot.export(Barcode("S0001D03"))


async def test_disc_from_a_mail_slot_goes_back_there_if_storage_is_full(robot, library, config):
    new = Barcode("N0001D01")
    hands.put_in(config.path, new, ElementAddress(16))
    await robot.inventory()
    await robot.fetch(new, library.drives[0])
    await robot.put_away(library.drives[0])
    assert robot.where(new).kind is ElementKind.IMPORT_EXPORT


async def test_import_keeps_off_the_slot_of_a_disc_in_a_drive(robot, library):
    await robot.export(TWO)
    await robot.fetch(ONE, library.drives[0])
    assert (await robot.import_(TWO)).slot == 2


async def test_open_door_raises_at_once_and_is_on_record(robot, library, journal):
    library.faults.add(Fault(FaultKind.DOOR_OPEN))
    with pytest.raises(DoorOpen, match=ONE):
        await robot.fetch(ONE, library.drives[0])
    assert journal.ended == {0: False}
    library.faults.clear()
    await robot.fetch(ONE, library.drives[0])
    await agrees(robot, library)


async def test_jam_in_the_gripper_is_cleared(robot, library):
    library.faults.add(Fault(FaultKind.ROBOT_JAM, leaves="transport"))
    with pytest.raises(ChangerError):
        await robot.fetch(ONE, library.drives[0])
    with pytest.raises(ChangerError, match="gripper"):
        await robot.fetch(TWO, library.drives[0])
    assert (await robot.clear_transport()).slot == 1
    assert await robot.clear_transport() is None
    await robot.fetch(TWO, library.drives[0])
    await agrees(robot, library)


async def test_disc_in_the_gripper_can_be_fetched(robot, library):
    library.faults.add(Fault(FaultKind.ROBOT_JAM, leaves="transport"))
    with pytest.raises(ChangerError):
        await robot.fetch(ONE, library.drives[0])
    await robot.fetch(ONE, library.drives[0])
    await robot.put_away(library.drives[0])
    assert robot.where(ONE).slot == 1


async def test_missing_disc(robot, library, config):
    hands.take_out(config.path, ONE)
    with pytest.raises(VolumeMissing, match=ONE):
        await robot.fetch(ONE, library.drives[0])
    with pytest.raises(VolumeMissing, match="not in the library"):
        await robot.fetch(ONE, library.drives[0])


async def test_one_label_on_two_discs_is_not_guessed_at(robot, library):
    library.faults.add(Fault(FaultKind.LABEL, barcode=TWO, reads_as=ONE))
    await robot.inventory(rescan=True)
    with pytest.raises(SameLabel, match=r"slot 1 and .* slot 2"):
        await robot.fetch(ONE, library.drives[0])


async def test_cancelled_move_ends_and_is_on_record(robot, library, journal):
    with trio.CancelScope() as scope:
        begin = journal.begin
        journal.begin = lambda *args: (scope.cancel(), begin(*args))[1]
        await robot.fetch(ONE, library.drives[0])
    assert journal.ended == {0: True}
    await agrees(robot, library)


async def test_moves_wait_for_each_other(robot, library):
    first, second = library.drives
    async with trio.open_nursery() as nursery:
        nursery.start_soon(robot.fetch, ONE, first)
        nursery.start_soon(robot.fetch, TWO, second)
    assert (robot.in_drive(first), robot.in_drive(second)) == (ONE, TWO)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(robot.put_away, first)
        nursery.start_soon(robot.put_away, second)
    await agrees(robot, library)


async def test_arms_move_at_once_and_share_nothing(two_arms, journal, autojump_clock):
    """A disc's own slot is kept for it, and no slot is given away twice."""
    library = two_arms
    robot, (first, second, third) = Robot(library, journal, arms=2), library.drives
    await robot.inventory()
    grippers = [e.place for e in robot.elements.values() if e.kind is ElementKind.TRANSPORT]
    assert grippers == ["the robot's gripper 1", "the robot's gripper 2"]
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(robot.fetch, ONE, first)
        nursery.start_soon(robot.fetch, TWO, second)
    assert trio.current_time() - began == 30
    for drive in (first, second):  # nobody knows from where
        robot._elements[drive.address] = dataclasses.replace(
            robot._elements[drive.address], source=None
        )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(robot.put_away, first)
        while not robot.moving:
            await trio.lowlevel.checkpoint()
        with pytest.raises(Conflict, match="on its way"):
            await robot.fetch(ONE, third)
        await robot.put_away(second)
    assert trio.current_time() - began == 60
    await agrees(robot, library)
    assert {robot.where(ONE).slot, robot.where(TWO).slot} == {1, 2}
    assert set(journal.ended.values()) == {True}


async def test_a_jammed_gripper_leaves_the_other_one(two_arms, journal, autojump_clock):
    library = two_arms
    robot, (first, second, _) = Robot(library, journal, arms=2), library.drives
    await robot.inventory()
    library.faults.add(Fault(FaultKind.ROBOT_JAM, barcode=ONE, leaves="transport"))
    with pytest.raises(ChangerError):
        await robot.fetch(ONE, first)
    await robot.fetch(TWO, second)
    assert robot.where(ONE).place == "the robot's gripper 1"
    assert (await robot.clear_transport()).slot == 1
    assert await robot.clear_transport() is None
    await agrees(robot, library)
