"""Magazines that move whole: what every library does, and the robot that carries them."""

from __future__ import annotations

import pytest
import trio

from hsmfs.errors import ChangerError, ConfigError, Conflict, DoorOpen
from hsmfs.library.journal import DifferenceKind, reconcile_carries
from hsmfs.library.ports import ElementKind
from hsmfs.library.robot import Robot
from hsmfs.library.simulated.config import SimulatedConfig
from hsmfs.library.simulated.faults import Fault, FaultKind
from hsmfs.library.simulated.library import SimulatedLibrary
from hsmfs.types import Barcode
from tests.library.conftest import Carry, Rig, agrees
from tests.library.test_library_conformance import *  # noqa: F403

ONE, TWO, NEXT = Barcode("S0001D01"), Barcode("S0001D02"), Barcode("S0002D01")


@pytest.fixture
async def rig(whole, tmp_path) -> Rig:
    await whole.changer.carry(1, 1)
    return Rig(whole, tmp_path, whole=True)


@pytest.fixture
async def robot(whole, journal) -> Robot:
    robot = Robot(whole, journal)
    await robot.inventory()
    return robot


def carries(journal):
    return [(m.magazine, m.unit) for m in journal.moves if isinstance(m, Carry)]


async def test_discs_of_one_magazine_cost_one_carry(robot, whole, journal):
    first, second, *_ = whole.drives
    for barcode, drive in ((ONE, first), (TWO, second), (Barcode("S0001D03"), first)):
        await robot.fetch(barcode, drive)
        await agrees(robot, whole)
    assert carries(journal) == [(1, 1)]
    assert robot.magazine_in(1) == robot.magazine_of(TWO) == 1
    assert robot.where(ONE).slot == 1
    await robot.put_away(first)
    await robot.empty(whole.drives[:2])
    await robot.empty(whole.drives[:2])
    await agrees(robot, whole)
    assert carries(journal) == [(1, 1), (1, None)]
    assert set(journal.ended.values()) == {True}


async def test_a_unit_takes_the_next_magazine_when_its_drives_are_empty(robot, whole, journal):
    first, second, other, _ = whole.drives
    await robot.fetch(ONE, first)
    with pytest.raises(Conflict, match="unit 1 still has a disc of magazine 1 in drive d1"):
        await robot.fetch(NEXT, second)
    with pytest.raises(Conflict, match="magazine 1 is in unit 1"):
        await robot.fetch(TWO, other)
    with pytest.raises(Conflict, match="drive d1"):
        await robot.fetch(ONE, second)
    await robot.fetch(NEXT, first)
    assert carries(journal) == [(1, 1), (1, None), (2, 1)]
    await agrees(robot, whole)


async def test_no_disc_moves_by_itself(robot):
    with pytest.raises(Conflict, match="magazines move whole"):
        await robot.move(ONE, robot.where(TWO).address)
    with pytest.raises(Conflict, match="no free mail slot"):
        await robot.export(ONE)


async def test_a_unit_moves_discs_while_the_robot_is_on_its_way(robot, whole, monkeypatch):
    first, second, other, _ = whole.drives
    await robot.fetch(ONE, first)
    began, go = trio.Event(), trio.Event()
    carry = whole.changer.carry

    async def slow(magazine, unit):
        began.set()
        await go.wait()
        await carry(magazine, unit)

    monkeypatch.setattr(whole.changer, "carry", slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(robot.fetch, NEXT, other)
        await began.wait()
        assert (robot.moving.cargo, robot.moving.dst) == ("magazine 2", "unit 2")
        await robot.fetch(TWO, second)
        assert robot.in_drive(second) == TWO
        go.set()
    await agrees(robot, whole)


async def test_a_magazine_in_the_gripper_goes_to_the_rack(robot, whole, journal):
    whole.faults.add(Fault(FaultKind.ROBOT_JAM, leaves="transport"))
    with pytest.raises(ChangerError, match=r"magazine 1, from the rack to unit 1: .* jammed"):
        await robot.fetch(ONE, whole.drives[0])
    held = [e for e in await whole.changer.inventory() if e.magazine == 1]
    assert [e.kind for e in held if e.accessible] == [ElementKind.TRANSPORT]
    with pytest.raises(ChangerError, match="still holds magazine 1"):
        await robot.fetch(NEXT, whole.drives[0])
    assert await robot.clear_magazine() == 1
    assert await robot.clear_magazine() is None
    await robot.fetch(NEXT, whole.drives[0])
    await agrees(robot, whole)
    assert journal.ended[0] is journal.ended[1] is False


async def test_a_magazine_in_the_gripper_can_be_fetched(robot, whole):
    whole.faults.add(Fault(FaultKind.ROBOT_JAM, leaves="transport"))
    with pytest.raises(ChangerError):
        await robot.fetch(ONE, whole.drives[0])
    await robot.fetch(ONE, whole.drives[0])
    assert robot.magazine_in(1) == 1


async def test_jam_in_a_unit_and_an_open_door(robot, whole, journal):
    await robot.fetch(ONE, whole.drives[0])
    whole.faults.add(Fault(FaultKind.ROBOT_JAM, barcode=TWO))
    with pytest.raises(ChangerError, match="the unit jammed"):
        await robot.fetch(TWO, whole.drives[1])
    await robot.fetch(TWO, whole.drives[1])
    await robot.empty(whole.drives[:2])
    whole.faults.add(Fault(FaultKind.DOOR_OPEN))
    with pytest.raises(DoorOpen, match="magazine 2, from the rack to unit 1"):
        await robot.fetch(NEXT, whole.drives[0])
    whole.faults.clear()
    await robot.fetch(NEXT, whole.drives[0])
    await agrees(robot, whole)


async def test_where_magazines_are_outlives_the_process(robot, whole, whole_config, journal):
    await robot.fetch(TWO, whole.drives[2])
    later = SimulatedLibrary(whole_config)
    robot = Robot(later, journal)
    await robot.empty(later.drives[2:])
    assert robot.where(TWO).slot == 2
    assert await later.changer.inventory() == list(robot.elements.values())


@pytest.mark.parametrize(
    ("unit", "said", "arrived"),
    [(1, "it arrived", True), (None, "it is in unit 1", False), (2, "it is in unit 1", False)],
)
async def test_what_became_of_a_carry_that_was_cut_short(robot, whole, unit, said, arrived):
    await robot.fetch(ONE, whole.drives[0])
    ((found, ok),) = reconcile_carries(await robot.inventory(), [Carry(7, 1, unit)])
    assert (found.kind, found.token, ok) == (DifferenceKind.HALF_DONE, 7, arrived)
    assert found.meaning.startswith("magazine 1 was being carried to ") and said in found.meaning


def test_bounds(tmp_path):
    for sizes in ({"drives": 3}, {"import_export": 2}, {"drives": 1}):
        with pytest.raises(ConfigError):
            SimulatedConfig(
                tmp_path, **{"drives": 4, "import_export": 0, "drives_per_magazine": 2} | sizes
            )
