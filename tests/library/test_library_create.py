"""Building and opening simulated libraries, small and very large."""

import dataclasses
import os

import pytest

from hsmfs.errors import ChangerError, ConfigError, Conflict, MediaError, NotFound
from hsmfs.library.ports import DiscStatus, ElementKind, Library
from hsmfs.library.simulated import hands
from hsmfs.library.simulated.config import SimulatedConfig
from hsmfs.library.simulated.create import create
from hsmfs.library.simulated.layout import disc_in
from hsmfs.library.simulated.library import SimulatedLibrary
from hsmfs.types import Barcode, ElementAddress

ONE = Barcode("S0001D01")
TWO = Barcode("S0001D02")


@pytest.mark.parametrize(("drives", "magazines"), [(3, 28), (18, 278)])
async def test_scale(tmp_path, drives, magazines):
    config = SimulatedConfig(tmp_path / "big", drives=drives, magazines=magazines)
    create(config)
    library: Library = SimulatedLibrary(config)
    elements = await library.changer.inventory()
    discs = [e for e in elements if e.kind is ElementKind.STORAGE and e.full]
    assert len(discs) == magazines * 12
    assert discs[-1].barcode == f"S{magazines:04d}D12"
    assert len(library.drives) == drives


def test_created_once(config):
    create(config)
    with pytest.raises(ConfigError, match="already"):
        create(config)


def test_half_built_is_built_again(config):
    (config.path / "elements.new" / "00001").mkdir(parents=True)
    create(config)
    SimulatedLibrary(config)


def test_nothing_to_open(config):
    with pytest.raises(ConfigError, match="no simulated library"):
        SimulatedLibrary(config)


def test_config_of_another_size(config, library):
    with pytest.raises(ConfigError, match="drives = 2, not 3"):
        SimulatedLibrary(dataclasses.replace(config, drives=3))


@pytest.mark.parametrize(
    "wrong", [{"drives": 0}, {"seek_s": -1}, {"magazines": 10_000}, {"disc_bytes": 100}]
)
def test_config_out_of_range(config, wrong):
    with pytest.raises(
        ConfigError, match=next(iter(wrong)) if "magazines" not in wrong else "disc"
    ):
        dataclasses.replace(config, **wrong)


async def test_burned_disc_survives_restart_and_hands(rig, library, config):
    disc = await rig.loaded_blank()
    await rig.drive.burn(rig.image(), lambda done: None)
    await library.close()
    hands.take_out(config.path, disc.barcode)
    later = SimulatedLibrary(config)
    hands.put_in(config.path, disc.barcode, later.drives[1].address)
    assert (await later.drives[1].load()).status is DiscStatus.CLOSED
    assert await later.drives[1].read(0, 64) == rig.image().read_bytes()
    image = disc_in(config.path, later.drives[1].address) / "disc.iso"
    assert image.stat().st_mode & 0o222 == 0


async def test_image_without_a_note_is_not_blank(rig, library, config):
    await rig.loaded_blank()
    await rig.drive.burn(rig.image(), lambda done: None)
    await rig.drive.eject()
    note = disc_in(config.path, rig.drive.address) / "medium.json"
    note.unlink()
    assert (await rig.drive.load()).status is DiscStatus.INCOMPLETE
    await rig.drive.eject()
    note.write_text("{")
    with pytest.raises(MediaError, match=r"medium\.json"):
        await rig.drive.load()


async def test_hands(library, config):
    hands.swap(config.path, ONE, TWO)
    storage = [e for e in await library.changer.inventory() if e.kind is ElementKind.STORAGE]
    assert [e.barcode for e in storage][:2] == [TWO, ONE]
    with pytest.raises(Conflict):
        hands.put_in(config.path, Barcode("N"), storage[0].address)
    with pytest.raises(NotFound):
        hands.take_out(config.path, Barcode("N"))


async def test_two_discs_in_one_place(library, config):
    (config.path / "elements" / "01024" / "SECOND").mkdir()
    with pytest.raises(ChangerError, match="holds 2 discs"):
        await library.changer.inventory()


async def test_element_that_vanished(library, config):
    os.rename(config.path / "elements" / "00256", config.path / "gone")
    with pytest.raises(ChangerError, match="256 does not answer"):
        await library.changer.inventory()
    with pytest.raises(ChangerError):
        await library.changer.move(ElementAddress(1024), ElementAddress(256))
