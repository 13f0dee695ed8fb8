"""Bytes of discs of which no file has a checksum: parity, manifest, directories."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hsmfs import clock, crash
from hsmfs.config import ScrubConfig
from hsmfs.disc import described
from hsmfs.disc.manifest import MANIFEST, PARITY, VOLUME
from hsmfs.engine.events import Events
from hsmfs.engine.health_views import of_volume
from hsmfs.engine.scrub import Scrubber
from hsmfs.states import DriveState, SetState, VolumeState

SETS = '[sets]\nparity = "raid5"\ndiscs = 3\n'
DATA = [bytes(range(256)) * 20_000, bytes(reversed(range(256))) * 20_000]
BAD = "unreadable|is suspect|failed its test"
PARITY_DISC = 2


@pytest.fixture
def lab(make_lab):
    return make_lab(slots=8, disc="8 MiB", more=SETS)


async def filled(lab) -> None:
    """One closed set of two data discs and a parity disc."""
    sets = lab.engine.catalog.sets
    for number, content in enumerate(DATA):
        await lab.archive(await lab.file(b"f%d" % number, content))
    (group,) = sets.all()
    await lab.engine.migrator.sets.close(group)
    await lab.until(lambda: sets.get(group.id).state is SetState.CLOSED)


def member(lab, index: int):
    (group,) = lab.engine.catalog.sets.all()
    return lab.engine.catalog.sets.discs(group.id)[index]


def sector_of(lab, disc, name: str) -> int:
    (image,) = lab.config.library.path.rglob(f"{disc.barcode}/*.iso")
    with described.image(image) as reader:
        return reader.iso.find(name.encode()).sector


async def scrubbed(lab, disc) -> None:
    await lab.engine.scrubber.ask([disc], "test", 100)
    await lab.until(lambda: not lab.engine.catalog.health.scrubs())


def entries(lab, disc) -> list:
    return of_volume(lab.engine, lab.engine.catalog.volumes.get(disc.id))["entries"]


@pytest.mark.expect_log(BAD)
@pytest.mark.parametrize(
    ("index", "name"), [(PARITY_DISC, PARITY), (PARITY_DISC, VOLUME), (0, MANIFEST)]
)
async def test_a_bit_that_flipped_is_found_and_the_disc_made_anew(lab, index, name):
    async with lab.running() as engine:
        await filled(lab)
        bad = member(lab, index)
        # The last one of the parity: all of it is compared.
        last = bad.used // 2048 - sector_of(lab, bad, name) - 200 if name == PARITY else 0
        at = sector_of(lab, bad, name) + max(0, last)
        lab.fail({"kind": "corrupt", "barcode": bad.barcode, "sector": at, "count": 1})
        await engine.scrubber.ask([bad], "test", 100)
        await lab.until(lambda: member(lab, index).barcode != bad.barcode, 60)
        old = engine.catalog.volumes.by_barcode(bad.barcode)
        assert old.state is VolumeState.RETIRED and member(lab, index).state is VolumeState.FULL
        assert all(d.state is DriveState.UP for d in engine.catalog.volumes.drives())
        await scrubbed(lab, member(lab, index))
        assert entries(lab, member(lab, index))[0]["kind"] == "test passed"


async def test_the_schedule_reads_parity_whole_as_a_sample_of_it_compares_nothing(
    lab, monkeypatch
):
    async with lab.running() as engine:
        await filled(lab)
        data, parity = member(lab, 0), member(lab, PARITY_DISC)
        await engine.scrubber.ask([parity], "test", 5)
        await lab.until(lambda: not engine.catalog.health.scrubs())
        note = entries(lab, parity)[0]["note"]
        assert "compared with nothing" in note
        assert member(lab, PARITY_DISC).verified_ns == parity.verified_ns
        await scrubbed(lab, parity)
        assert "compared" not in entries(lab, parity)[0]["note"]
        await engine.scrubber.pause()
        sample = SimpleNamespace(scrub=ScrubConfig(interval="1 s", share=5))
        later = clock.now_ns() + 10**12
        monkeypatch.setattr(clock, "now_ns", lambda: later)
        await Scrubber(engine.catalog, engine.mounts, Events(), sample)._queue_due()
        shares = {row.volume: row.share for row in engine.catalog.health.scrubs()}
        assert (shares[data.id], shares[parity.id]) == (5, 100)


@pytest.mark.expect_log("unreadable|drive down")
async def test_a_drive_that_reads_parity_wrong_is_blamed_not_the_disc(lab):
    async with lab.running() as engine:
        await filled(lab)
        disc = member(lab, PARITY_DISC)
        await scrubbed(lab, disc)
        used = engine.mounts.drive_with(disc.id)
        at = sector_of(lab, disc, PARITY)
        lab.fail(
            {"kind": "corrupt", "barcode": disc.barcode, "drive": used, "sector": at, "count": 1}
        )
        await scrubbed(lab, disc)
        assert member(lab, PARITY_DISC).state is VolumeState.FULL
        assert "read wrong in another drive" in entries(lab, disc)[0]["note"]
        drives = engine.catalog.volumes.drives
        await lab.until(lambda: [d.name for d in drives() if d.state is DriveState.DOWN] == [used])


@pytest.mark.expect_log(BAD)
async def test_what_a_restart_took_of_a_parity_discs_sum_is_read_again(lab, monkeypatch):
    monkeypatch.setattr("hsmfs.engine.scrub.SAVE", 1 << 20)
    async with lab.running():
        await filled(lab)
        disc = member(lab, PARITY_DISC)
        at = sector_of(lab, disc, PARITY)
        lab.fail({"kind": "corrupt", "barcode": disc.barcode, "sector": at, "count": 1})

    class Killed(BaseException):
        pass

    def point(where):
        if where == "scrub.saved":
            raise Killed

    async def killed():
        async with lab.running() as engine:
            monkeypatch.setattr(crash, "point", point)
            await engine.scrubber.ask([disc], "test", 100)
            await lab.until(lambda: False)

    with pytest.raises(BaseException) as fault:
        await killed()
    assert fault.group_contains(Killed) or isinstance(fault.value, Killed)
    monkeypatch.setattr(crash, "point", lambda where: None)
    async with lab.running():
        await lab.until(lambda: member(lab, PARITY_DISC).barcode != disc.barcode, 60)


@pytest.mark.expect_log(BAD)
@pytest.mark.parametrize("name", [PARITY, VOLUME])
async def test_a_catalog_from_discs_takes_the_parity_discs_own_word(lab, name):
    async with lab.running() as engine:
        await filled(lab)
        disc = member(lab, PARITY_DISC)
        async with engine.catalog.write():
            engine.catalog.db.execute(
                "UPDATE volumes SET image_sha256 = NULL WHERE id = ?", (disc.id,)
            )
        await scrubbed(lab, disc)
        assert entries(lab, disc)[0]["kind"] == "test passed"
        at = sector_of(lab, disc, name)
        lab.fail({"kind": "corrupt", "barcode": disc.barcode, "sector": at, "count": 1})
        await engine.scrubber.ask([disc], "test", 100)
        await lab.until(lambda: member(lab, PARITY_DISC).barcode != disc.barcode, 60)


@pytest.mark.expect_log(BAD + "|drive or disc failed|scrub put off|drive down")
@pytest.mark.parametrize("kind", ["load_fails", "read_fails"])
async def test_a_disc_that_no_drive_takes_is_made_anew(lab, monkeypatch, kind):
    monkeypatch.setattr("hsmfs.engine.scrub.AGAIN", 0.05)
    async with lab.running() as engine:
        await filled(lab)
        bad = member(lab, 0)
        await engine.mounts.take_out(bad.barcode)
        lab.fail({"kind": kind, "barcode": bad.barcode, "times": None})
        await engine.scrubber.ask([bad], "test", 100)
        await lab.until(lambda: member(lab, 0).barcode != bad.barcode, 60)


@pytest.mark.expect_log(BAD + "|copy")
async def test_a_disc_that_becomes_suspect_in_use_is_tested_at_once_and_made_anew(lab):
    """Nobody asks for it, and the next test by the calendar is a year off."""
    async with lab.running() as engine:
        await filled(lab)
        ino = engine.catalog.names.resolve(b"/f0").ino
        bad, sector = lab.disc(ino)
        await engine.releaser.release(ino, "test")
        lab.fail({"kind": "unreadable", "barcode": bad.barcode, "sector": sector, "count": 1})
        assert await lab.read(ino) == DATA[0]
        await lab.until(lambda: member(lab, 0).barcode != bad.barcode, 60)
        assert member(lab, 0).state is VolumeState.FULL


@pytest.mark.expect_log(BAD + "|not replaced|copy")
async def test_a_bad_disc_that_cannot_be_replaced_yet_is_when_it_can(lab, monkeypatch):
    """Its set is not closed: nobody may forget the disc."""
    monkeypatch.setattr("hsmfs.engine.scrub.NOT_REPLACED", 0.1)
    async with lab.running() as engine:
        ino = await lab.file(b"f", DATA[0])
        await lab.archive(ino)
        bad, sector = lab.disc(ino)
        lab.fail({"kind": "unreadable", "barcode": bad.barcode, "sector": sector, "count": 1})
        await engine.scrubber.ask([bad], "test", 100)
        queue = engine.catalog.health.scrubs
        await lab.until(lambda: any("not closed" in row.error for row in queue()))
        (group,) = engine.catalog.sets.all()
        await engine.migrator.sets.close(group)
        await lab.until(lambda: member(lab, 0).barcode != bad.barcode, 60)
        await lab.until(lambda: not queue())
