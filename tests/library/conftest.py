"""One rig an implementation: what the conformance tests need to know besides the protocols."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hsmfs.library.activity import WatchedLibrary
from hsmfs.library.ports import Drive, Element, ElementKind, Library
from hsmfs.library.robot import Robot
from hsmfs.library.simulated.config import SimulatedConfig
from hsmfs.library.simulated.create import create
from hsmfs.library.simulated.library import SimulatedLibrary
from hsmfs.types import SECTOR, Barcode

MIB = 1 << 20


@dataclass
class Move:
    token: int
    barcode: Barcode
    src: int
    dst: int


@dataclass
class Carry:
    token: int
    magazine: int
    unit: int | None


class MemoryJournal:
    """A move journal that keeps everything, for tests to look at."""

    def __init__(self):
        self.moves: list[Move | Carry] = []
        self.ended: dict[int, bool] = {}

    async def begin(self, barcode, src, dst):
        self.moves.append(Move(len(self.moves), barcode, src, dst))
        return len(self.moves) - 1

    async def finish(self, token, ok):
        assert token not in self.ended
        self.ended[token] = ok

    def open_moves(self):
        return [m for m in self.moves if isinstance(m, Move) and m.token not in self.ended]

    async def begin_carry(self, magazine, unit):
        self.moves.append(Carry(len(self.moves), magazine, unit))
        return len(self.moves) - 1

    finish_carry = finish

    def open_carries(self):
        return [m for m in self.moves if isinstance(m, Carry) and m.token not in self.ended]


@dataclass
class Rig:
    """A library with blank discs in storage, for tests that use the protocols alone."""

    library: Library
    scratch: Path
    padding: int = 0
    """Bytes by which a drive may round a burn up."""
    whole: bool = False
    """Magazines move whole; the first one is in the first unit."""

    @property
    def drive(self) -> Drive:
        return self.library.drives[0]

    def image(self, sectors: int = 64, seed: int = 1) -> Path:
        path = self.scratch / f"image-{sectors}-{seed}"
        path.write_bytes(random.Random(seed).randbytes(sectors * SECTOR))
        return path

    async def discs(self) -> list[Element]:
        found = await self.library.changer.inventory()
        return [e for e in found if e.kind is ElementKind.STORAGE and e.full]

    async def loaded_blank(self) -> Element:
        disc = (await self.discs())[0]
        await self.library.changer.move(disc.address, self.drive.address)
        assert (await self.drive.load()).blank
        return disc


async def agrees(robot: Robot, library: Library) -> None:
    """The map in memory is what the robot would say now."""
    for element in await library.changer.inventory():
        assert robot.elements[element.address] == replace(element, accessible=True)
        if element.barcode is not None:
            assert robot.magazines()[element.barcode] == robot.magazine_of(element.barcode)


@pytest.fixture
def config(tmp_path) -> SimulatedConfig:
    return SimulatedConfig(
        tmp_path / "library", drives=2, magazines=2, import_export=2, disc_bytes=64 * MIB
    )


@pytest.fixture
def library(config) -> SimulatedLibrary:
    create(config)
    return SimulatedLibrary(config)


@pytest.fixture
def whole_config(tmp_path) -> SimulatedConfig:
    """Magazines move whole, to two units of two drives."""
    return SimulatedConfig(
        tmp_path / "library", drives=4, magazines=3, slots_per_magazine=4, import_export=0,
        drives_per_magazine=2, disc_bytes=64 * MIB,
    )  # fmt: skip


@pytest.fixture
def whole(whole_config) -> SimulatedLibrary:
    create(whole_config)
    return SimulatedLibrary(whole_config)


@pytest.fixture
def two_arms(tmp_path) -> SimulatedLibrary:
    config = SimulatedConfig(
        tmp_path / "two", drives=3, magazines=1, import_export=2, arms=2, disc_bytes=MIB,
        exchange_s=30.0,
    )  # fmt: skip
    create(config)
    return SimulatedLibrary(config)


@pytest.fixture
def watched(library) -> WatchedLibrary:
    return WatchedLibrary(library)


@pytest.fixture(params=["scsi"] if os.environ.get("HSMFS_LAB") else ["library", "watched"])
def rig(request, tmp_path) -> Rig:
    """In the lab's kernel a real SCSI changer (tests/lab), else the simulated library."""
    padding = 16 * SECTOR if request.param == "scsi" else 0
    return Rig(request.getfixturevalue(request.param), tmp_path, padding)


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal()


@pytest.fixture
async def robot(library, journal) -> Robot:
    robot = Robot(library, journal)
    await robot.inventory()
    return robot
