"""Recalls through the parity of a closed set of 3+2, and discs made anew from it."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio

from hsmfs.catalog.queues import RecallClass
from hsmfs.engine.recall import Recaller
from hsmfs.errors import RecallFailed
from hsmfs.library.simulated.hands import take_out
from hsmfs.states import FileState, SetState

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
                gone=lambda pid: False,
            )  # fmt: skip
            await nursery.start(made.recaller.run)
            yield
            nursery.cancel_scope.cancel()

    async with at_work():
        await made.make()
        yield made


@pytest.mark.expect_log(EXPECTED)
@pytest.mark.parametrize("lost", [(0,), (2,), (0, 2), (1, 3), (0, 4)], ids=str)
async def test_lost_discs(five, lost) -> None:
    await five.lose(*lost)
    await five.recall()
    assert "recalled_by_parity" in five.site.kinds()


@pytest.mark.expect_log(EXPECTED)
async def test_three_lost_discs_are_named(five) -> None:
    first, second, third = five.data
    await five.lose(0, 2, 3)
    await five.recall(second)
    with pytest.raises(RecallFailed) as raised:
        await five.recall(first)
    for index in (0, 2, 3):
        assert five.discs[index].barcode in raised.value.message
    with pytest.raises(RecallFailed):
        await five.recall(third)


@pytest.mark.expect_log(EXPECTED)
async def test_bad_sectors_on_all_discs(five) -> None:
    """Two at one place are made up for, also where a third disc is bad elsewhere."""
    faults = [
        {"kind": "unreadable", "barcode": five.discs[index].barcode, "sector": sector,
         "count": count}
        for index, sector, count in (
            (0, 300, 3), (0, 900, 1), (1, 120, 1), (2, 300, 2), (2, 1500, 200), (3, 400, 80),
            (4, 1510, 3),
        )
    ]  # fmt: skip
    five.site.fail(*faults)
    await five.recall()


@pytest.mark.expect_log(EXPECTED)
async def test_discs_that_read_wrong(five) -> None:
    """The disc itself without an error, and another one that is asked to make up for it."""
    faults = [
        {"kind": "corrupt", "barcode": five.discs[index].barcode, "sector": sector, "count": 2}
        for index, sector in ((0, 300), (2, 301))
    ]
    five.site.fail(*faults)
    await five.recall()
