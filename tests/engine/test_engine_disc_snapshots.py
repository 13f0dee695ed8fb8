"""Which discs carry a snapshot of the catalog: each N-th, and a large one when it may."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hsmfs import clock
from hsmfs.catalog.catalog import Catalog
from hsmfs.engine.backups import Snapshots
from hsmfs.engine.stage import Staged, spare, trim
from hsmfs.errors import HsmError
from tests.disc.conftest import Maker

DISC = 1 << 30


class Burner:
    """Burns discs of a library one by one: which of them carry a snapshot."""

    def __init__(self, root, every, disc=DISC):
        self.root = root
        self.catalog = Catalog.create(root / "state")
        config = SimpleNamespace(catalog=SimpleNamespace(snapshot_every=every))
        self.snapshots = Snapshots(self.catalog, config, disc)
        self.discs = 0

    async def burn(self, count, staged=None):
        """The numbers, from 1, of those that carry one."""
        with_one = []
        for _ in range(count):
            self.discs += 1
            extra = await self.snapshots.make(self.root, staged or Staged())
            async with self.catalog.write():
                self.catalog.volumes.add(f"D{self.discs:03}", DISC, 1)
                self.catalog.volumes.start(self.discs, f"uuid{self.discs}")
                self.catalog.volumes.close(self.discs, 1, "serial", "hash", clock.now_ns())
            if extra.snapshot is not None:
                with_one.append(self.discs)
                await self.snapshots.burned()
        return with_one


@pytest.fixture
def burner(tmp_path, monkeypatch):
    made = []

    def make(every, disc=DISC, *, small=False):
        if not small:
            monkeypatch.setattr("hsmfs.engine.backups.SMALL_SHARE", 10**12)
        made.append(Burner(tmp_path, every, disc))
        return made[-1]

    yield make
    for one in made:
        one.catalog.close()


async def test_each_nth_disc_carries_one(burner):
    assert await burner(every=10).burn(25) == [1, 11, 21]


async def test_a_small_catalog_is_on_every_disc(burner):
    assert await burner(every=10, small=True).burn(4) == [1, 2, 3, 4]


async def test_a_large_one_waits_until_it_is_a_twentieth_of_what_was_burned(burner, monkeypatch):
    one = burner(every=2)
    monkeypatch.setattr("hsmfs.catalog.snapshot.pages_bytes", lambda reports: 0)
    monkeypatch.setattr("hsmfs.catalog.snapshot.pack", lambda plain, dest: DISC // 4 - 1)
    assert await one.burn(15) == [5, 10, 15]


@pytest.mark.expect_log("too large for a disc")
async def test_one_that_takes_half_a_disc_is_on_none_and_the_log_says_so(burner, monkeypatch):
    monkeypatch.setattr("hsmfs.catalog.snapshot.pack", lambda plain, dest: DISC // 2)
    assert await burner(every=1).burn(30) == []


async def test_a_disc_that_one_file_fills_carries_none_but_the_next_does(
    burner, monkeypatch, tmp_path
):
    """Else not even that file would find room, today or ever."""
    monkeypatch.setattr("hsmfs.catalog.snapshot.pages_bytes", lambda reports: 0)
    monkeypatch.setattr("hsmfs.catalog.snapshot.pack", lambda plain, dest: disc // 30)
    disc = 32 << 20
    part = Maker(tmp_path).file(b"part", data=bytes(disc * 98 // 100))
    full, one = Staged([part]), burner(1, disc)
    assert (await one.burn(2, full), await one.burn(1)) == ([], [3])
    room = spare(full, disc)
    trim(full, disc, room)
    assert full.files == [part]
    with pytest.raises(HsmError, match="does not fit"):
        trim(full, disc, room + 2048)
