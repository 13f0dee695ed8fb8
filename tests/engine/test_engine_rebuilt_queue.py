"""After a rebuild from discs alone: what the snapshot had queued is not burned twice."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from hsmfs.catalog.catalog import Catalog
from hsmfs.engine import plan
from hsmfs.engine.rebuild.run import Rebuild
from hsmfs.engine.rebuild.sources import Robot
from hsmfs.states import FileState, VolumeState

DATA = bytes(range(256)) * 4000


class Rebuilt:
    """An archived file whose order is queued in the snapshot of its disc, all that is left."""

    def __init__(self, lab):
        self.lab = lab

    async def make(self):
        lab = self.lab
        async with lab.running() as engine:
            self.ino = await lab.file(b"f", DATA)
            await lab.archive(self.ino)
            disc, self.sector = lab.disc(self.ino)
            assert engine.catalog.queues.migration(self.ino) is None
        self.barcode = disc.barcode
        shutil.rmtree(lab.config.daemon.state)
        await Rebuild(lab.config, Robot(lab.config.library), lambda p: None, new_pools=False).run()

    async def ended(self, engine):
        """The order ended; the discs that are not blank then."""
        queues, inodes = engine.catalog.queues, engine.catalog.inodes
        await self.lab.until(lambda: queues.migration(self.ino) is None, flush=True)
        assert inodes.get_raw(self.ino).state == FileState.PREMIGRATED
        return [v.barcode for v in engine.catalog.volumes.all() if v.state is not VolumeState.BLANK]


async def test_a_copy_that_nobody_read_back_is_tested_and_not_burned_again(make_lab):
    lab = make_lab()
    rebuilt = Rebuilt(lab)
    await rebuilt.make()
    async with lab.running() as engine:
        assert engine.catalog.queues.migration(rebuilt.ino) is not None
        assert await rebuilt.ended(engine) == [rebuilt.barcode]
        assert engine.catalog.volumes.by_barcode(rebuilt.barcode).state is VolumeState.FULL


async def test_which_copies_are_waited_for(make_lab):
    lab = make_lab()
    rebuilt = Rebuilt(lab)
    await rebuilt.make()
    catalog = Catalog.open(lab.config.daemon.state)
    disc = catalog.volumes.by_barcode(rebuilt.barcode)
    catalog.close()
    discs = plan._Discs({}, set(), set())
    assert discs.count(disc)
    assert not discs._replace(tested=None).count(disc)
    assert not discs._replace(tested={disc.id}).count(disc)
    assert not discs._replace(leaving={disc.id}).count(disc), "its files are to be had elsewhere"
    assert not discs.count(replace(disc, read_errors=1))
    assert not discs.count(replace(disc, quarantine="a scratch"))


@pytest.mark.expect_log("unreadable|suspect|failed its test")
async def test_a_copy_that_fails_its_test_is_made_again(make_lab):
    lab = make_lab(more="[scrub]\nreplace = false\n")
    rebuilt = Rebuilt(lab)
    await rebuilt.make()
    lab.fail({"kind": "unreadable", "barcode": rebuilt.barcode, "sector": rebuilt.sector})
    async with lab.running() as engine:
        assert len(await rebuilt.ended(engine)) == 2


async def test_where_nothing_is_tested_it_is_made_again(make_lab):
    lab = make_lab(more='[scrub]\ninterval = "0 s"\n')
    rebuilt = Rebuilt(lab)
    await rebuilt.make()
    async with lab.running() as engine:
        assert len(await rebuilt.ended(engine)) == 2
