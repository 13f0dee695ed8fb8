"""Recalls through the parity of a closed set of 3+2, and discs made anew from it."""

from __future__ import annotations

import errno
import os
import re
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from hsmfs import crash
from hsmfs.catalog.queues import RecallClass
from hsmfs.catalog.sets import Rebuild
from hsmfs.engine import renew as renew_module
from hsmfs.engine.lost import out_of, reach
from hsmfs.engine.recall import Recaller
from hsmfs.engine.renew import Renewer
from hsmfs.engine.trust.holds import Scope
from hsmfs.errors import Conflict, RecallFailed
from hsmfs.library.simulated.hands import put_in, take_out
from hsmfs.library.simulated.layout import FIRST_IMPORT_EXPORT
from hsmfs.states import FileState, SetState, VolumeState

SETS = 'compression = 0\nrecall_retries = 1\nrecall_retry_wait = "0 s"\n[sets]\ndiscs = 5\n'
SIZES = (5_000_000, 300_000, 6_000_000)
EXPECTED = "unreadable|suspect|failed|differs|lost|copy|recall|disc|drive"


class Set:
    """Three released files, each on a disc of its own, in one closed set."""

    def __init__(self, site) -> None:
        self.site = site
        self.data: dict[int, bytes] = {}

    async def make(self) -> None:
        site = self.site
        site.migrator.sets.closed = None
        for i, size in enumerate(SIZES):
            data = site.random.randbytes(size)
            ino = await site.file(b"f%d" % i, data)
            self.data[ino] = data
            await site.archive(ino)
        await site.until(
            lambda: all(s.state is SetState.CLOSED for s in site.catalog.sets.all()), 60
        )
        for ino in self.data:
            await site.releaser.release(ino, "test")
            assert site.state(ino) == FileState.MIGRATED
        (self.group,) = site.catalog.sets.all()
        self.discs = site.catalog.sets.discs(self.group.id)

    async def lose(self, *indices: int) -> None:
        for index in indices:
            take_out(self.site.config.library.path, self.discs[index].barcode)
        await self.site.mounts.inventory.sync()

    async def recall(self, *inos: int) -> None:
        """Bring files in and compare them; raises what a reader would get."""
        for ino in inos or self.data:
            await self.recaller.request(ino, RecallClass.STANDARD, "test")
        for ino in inos or self.data:
            await self.site.until(lambda ino=ino: self.recaller.job(ino) is None, 60)
            if (error := self.recaller.failure(ino)) is not None:
                raise error
            assert self.site.on_disk(ino) == self.data[ino]


@pytest.fixture
async def five(make_site):
    """The set, at work."""
    site = await make_site(discs=9, disc="8 MiB", spool="200 MiB", engine=SETS, drives=2)
    made = Set(site)

    @asynccontextmanager
    async def at_work():
        async with site.running(), trio.open_nursery() as nursery:
            await nursery.start(site.migrator.sets.run)
            made.recaller = Recaller(
                site.catalog, site.files, site.mounts, site.events, site.config,
                left=lambda who, ino: False,
            )  # fmt: skip
            migrator = site.migrator
            made.renewer = Renewer(
                site.catalog, site.events, migrator.spool, migrator.blanks,
                made.recaller.parity_reader, migrator.burner,
            )  # fmt: skip
            await nursery.start(made.recaller.run)
            await nursery.start(made.renewer.run)
            yield
            nursery.cancel_scope.cancel()

    made.at_work = at_work
    async with at_work():
        await made.make()
    return made


@pytest.fixture
async def working(five):
    async with five.at_work():
        yield five


@pytest.mark.expect_log(EXPECTED)
@pytest.mark.parametrize("lost", [(0,), (2,), (0, 2), (1, 3), (0, 4)], ids=str)
async def test_lost_discs(working, lost) -> None:
    await working.lose(*lost)
    await working.recall()
    assert "recalled_by_parity" in working.site.kinds()


@pytest.mark.expect_log(EXPECTED)
async def test_of_the_others_those_in_drives_are_asked(working) -> None:
    """Both parity discs lie in the drives: the one data disc that is left need not be fetched."""
    site, (first, *_) = working.site, working.data
    await working.lose(0)
    for drive in site.library.drives:
        await site.mounts.take_out(site.robot.in_drive(drive))
    for drive, disc in zip(site.library.drives, working.discs[3:], strict=True):
        await site.robot.fetch(disc.barcode, drive)
    loads = [site.catalog.volumes.get(disc.id).loads for disc in working.discs]
    await working.recall(first)
    now = [site.catalog.volumes.get(disc.id).loads for disc in working.discs]
    fetched = [after - before for before, after in zip(loads, now, strict=True)]
    assert (fetched[0], sum(fetched[1:3]), fetched[3:]) == (0, 1, [1, 1])


@pytest.mark.expect_log(EXPECTED)
async def test_a_disc_that_is_in_the_way_is_waited_for(working, monkeypatch) -> None:
    """A Conflict passes, as it does for other recalls; it ended the recaller."""
    first, *_ = working.data
    reader, asked = working.recaller.parity_reader, []
    real = reader.syndromes

    async def syndromes(*args, **options):
        asked.append(args)
        if len(asked) == 1:
            raise Conflict("disc S0001D02 is in drive d2")
        return await real(*args, **options)

    monkeypatch.setattr(reader, "syndromes", syndromes)
    await working.lose(0)
    await working.recall(first)
    assert len(asked) > 1


async def lost(working) -> set[int]:
    """What `find --lost` names."""

    def look(reports):
        attrs = [reports.inodes.get_raw(ino) for ino in working.data]
        return out_of(reports, attrs, reach(reports))

    return await working.site.catalog.read(look)


@pytest.mark.expect_log(EXPECTED)
async def test_three_lost_discs_are_named(working) -> None:
    first, second, third = working.data
    await working.lose(0, 2)
    assert await lost(working) == set()
    await working.lose(3)
    assert await lost(working) == {first, third}
    await working.recall(second)
    with pytest.raises(RecallFailed) as raised:
        await working.recall(first)
    for index in (0, 2, 3):
        assert working.discs[index].barcode in raised.value.message
    with pytest.raises(RecallFailed):
        await working.recall(third)


@pytest.mark.expect_log(EXPECTED)
async def test_bad_sectors_on_all_discs(working) -> None:
    """Two at one place are made up for, also where a third disc is bad elsewhere."""
    faults = [
        {"kind": "unreadable", "barcode": working.discs[index].barcode, "sector": sector,
         "count": count}
        for index, sector, count in (
            (0, 300, 3), (0, 900, 1), (1, 120, 1), (2, 300, 2), (2, 1500, 200), (3, 400, 80),
            (4, 1510, 3),
        )
    ]  # fmt: skip
    working.site.fail(*faults)
    await working.recall()


@pytest.mark.expect_log(EXPECTED)
async def test_discs_that_read_wrong(working) -> None:
    """The disc itself without an error, and another one that is asked to make up for it."""
    faults = [
        {"kind": "corrupt", "barcode": working.discs[index].barcode, "sector": sector, "count": 2}
        for index, sector in ((0, 300), (2, 301))
    ]
    working.site.fail(*faults)
    await working.recall()


def inside(site, barcode: str) -> bytes:
    (found,) = (site.root / "library").rglob(f"{barcode}/*.iso")
    return found.read_bytes()


@pytest.mark.expect_log(EXPECTED)
async def test_disc_is_made_anew(working) -> None:
    old = working.discs[0]
    before = inside(working.site, old.barcode)
    working.renewer.may_retire = working.site.trust.holds.refuse_to_retire
    await working.site.trust.holds.place("case", "why", Scope(tuple(working.data)), "test")
    with pytest.raises(Conflict, match="under legal hold"):
        await working.renewer.ask(old)
    await working.lose(0)
    await working.renewer.ask(working.site.catalog.volumes.get(old.id))
    await working.site.until(lambda: "disc_rebuilt" in working.site.kinds(), 60)
    new = working.site.catalog.volumes.get(old.id)
    assert new.barcode != old.barcode and new.state is VolumeState.FULL
    assert new.inside == old.barcode and new.uuid == old.uuid and new.set_index == 0
    assert inside(working.site, new.barcode) == before
    assert working.site.catalog.volumes.by_barcode(old.barcode).state is VolumeState.LOST
    await working.recall()
    assert "recalled_by_parity" not in working.site.kinds()
    working.site.sound()


@pytest.mark.expect_log(EXPECTED)
@pytest.mark.parametrize("how", ["made anew", "found again"])
async def test_what_came_by_parity_is_released_when_its_disc_is_there_again(working, how) -> None:
    site, (ino, *_) = working.site, working.data
    await working.lose(0)
    await working.recall(ino)
    assert site.state(ino) == FileState.RESIDENT  # on no disc now
    with pytest.raises(Conflict, match="0 verified copies"):
        await site.releaser.release(ino, "test")
    if how == "made anew":
        await working.renewer.ask(site.catalog.volumes.get(working.discs[0].id))
        await site.until(lambda: not site.catalog.sets.rebuilds(), 60)
    else:
        put_in(site.config.library.path, working.discs[0].barcode, FIRST_IMPORT_EXPORT)
        await site.mounts.inventory.sync()
    assert await site.releaser.release(ino, "test") > 0
    assert site.state(ino) == FileState.MIGRATED
    await working.recall(ino)


@pytest.mark.expect_log(EXPECTED)
async def test_damaged_copies_heal_with_the_disc(working) -> None:
    barcode = working.discs[2].barcode
    working.site.fail({"kind": "unreadable", "barcode": barcode, "sector": 300, "count": 4})
    await working.recall()
    ino = list(working.data)[2]
    assert not working.site.catalog.copies.protected(ino, 1)
    assert await lost(working) == set()
    working.renewer._later[working.discs[0].id] = float("inf")
    await working.renewer.ask(working.site.catalog.volumes.get(working.discs[2].id))
    await working.site.until(lambda: "disc_rebuilt" in working.site.kinds(), 60)
    assert working.site.catalog.copies.protected(ino, 1) == 1
    assert not working.renewer._later, "another disc may have failed for want of this one"


async def test_not_everything_can_be_made_anew(working) -> None:
    (alone, *_) = [v for v in working.site.catalog.volumes.all() if v.set_id is None]
    with pytest.raises(Conflict, match="no closed set"):
        await working.renewer.ask(alone)


@pytest.mark.expect_log(EXPECTED)
async def test_without_a_blank_disc_the_spool_is_left_to_others(working, monkeypatch) -> None:
    monkeypatch.setattr("hsmfs.engine.blanks.AGAIN", 0.05)
    site, renewer, old = working.site, working.renewer, working.discs[0]
    blanks, spool = site.migrator.blanks, site.migrator.spool
    claimed = [volume for volume in blanks.left() if blanks.claim(volume)]
    await working.lose(0)
    for last in (False, True):
        await renewer.ask(old)
        await site.until(lambda: old.id in renewer.progress)
        await site.until(lambda: renewer.progress[old.id].phase == renew_module.BLANK_WANTED)
        with trio.fail_after(1):
            async with spool.room(spool.limit):
                pass
        if not last:
            await renewer.cancel(old)
            await site.until(lambda: not renewer.progress)
            assert not site.catalog.sets.rebuilds()
    blanks.free(claimed)
    await site.until(lambda: "disc_rebuilt" in site.kinds(), 60)


@pytest.mark.expect_log(EXPECTED)
async def test_without_room_in_the_spool_the_blank_disc_is_left_to_others(working) -> None:
    site, renewer, old = working.site, working.renewer, working.discs[0]
    blanks, spool = site.migrator.blanks, site.migrator.spool
    await working.lose(0)
    there = set(blanks.left())
    async with spool.room(spool.limit):
        await renewer.ask(old)
        await site.until(lambda: old.id in renewer.progress)
        await site.until(lambda: renewer.progress[old.id].phase == renew_module.ROOM_WANTED)
        assert set(blanks.left()) == there
    await site.until(lambda: "disc_rebuilt" in site.kinds(), 60)


@pytest.mark.expect_log("rebuild put off")
async def test_what_cannot_be_made_anew_is_tried_less_and_less(working, monkeypatch) -> None:
    async def fails(*_: object) -> None:
        raise RecallFailed("too much is missing")

    renewer, disc = working.renewer, working.discs[1].id
    monkeypatch.setattr(renewer, "_renew", fails)
    waits = []
    for _ in range(3):
        await renewer._work(Rebuild(disc, None, "", 1, ""))
        waits.append(round(renewer._later[disc] - trio.current_time(), -1))
    assert waits == [600, 1200, 2400]
    for _ in range(12):
        await renewer._work(Rebuild(disc, None, "", 1, ""))
    assert renewer._later[disc] - trio.current_time() == pytest.approx(90 * 86_400, rel=0.01)
    renewer.came_back(disc)
    assert not renewer._later, "a disc of the set may have come back"


def test_buffers_in_a_file_find_out_that_the_disk_is_full(tmp_path, monkeypatch) -> None:
    """Else the first store into them would end the daemon."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="full"):
        renew_module._in_file(tmp_path)(1 << 20)


@pytest.mark.expect_log(EXPECTED)
@pytest.mark.parametrize("index", [1, 4])
async def test_catalog_from_discs_knows_no_checksums(working, index) -> None:
    """What the parity discs tell does as well."""
    db = working.site.catalog.db
    async with working.site.catalog.write():
        db.execute("UPDATE volumes SET image_sha256 = NULL, parity_sector = NULL")
        db.execute("DELETE FROM set_parity")
    await working.lose(index)
    await working.renewer.ask(working.site.catalog.volumes.get(working.discs[index].id))
    await working.site.until(lambda: "disc_rebuilt" in working.site.kinds(), 60)
    await working.recall()
    assert "recalled_by_parity" not in working.site.kinds()


@pytest.mark.expect_log(EXPECTED)
async def test_parity_disc_is_made_anew(working) -> None:
    """And then it makes up for another one."""
    await working.lose(3)
    await working.renewer.ask(working.discs[3])
    await working.site.until(lambda: "disc_rebuilt" in working.site.kinds(), 60)
    *_, third, _ = working.site.catalog.sets.discs(working.group.id)
    assert third.barcode != working.discs[3].barcode and third.set_index == 3
    working.site.sound()
    await working.lose(0, 4)
    await working.recall()
    assert "recalled_by_parity" in working.site.kinds()


@pytest.mark.expect_log(EXPECTED)
async def test_both_parity_discs_are_made_anew(working) -> None:
    await working.lose(3, 4)
    for index in (3, 4):
        await working.renewer.ask(working.discs[index])
    await working.site.until(lambda: working.site.kinds().count("disc_rebuilt") == 2, 60)
    *_, third, fourth = working.site.catalog.sets.discs(working.group.id)
    assert {third.barcode, fourth.barcode}.isdisjoint(disc.barcode for disc in working.discs)
    working.site.sound()
    await working.lose(0, 1)
    await working.recall()
    assert "recalled_by_parity" in working.site.kinds()


POINTS = sorted(
    set(re.findall(r'crash\.point\("(renew\.[\w.]+)"', Path(renew_module.__file__).read_text()))
    | {"burn.started", "burn.verifying", "burn.committed"}
)


@pytest.mark.expect_log(EXPECTED + "|burn")
@pytest.mark.parametrize("point", POINTS)
async def test_rebuild_killed_at(five, monkeypatch, point: str) -> None:
    site, old = five.site, five.discs[1]
    reached = trio.Event()

    def kill(name: str) -> None:
        if name == point and not reached.is_set():
            site.keep()
            reached.set()

    async with five.at_work():
        await five.lose(1)
        monkeypatch.setattr(crash, "point", kill)
        await five.renewer.ask(old)
        await site.until(reached.is_set)
    await site.restart(killed=True)
    async with five.at_work():
        await site.until(lambda: not site.catalog.sets.rebuilds(), 60)
        new = site.catalog.volumes.get(old.id)
        assert new.state is VolumeState.FULL and new.inside == old.barcode
        await five.recall()
        assert "recalled_by_parity" not in site.kinds()
    assert not site.catalog.queues.burns()
