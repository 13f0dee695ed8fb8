"""Quarantine by hand, and discs that are too small: nothing is written to them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hsmfs.engine.transfer import Conflict
from hsmfs.library.simulated.drive import SimulatedDrive
from hsmfs.states import FileState, VolumeState

DATA = b"kept" * 500_000


def volume(lab, barcode):
    return lab.engine.catalog.volumes.by_barcode(barcode)


async def test_nothing_is_written_to_a_blank_under_quarantine(lab):
    first, second, *_ = lab.engine.migrator.blanks.left()
    get = lab.engine.catalog.volumes.get
    await lab.engine.mounts.ledger.quarantine(get(first), "scratched")
    ino = await lab.file(b"f", DATA)
    await lab.archive(ino)
    assert lab.disc(ino)[0].id == second
    await lab.engine.mounts.ledger.quarantine(get(first), "")
    other = await lab.file(b"g", DATA)
    await lab.archive(other)
    assert lab.disc(other)[0].id == first


@pytest.mark.expect_log("burn given up|another disc")
async def test_not_even_if_it_was_chosen_before(lab):
    blanks = lab.engine.migrator.blanks
    two = dict(list(blanks.left().items())[:2])
    first, second = two
    await lab.engine.mounts.ledger.quarantine(lab.engine.catalog.volumes.get(first), "scratched")
    blanks.left = lambda without=None: {v: b for v, b in two.items() if v != without}
    ino = await lab.file(b"f", DATA)
    await lab.archive(ino)
    assert lab.disc(ino)[0].id == second
    assert lab.engine.catalog.volumes.get(first).state is VolumeState.BLANK


async def test_no_file_is_released_on_its_word_until_it_is_lifted(lab):
    ino = await lab.file(b"f", DATA)
    await lab.archive(ino)
    disc, _ = lab.disc(ino)
    ledger, catalog = lab.engine.mounts.ledger, lab.engine.catalog
    await ledger.quarantine(disc, "fell down")
    assert catalog.copies.proven(ino, 1) == 0 and not volume(lab, disc.barcode).proven
    with pytest.raises(Conflict, match="0 verified copies"):
        await lab.engine.releaser.release(ino, "test")
    await lab.engine.scrubber.ask([disc], "test")
    await lab.until(lambda: not catalog.health.scrubs())
    assert volume(lab, disc.barcode).quarantine == "fell down"  # a good test lifts nothing
    await ledger.quarantine(disc, "")
    await lab.engine.releaser.release(ino, "test")
    assert lab.engine.files.attr(ino).state == FileState.MIGRATED


async def test_it_outlives_a_restart(make_lab):
    lab = make_lab()
    async with lab.running() as engine:
        await engine.mounts.ledger.quarantine(volume(lab, "S0001D01"), "scratched")
    async with lab.running():
        assert volume(lab, "S0001D01").quarantine == "scratched"
        assert len(lab.engine.migrator.blanks.left()) == 7


@pytest.mark.expect_log("suspect")
async def test_a_suspect_disc_proves_nothing_by_being_exported(lab):
    ino = await lab.file(b"f", DATA)
    await lab.archive(ino)
    disc, _ = lab.disc(ino)
    await lab.engine.mounts.ledger.flag(disc.id, "does not read")
    await lab.engine.vault.export([disc.barcode], "vault A")
    assert volume(lab, disc.barcode).state is VolumeState.EXPORTED
    assert lab.engine.catalog.copies.proven(ino, 1) == 0
    assert not volume(lab, disc.barcode).proven


@pytest.mark.expect_log("burn given up|another disc")
async def test_a_blank_of_an_older_generation_is_spared_not_spoiled(make_lab, monkeypatch):
    """Discs were made larger in the configuration, and a small one lies among the blanks."""
    lab = make_lab()
    load = SimulatedDrive.load

    async def small(self):
        medium = await load(self)
        if volume_in(self) == "S0001D01":
            medium = replace(medium, capacity_bytes=1 << 20)
        return medium

    def volume_in(drive):
        return lab.engine.robot.elements[drive.address].barcode

    monkeypatch.setattr(SimulatedDrive, "load", small)
    async with lab.running() as engine:
        ino = await lab.file(b"f", DATA)
        await lab.archive(ino)
        assert lab.disc(ino)[0].barcode == "S0001D02"
        spared = volume(lab, "S0001D01")
        assert spared.state is VolumeState.BLANK
        assert spared.quarantine.startswith("takes 1048576 bytes, too few for an image of")
        assert spared.id not in engine.migrator.blanks.left()


async def test_blanks_are_as_large_as_the_configuration_says_now(make_lab):
    lab = make_lab()
    async with lab.running() as engine:
        blank = volume(lab, "S0001D01")
        async with engine.catalog.write():
            engine.catalog.volumes.size_blanks(4 << 20)
        assert volume(lab, "S0001D01").capacity == 4 << 20
    async with lab.running():
        assert volume(lab, "S0001D01").capacity == blank.capacity
