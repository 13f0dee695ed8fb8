"""What our SCSI robot and drives make of each answer, played by a device of memory."""

from __future__ import annotations

import pytest

from hsmfs.errors import ChangerError, DoorOpen, DriveError, UnreadableSector, VolumeMissing
from hsmfs.library.ports import DiscStatus, ElementKind
from hsmfs.library.scsi.changer import ScsiChanger
from hsmfs.library.scsi.drive import ScsiDrive
from hsmfs.library.scsi.elements import Span
from hsmfs.library.scsi.link import Link
from hsmfs.library.scsi.sense import Key, Sense
from hsmfs.library.scsi.sg import DeviceGone, NoAnswer
from hsmfs.types import SECTOR, ElementAddress
from tests.library.played import MOVE, READ, READY, SECTORS, STATUS, STOP, Played

NOT_READY, DOOR = Sense(Key.NOT_READY, 0x04, 0x01), Sense(Key.NOT_READY, 0x04, 0x18)
CHANGED, RESET = Sense(Key.UNIT_ATTENTION, 0x28, 0x01), Sense(Key.UNIT_ATTENTION, 0x29)

@pytest.fixture
def device() -> Played:
    return Played()


@pytest.fixture
def link(device: Played) -> Link:
    return Link("it", lambda: "somewhere", lambda path: device)


@pytest.fixture
async def drive(link: Link) -> ScsiDrive:
    drive = ScsiDrive("d1", "S", ElementAddress(500), link, node=lambda: None, burner="xorriso")

    async def full() -> bool:
        return True

    drive.full = full
    return drive


@pytest.fixture
def changer(link: Link) -> ScsiChanger:
    return ScsiChanger(link, [Span(ElementKind.STORAGE, 1000, 2)], [], 12)


A, B = ElementAddress(1000), ElementAddress(1001)


async def test_load_waits_for_the_drive(device, drive, autojump_clock) -> None:
    device.faults[READY] = [NOT_READY, NOT_READY, Sense(Key.UNIT_ATTENTION, 0x28)]
    info = await drive.load()
    assert (info.status, info.written_bytes) == (DiscStatus.CLOSED, SECTORS * SECTOR)


async def test_load_takes_the_tray_in(device, drive, autojump_clock) -> None:
    device.faults[READY] = [Sense(Key.NOT_READY, 0x3A, 0x02), NOT_READY]
    await drive.load()
    assert [c[4] for c in device.sent if c[0] == STOP] == [0x03]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (NOT_READY, DriveError),
        (Sense(Key.NOT_READY, 0x3A, 0x01), VolumeMissing),
        (Sense(Key.HARDWARE_ERROR, 0x44), DriveError),
        (NoAnswer("silent"), DriveError),
        (DeviceGone("gone"), DriveError),
    ],
)
async def test_load_fails(device, drive, autojump_clock, fault, error) -> None:
    device.faults[READY], device.stuck = [fault], True
    with pytest.raises(error, match="d1"):
        await drive.load()
    assert drive.loaded is None


async def test_bad_sector_is_found_in_a_long_read(device, drive) -> None:
    await drive.load()
    device.bad = {477, 800}
    with pytest.raises(UnreadableSector) as caught:
        await drive.read(300, 600)
    assert caught.value.sector == 477
    assert len(await drive.read(478, 322)) == 322 * SECTOR


async def test_long_read_is_in_order(drive) -> None:
    await drive.load()
    data = await drive.read(1, 999)
    assert [data[i * SECTOR] for i in range(999)] == [s % 251 for s in range(1, 1000)]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Sense(Key.HARDWARE_ERROR, 0x15), DriveError),
        (Sense(Key.NOT_READY, 0x3A), VolumeMissing),
        (Sense(Key.UNIT_ATTENTION, 0x28), VolumeMissing),
        (Sense(Key.BLANK_CHECK), UnreadableSector),
        (NoAnswer("silent"), DriveError),
    ],
)
async def test_read_fails(device, drive, fault, error) -> None:
    await drive.load()
    device.faults[READ], device.stuck = [fault], True
    with pytest.raises(error, match="d1"):
        await drive.read(0, 1)


async def test_a_reset_is_only_news(device, drive) -> None:
    await drive.load()
    device.faults[READ] = [RESET]
    assert len(await drive.read(0, 1)) == SECTOR


async def test_a_disc_exchanged_by_hand_is_not_read_as_the_old_one(device, drive) -> None:
    await drive.load()
    device.faults[READ] = [Sense(Key.UNIT_ATTENTION, 0x28)]
    with pytest.raises(VolumeMissing, match="opened"):
        await drive.read(0, 1)
    assert drive.loaded is None


async def test_drive_that_came_back_is_read_on(device, drive) -> None:
    await drive.load()
    device.faults[READ] = [DeviceGone("gone")]
    assert len(await drive.read(0, 1)) == SECTOR


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (Sense(Key.ILLEGAL_REQUEST, 0x3B, 0x0E), VolumeMissing, "slot 1 is empty"),
        (Sense(Key.ILLEGAL_REQUEST, 0x3B, 0x0D), ChangerError, "slot 2 is full"),
        (Sense(Key.ILLEGAL_REQUEST, 0x53, 0x02), ChangerError, "holds its disc fast"),
        (Sense(Key.HARDWARE_ERROR, 0x15, 0x01), ChangerError, "positioning"),
        (DOOR, DoorOpen, "door"),
        (DeviceGone("gone"), ChangerError, "does not answer"),
    ],
)
async def test_move_fails(device, changer, fault, error, words) -> None:
    await changer.inventory()
    device.faults[MOVE] = [fault]
    with pytest.raises(error, match=words):
        await changer.move(A, B)
    assert sum(c[0] == MOVE for c in device.sent) == 1


async def test_open_door_is_told(device, changer) -> None:
    device.faults[READY], device.stuck = [DOOR], True
    with pytest.raises(DoorOpen):
        await changer.inventory()


async def test_robot_that_gets_ready_is_waited_for(device, changer, autojump_clock) -> None:
    device.faults[READY] = [NOT_READY] * 50
    assert len(await changer.inventory()) == 2


async def test_move_after_an_opened_door_looks_first(device, changer) -> None:
    await changer.inventory()
    device.faults[MOVE] = [CHANGED]
    await changer.move(A, B)
    assert [c[0] for c in device.sent][-3:] == [MOVE, STATUS, MOVE]


async def test_another_disc_in_the_slot_is_not_moved(device, changer) -> None:
    await changer.inventory()
    device.faults[MOVE] = [CHANGED]
    device.labels[1000] = "OTHER"
    with pytest.raises(ChangerError, match="held disc A and holds OTHER"):
        await changer.move(A, B)
    assert sum(c[0] == MOVE for c in device.sent) == 1


async def test_label_that_does_not_read(device, changer) -> None:
    device.labels = {1000: " ", 1001: "B"}
    first, second = await changer.inventory()
    assert (first.full, first.barcode) == (True, None)
    assert second.barcode == "B"
