"""Sets of 3+2: filled, folded, closed early or by themselves, killed in between."""

from __future__ import annotations

import hashlib
import re
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from hsmfs import crash
from hsmfs.disc.parity import parity_of
from hsmfs.disc.parity_image import parity_place, read_facts
from hsmfs.disc.reader import DiscReader
from hsmfs.engine import sets as sets_module
from hsmfs.engine.plan import usable
from hsmfs.errors import Conflict
from hsmfs.states import FileState, SetState, VolumeState
from hsmfs.types import SECTOR

SETS = 'compression = 0\n[sets]\nparity = "raid6"\ndiscs = 5\n'
FILE = 5_000_000
"""Bytes of a file: one fits on a disc of 8 MiB."""


@pytest.fixture
async def five(make_site):
    return await make_site(discs=8, disc="8 MiB", spool="200 MiB", engine=SETS, drives=3)


@asynccontextmanager
async def at_work(site):
    async with site.running(), trio.open_nursery() as nursery:
        await nursery.start(site.migrator.sets.run)
        yield
        nursery.cancel_scope.cancel()


def only_set(site):
    (group,) = site.catalog.sets.all()
    return group


def image(site, barcode: str) -> bytes:
    (found,) = (site.root / "library").rglob(f"{barcode}/*.iso")
    return found.read_bytes()


def check_parity(site) -> None:
    """The discs of the one closed set are what its parity says."""
    group = only_set(site)
    discs = site.catalog.sets.discs(group.id)
    data = [v for v in discs if v.set_index < group.k]
    images = [image(site, v.barcode) for v in data]
    length = max(map(len, images))
    rows = [bytearray(length) for _ in range(group.m)]
    code = parity_of([v.set_index for v in data], range(group.m))
    code.store([i.ljust(length, b"\0") for i in images], rows, length)
    assert [hashlib.sha256(i).hexdigest() for i in images] == [v.image_sha256 for v in data]
    for volume in discs[len(data) :]:
        raw = image(site, volume.barcode)
        reader = DiscReader(
            lambda at, n, raw=raw: raw[at * SECTOR : (at + n) * SECTOR], len(raw) // SECTOR
        )
        facts = read_facts(reader.volume)
        assert facts is not None and reader.label.index == volume.set_index + 1
        assert [m.index for m in facts.members] == [v.set_index for v in data]
        start = parity_place(reader.iso) * SECTOR
        assert raw[start : start + length] == rows[volume.set_index - group.k]


async def closed(site) -> None:
    await site.until(lambda: all(s.state is SetState.CLOSED for s in site.catalog.sets.all()), 60)
    await site.until(lambda: not list((site.root / "spool").iterdir()))


async def test_full_set_gets_its_parity(five) -> None:
    inos = [await five.file(b"f%d" % i, FILE) for i in range(3)]
    async with at_work(five):
        await five.archive(*inos)
        await closed(five)
    check_parity(five)
    five.sound()
    assert five.catalog.sets.last_root() == only_set(five).root_hash


async def test_release_waits_for_parity(five) -> None:
    ino = await five.file(b"f", FILE)
    async with at_work(five):
        await five.archive(ino, release=True)
        assert five.state(ino) == FileState.PREMIGRATED
        with pytest.raises(Conflict, match="no parity yet"):
            await five.releaser.release(ino, "test")
        assert await five.migrator.sets.close(only_set(five))
        await closed(five)
        await five.until(lambda: not five.catalog.queues.migrations())
        assert five.state(ino) == FileState.MIGRATED
    check_parity(five)
    five.sound()


async def test_sets_of_unequal_fill_and_the_next_one(five) -> None:
    inos = [await five.file(b"f%d" % i, size) for i, size in enumerate((10_000, FILE, 2_000_000))]
    async with at_work(five):
        for ino in inos:
            await five.archive(ino)
        await closed(five)
        check_parity(five)
        await five.archive(await five.file(b"later", 5000))
    first, second = five.catalog.sets.all()
    assert second.state is SetState.OPEN and second.uuid != first.uuid
    (disc,) = five.catalog.sets.discs(second.id)
    raw = image(five, disc.barcode)
    reader = DiscReader(lambda at, n: raw[at * SECTOR : (at + n) * SECTOR])
    assert reader.label.previous_root == first.root_hash


async def test_folded_in_several_steps(five) -> None:
    """Somebody waits for room in the spool after each disc."""
    async with at_work(five):
        for i in range(3):
            await five.archive(await five.file(b"f%d" % i, FILE))
            five.migrator.spool.pressed()
            if i < 2:
                await five.until(lambda: not list((five.root / "spool").glob("volume-*")))
        await closed(five)
    check_parity(five)
    five.sound()


async def test_two_copies_are_in_two_sets(five) -> None:
    ino = await five.file(b"f", 10_000)
    async with at_work(five):
        await five.archive(ino, copies=2)
    one, two = five.catalog.sets.all()
    assert {one.copy_no, two.copy_no} == {1, 2}


@pytest.mark.expect_log("operator must add blank discs|burn given up")
async def test_rows_of_more_sets_than_expected_are_counted_in_the_spool(five) -> None:
    disc, spool = five.config.library.disc, five.migrator.spool
    assert spool.for_parity == 3 * disc, "one copy: two rows and a new one"
    async with at_work(five):
        await five.archive(await five.file(b"f", 10_000), copies=3)
        for group in five.catalog.sets.all():
            await five.migrator.sets.close(group)
        await five.until(lambda: spool.for_parity == 7 * disc)
    await five.restart()
    async with at_work(five):
        await five.until(lambda: five.migrator.spool.for_parity == 7 * disc)


@pytest.mark.expect_log("failed|burn given up|another disc")
async def test_spoiled_disc_leaves_its_place(five) -> None:
    five.fail({"kind": "burn_fails", "at_byte": 100_000})
    async with at_work(five):
        await five.archive(await five.file(b"f", FILE))
        await five.migrator.sets.close(only_set(five))
        await closed(five)
    assert len(five.catalog.sets.discs(only_set(five).id)) == 3
    assert len(five.volumes(VolumeState.DAMAGED)) == 1
    check_parity(five)


@pytest.mark.expect_log("spool does not hold")
async def test_spool_lost_what_was_not_folded(five) -> None:
    """Then, and only then, the disc is read back."""
    async with at_work(five):
        await five.archive(await five.file(b"f", FILE))
        (kept,) = (five.root / "spool").glob("volume-*")
        kept.write_bytes(b"x" * kept.stat().st_size)
        await five.migrator.sets.close(only_set(five))
        await closed(five)
    check_parity(five)
    five.sound()


@pytest.mark.expect_log("spool does not hold|parity disc failed|burn given up|parity put off")
@pytest.mark.parametrize("how", ["gone", "wrong"])
async def test_spool_lost_the_parity_before_it_was_burned(five, monkeypatch, how) -> None:
    """The rows are made anew from the discs."""
    monkeypatch.setattr(sets_module, "AGAIN", 0.1)
    ino = await five.file(b"f", FILE)

    def lose(name: str) -> None:
        if name == "sets.images.retired" and not done:
            done.append(name)
            for row in (five.root / "spool").glob("set-*"):
                row.unlink() if how == "gone" else row.write_bytes(b"x" * row.stat().st_size)

    done: list[str] = []
    monkeypatch.setattr(crash, "point", lose)
    async with at_work(five):
        await five.archive(ino)
        await five.migrator.sets.close(only_set(five))
        await closed(five)
    check_parity(five)
    five.sound()


POINTS = sorted(
    set(re.findall(r'crash\.point\("(sets\.[\w.]+)"', Path(sets_module.__file__).read_text()))
    - {"sets.closing"}
)


@pytest.mark.expect_log("burn given up")
@pytest.mark.parametrize("point", ["sets.parity.joined", "burn.verifying"])
async def test_one_disc_a_place_though_a_start_chooses_others(five, monkeypatch, point) -> None:
    """Killed with a parity disc joined, or burned and not read back; others are blank meanwhile."""
    ino = await five.file(b"f", FILE)
    reached = trio.Event()
    begun = trio.Event()

    def kill(name: str) -> None:
        if name == "sets.parity.joined":
            begun.set()
        if name == point and begun.is_set() and not reached.is_set():
            five.keep()
            reached.set()

    monkeypatch.setattr(crash, "point", kill)
    async with at_work(five):
        await five.archive(ino)
        await five.migrator.sets.close(only_set(five))
        await five.until(reached.is_set)
    await five.restart(killed=True)
    blanks, left = five.migrator.blanks, five.migrator.blanks.left
    others_first = lambda without=None: dict(reversed(left(without).items()))  # noqa: E731
    monkeypatch.setattr(blanks, "left", others_first)
    async with at_work(five):
        await closed(five)
    places = [disc.set_index for disc in five.catalog.sets.discs(only_set(five).id)]
    assert sorted(places) == [0, 3, 4]
    check_parity(five)


@pytest.mark.parametrize("point", POINTS)
async def test_killed_at(five, monkeypatch, point: str) -> None:
    ino = await five.file(b"f", FILE)
    reached = trio.Event()

    def kill(name: str) -> None:
        if name == point and not reached.is_set():
            five.keep()
            reached.set()

    monkeypatch.setattr(crash, "point", kill)
    async with at_work(five):
        await five.archive(ino)
        await five.migrator.sets.close(only_set(five))
        await five.until(reached.is_set)
    await five.restart(killed=True)
    async with at_work(five):
        if only_set(five).state is SetState.OPEN:
            await five.migrator.sets.close(only_set(five))
        await closed(five)
        assert five.state(ino) == FileState.PREMIGRATED
    check_parity(five)


async def test_a_snapshot_of_the_catalog_leaves_a_file_the_room_that_parity_leaves_it(
    five, monkeypatch
) -> None:
    """An image may be smaller than its disc, as the parity of its set must fit on one, too."""

    def pack(plain: Path, dest: Path) -> int:
        return dest.write_bytes(bytes(700_000))

    monkeypatch.setattr("hsmfs.catalog.snapshot.pack", pack)
    monkeypatch.setattr("hsmfs.engine.backups.SNAPSHOT_SHARE", 2)
    ino = await five.file(b"f", usable(five.migrator._disc) - 20_000)
    async with at_work(five):
        await five.archive(ino)
    assert five.state(ino) == FileState.PREMIGRATED
