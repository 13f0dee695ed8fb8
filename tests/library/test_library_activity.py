"""Those who watch see what a drive and the robot do, while they do it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from hsmfs.library.activity import IDLE, LINGER_S, Activity, WatchedLibrary, Work, activity_of
from hsmfs.library.robot import Moving, Robot
from hsmfs.library.simulated.create import create
from hsmfs.library.simulated.library import SimulatedLibrary
from hsmfs.types import SECTOR


@pytest.fixture
def slow(config) -> WatchedLibrary:
    config = replace(config, exchange_s=60.0, load_s=20.0)
    create(config)
    return WatchedLibrary(SimulatedLibrary(config))


async def test_a_drive_tells_its_work(slow, journal, tmp_path, autojump_clock):
    robot, drive = Robot(slow, journal), slow.drives[0]
    await robot.inventory()
    disc = next(e for e in robot.elements.values() if e.barcode)
    await robot.fetch(disc.barcode, drive)
    assert activity_of(drive) == IDLE
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drive.load)
        await trio.sleep(1)
        assert activity_of(drive).work is Work.LOADING
    image = tmp_path / "image"
    image.write_bytes(bytes(8 * SECTOR))
    seen = []
    await drive.burn(image, lambda done: seen.append(activity_of(drive)))
    assert seen[-1] == Activity(Work.BURNING, 8 * SECTOR, 8 * SECTOR)
    await drive.read(0, 2)
    await drive.read(2, 2)
    assert activity_of(drive) == Activity(Work.READING, 4 * SECTOR)
    await trio.sleep(2 * LINGER_S)
    assert activity_of(drive) == IDLE


async def test_the_robot_tells_its_move(slow, journal, autojump_clock):
    robot, drive = Robot(slow, journal), slow.drives[0]
    await robot.inventory()
    disc = next(e for e in robot.elements.values() if e.barcode)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(robot.fetch, disc.barcode, drive)
        await trio.sleep(30)
        target = robot.elements[drive.address].place
        assert robot.moving == Moving(disc.barcode, disc.place, target)
    assert robot.moving is None


async def test_a_bare_drive_is_idle(library):
    assert activity_of(library.drives[0]) == IDLE
