"""A changer that reads no barcodes: discs are known by the label inside, or given a name."""

from __future__ import annotations

import json

import pytest

from hsmfs.disc import reader
from hsmfs.errors import ChangerError, ConfigError
from hsmfs.library import labels
from hsmfs.library.labels import LabelledChanger, Memory
from hsmfs.library.ports import ElementKind
from hsmfs.library.robot import Robot
from hsmfs.library.simulated import hands
from hsmfs.library.simulated.faults import Fault, FaultKind
from hsmfs.types import SECTOR, Barcode


@pytest.fixture
def file(tmp_path):
    return tmp_path / "labels/labels.json"


@pytest.fixture
def changer(library, file) -> LabelledChanger:
    return LabelledChanger(library.changer, library.drives, Memory(file))


async def slots(changer) -> dict[int, str | None]:
    found = await changer.inventory()
    return {e.address: e.barcode for e in found if e.kind is ElementKind.STORAGE and e.full}


async def test_unknown_discs_have_no_label(changer) -> None:
    assert set((await slots(changer)).values()) == {None}


async def test_blank_discs_get_names_that_stay(changer, library, file) -> None:
    await changer.rescan()
    names = await slots(changer)
    assert len(set(names.values())) == len(names)
    assert all(name.startswith("N") for name in names.values())
    assert all(drive.loaded is None for drive in library.drives)
    again = LabelledChanger(library.changer, library.drives, Memory(file))
    assert await slots(again) == names


async def test_names_follow_moves(changer, library, file) -> None:
    await changer.rescan()
    src, name = next(iter((await slots(changer)).items()))
    await changer.move(src, library.drives[0].address)
    there = {e.address: e.barcode for e in await changer.inventory()}
    assert there[library.drives[0].address] == name
    assert src not in await slots(changer)
    assert json.loads(file.read_text())["moving"] is None


async def test_a_move_cut_off_is_settled(changer, library, file) -> None:
    await changer.rescan()
    src, name = next(iter((await slots(changer)).items()))
    dst = library.drives[0].address
    data = json.loads(file.read_text())
    file.write_text(json.dumps({**data, "moving": [src, dst]}))
    await library.changer.move(src, dst)
    later = LabelledChanger(library.changer, library.drives, Memory(file))
    assert {e.address: e.barcode for e in await later.inventory()}[dst] == name


async def test_disc_put_in_by_hand_is_read_again(changer, library, config, monkeypatch) -> None:
    await changer.rescan()
    before = await slots(changer)
    robot = next(e for e in await library.changer.inventory() if e.barcode == "S0001D01")
    hands.take_out(config.path, Barcode("S0001D01"))
    assert robot.address not in await slots(changer)
    hands.put_in(config.path, Barcode("S0001D01"), robot.address)
    assert (await slots(changer))[robot.address] is None
    await changer.rescan()
    assert (await slots(changer))[robot.address] not in (None, before[robot.address])


async def test_written_disc_is_known_by_its_label(changer, library, tmp_path, monkeypatch) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(64 * SECTOR))
    src = next(iter(await slots(changer)))
    drive = library.drives[0]
    await library.changer.move(src, drive.address)
    await drive.load()
    await drive.burn(image, lambda done: None)
    await drive.eject()
    await library.changer.move(drive.address, src)

    class Labelled:
        def __init__(self, read_at, sectors) -> None:
            assert len(read_at(0, sectors)) == 64 * SECTOR
            self.label = type("Label", (), {"barcode": "ARCHIVE7", "uuid": "u"})

    monkeypatch.setattr(labels, "DiscReader", Labelled)
    assert reader.DiscReader is not Labelled
    changer.called = lambda label: f"{label.barcode} of {label.uuid}"
    await changer.rescan()
    assert (await slots(changer))[src] == "ARCHIVE7 of u"


@pytest.mark.expect_log("disc not recognised")
async def test_another_drive_is_asked(changer, library) -> None:
    library.faults.add(Fault(FaultKind.LOAD_FAILS, drive=library.drives[0].name, times=1))
    await changer.rescan()
    assert None not in (await slots(changer)).values()


@pytest.mark.expect_log("disc not recognised")
async def test_disc_that_does_not_load_stays_unknown(changer, library) -> None:
    library.faults.add(Fault(FaultKind.LOAD_FAILS, barcode=Barcode("S0001D02"), times=None))
    await changer.rescan()
    assert sum(name is None for name in (await slots(changer)).values()) == 1


async def test_robot_moves_by_these_names(changer, library, journal, monkeypatch) -> None:
    await changer.rescan()
    monkeypatch.setattr(library, "changer", changer)
    robot = Robot(library, journal)
    await robot.inventory()
    name = list((await slots(changer)).values())[2]
    await robot.fetch(Barcode(name), library.drives[1])
    assert robot.in_drive(library.drives[1]) == name
    await robot.put_away(library.drives[1])


async def test_failed_move_keeps_the_name_where_the_disc_is(changer, library) -> None:
    await changer.rescan()
    src, name = next(iter((await slots(changer)).items()))
    library.faults.add(Fault(FaultKind.ROBOT_JAM))
    with pytest.raises(ChangerError):
        await changer.move(src, library.drives[0].address)
    assert (await slots(changer))[src] == name


def test_damaged_file_is_told(file) -> None:
    file.parent.mkdir()
    file.write_text("{")
    with pytest.raises(ConfigError, match="does not read"):
        Memory(file)
