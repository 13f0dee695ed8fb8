"""What every library does, whatever it is made of: written against the protocols alone."""

import pytest
import trio

from hsmfs.errors import (
    ChangerError,
    MediaError,
    UnreadableSector,
    VolumeMissing,
    WriteOnceViolation,
)
from hsmfs.library.ports import DiscStatus, ElementKind
from hsmfs.types import SECTOR, ElementAddress


def progress(done):
    pass


async def test_inventory_names_every_place(rig):
    elements = await rig.library.changer.inventory()
    assert [e.address for e in elements] == sorted({e.address for e in elements})
    none = {ElementKind.IMPORT_EXPORT} if rig.whole else set()
    assert {e.kind for e in elements} == set(ElementKind) - none
    assert {e.unit for e in elements if e.kind is ElementKind.DRIVE} == (
        {1, 2} if rig.whole else {None}
    )
    drives = {e.address: e.drive for e in elements if e.kind is ElementKind.DRIVE}
    assert drives == {d.address: d.name for d in rig.library.drives}
    assert all(e.magazine and e.slot for e in elements if e.kind is ElementKind.STORAGE)
    assert len({e.place for e in elements}) == len(elements)


async def test_every_disc_has_a_label_of_its_own(rig):
    discs = await rig.discs()
    assert len({d.barcode for d in discs}) == len(discs) > 1


async def test_move_to_drive_and_back(rig):
    changer = rig.library.changer
    disc = (await rig.discs())[0]
    await changer.move(disc.address, rig.drive.address)
    after = {e.address: e for e in await changer.inventory()}
    assert not after[disc.address].full
    held = after[rig.drive.address]
    assert (held.full, held.barcode, held.source) == (True, disc.barcode, disc.address)
    await changer.move(rig.drive.address, disc.address)
    assert disc in await rig.discs()


async def test_move_to_mail_slot_and_back(rig):
    if rig.whole:
        pytest.skip("no mail slot takes a magazine")
    changer = rig.library.changer
    disc = (await rig.discs())[0]
    mail = next(e for e in await changer.inventory() if e.kind is ElementKind.IMPORT_EXPORT)
    await changer.move(disc.address, mail.address)
    await changer.move(mail.address, disc.address)
    await changer.rescan()
    assert disc in await rig.discs()


async def test_move_from_empty_slot(rig):
    with pytest.raises(VolumeMissing):
        await rig.library.changer.move(rig.drive.address, (await rig.discs())[0].address)


async def test_move_to_full_slot(rig):
    first, second = (await rig.discs())[:2]
    with pytest.raises(ChangerError):
        await rig.library.changer.move(first.address, second.address)
    assert [first, second] == (await rig.discs())[:2]


async def test_move_to_nowhere(rig):
    disc = (await rig.discs())[0]
    with pytest.raises(ChangerError):
        await rig.library.changer.move(disc.address, ElementAddress(65_500))


async def test_drive_holds_its_disc_until_ejected(rig):
    changer = rig.library.changer
    disc = await rig.loaded_blank()
    held = {e.address: e for e in await changer.inventory()}[rig.drive.address]
    assert held.full
    assert not held.accessible
    with pytest.raises(ChangerError):
        await changer.move(rig.drive.address, disc.address)
    await rig.drive.eject()
    assert rig.drive.loaded is None
    await changer.move(rig.drive.address, disc.address)


async def test_empty_drive(rig):
    with pytest.raises(VolumeMissing):
        await rig.drive.load()
    with pytest.raises(VolumeMissing):
        await rig.drive.read(0, 1)
    with pytest.raises(VolumeMissing):
        await rig.drive.burn(rig.image(), progress)
    await rig.drive.eject()


async def test_blank_disc(rig):
    await rig.loaded_blank()
    info = rig.drive.loaded
    assert (info.status, info.written_bytes) == (DiscStatus.BLANK, 0)
    assert info.capacity_bytes == rig.library.disc_bytes
    with pytest.raises(UnreadableSector) as caught:
        await rig.drive.read(5, 1)
    assert caught.value.sector == 5


async def test_burn_and_read_back(rig):
    disc = await rig.loaded_blank()
    image = rig.image(sectors=1000)
    told = []
    await rig.drive.burn(image, told.append)
    data = image.read_bytes()
    assert told == sorted(told)
    assert told[-1] == len(data)
    assert rig.drive.loaded.status is DiscStatus.CLOSED
    assert 0 <= rig.drive.loaded.written_bytes - len(data) <= rig.padding
    assert await rig.drive.read(0, 1000) == data
    assert await rig.drive.read(999, 1) == data[-SECTOR:]
    await rig.drive.eject()
    await rig.library.changer.move(rig.drive.address, disc.address)
    other = rig.library.drives[1]
    await rig.library.changer.move(disc.address, other.address)
    assert (await other.load()).status is DiscStatus.CLOSED
    assert await other.read(7, 3) == data[7 * SECTOR : 10 * SECTOR]


async def test_read_past_the_end_tells_the_first_bad_sector(rig):
    await rig.loaded_blank()
    await rig.drive.burn(rig.image(sectors=64), progress)
    with pytest.raises(UnreadableSector) as caught:
        await rig.drive.read(60, 10)
    assert caught.value.sector == 64


async def test_second_burn_is_refused(rig):
    await rig.loaded_blank()
    await rig.drive.burn(rig.image(seed=1), progress)
    with pytest.raises(WriteOnceViolation):
        await rig.drive.burn(rig.image(seed=2), progress)
    assert await rig.drive.read(0, 64) == rig.image(seed=1).read_bytes()


async def test_image_that_does_not_fit_leaves_the_disc_blank(rig):
    await rig.loaded_blank()
    large = rig.scratch / "large"
    with large.open("wb") as file:
        file.truncate(rig.library.disc_bytes + SECTOR)
    odd = rig.scratch / "odd"
    odd.write_bytes(b"x" * 1000)
    for image in (large, odd):
        with pytest.raises(MediaError):
            await rig.drive.burn(image, progress)
    with pytest.raises(FileNotFoundError):
        await rig.drive.burn(rig.scratch / "none", progress)
    await rig.drive.eject()
    assert (await rig.drive.load()).blank


async def test_cancelled_burn_spoils_the_disc(rig):
    await rig.loaded_blank()
    with trio.CancelScope() as scope:
        await rig.drive.burn(rig.image(sectors=20_000), lambda done: scope.cancel())
    assert scope.cancelled_caught
    assert rig.drive.loaded.status is DiscStatus.INCOMPLETE
    with pytest.raises(WriteOnceViolation):
        await rig.drive.burn(rig.image(), progress)


async def test_drives_burn_at_once(rig):
    first, second = (await rig.discs())[:2]
    jobs = list(zip((first, second), rig.library.drives, strict=False))

    async def burn(disc, drive):
        await drive.load()
        await drive.burn(rig.image(seed=drive.address), progress)

    async with trio.open_nursery() as nursery:
        for disc, drive in jobs:
            await rig.library.changer.move(disc.address, drive.address)
            nursery.start_soon(burn, disc, drive)
    for _, drive in jobs:
        assert await drive.read(0, 64) == rig.image(seed=drive.address).read_bytes()


async def test_magazines_are_carried_where_they_move_whole(rig):
    changer = rig.library.changer
    if not rig.whole:
        with pytest.raises(ChangerError):
            await changer.carry(1, 1)
        return
    disc, drive = (await rig.discs())[0], rig.library.drives[2]
    await changer.carry(2, 2)
    for magazine, unit in ((1, 1), (1, 2), (3, 1), (3, None), (3, 9), (2, 1)):
        with pytest.raises(ChangerError):
            await changer.carry(magazine, unit)
    with pytest.raises(VolumeMissing):
        await changer.carry(9, None)
    for src, dst in ((disc.address, drive.address), (disc.address, disc.address + 1)):
        with pytest.raises(ChangerError):
            await changer.move(src, dst)
    await changer.move(disc.address, rig.drive.address)
    with pytest.raises(ChangerError):
        await changer.carry(1, None)
    await changer.move(rig.drive.address, disc.address)
    await changer.carry(1, None)
    await changer.carry(2, None)
    await changer.carry(1, 2)
    units = {e.magazine: e.unit for e in await changer.inventory() if e.magazine}
    assert units == {1: 2, 2: None, 3: None}
    await changer.move(disc.address, drive.address)
    held = next(e for e in await changer.inventory() if e.address == drive.address)
    assert (held.barcode, held.source, held.unit) == (disc.barcode, disc.address, 2)
