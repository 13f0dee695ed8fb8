"""Discs kept alive: scrubs, blame, replacing, certificates, forecast; years in seconds."""

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace

import pytest
import trio

from hsmfs import clock, crash
from hsmfs import config as configs
from hsmfs.catalog.catalog import Catalog
from hsmfs.catalog.health import Entry, Kind
from hsmfs.engine import overview
from hsmfs.engine.events import Events
from hsmfs.engine.forecast import YEAR_NS, forecast
from hsmfs.engine.fsck import library
from hsmfs.engine.health_views import of_drive, of_volume, scrubs
from hsmfs.engine.schedule import Purpose
from hsmfs.engine.scrub import Scrubber
from hsmfs.engine.scrub_due import due_times
from hsmfs.engine.service import Engine
from hsmfs.engine.setup import open_pools
from hsmfs.engine.trust.holds import Scope
from hsmfs.errors import Conflict, DriveError
from hsmfs.library import configured
from hsmfs.states import DriveState, FileState, VolumeState
from hsmfs.types import ROOT


class Killed(BaseException):
    """What a kill is in a test."""


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr("hsmfs.engine.refresh.LOOK", 0.1)


DATA = bytes(range(256)) * 20_000


async def scrubbed(lab, *discs, share=None):
    await lab.engine.scrubber.ask(discs, "test", share)
    await lab.until(lambda: not lab.engine.catalog.health.scrubs())


async def test_scrub_reads_the_whole_disc_and_says_so(lab):
    disc, _ = lab.disc(await archived(lab))
    await scrubbed(lab, disc)
    view = of_volume(lab.engine, disc)
    assert view["entries"][0]["kind"] == "test passed"
    assert view["entries"][0]["note"] == f"{disc.used} of {disc.used} bytes read"
    assert view["loads"] >= 1 and view["read_bytes"] >= 2 * disc.used and view["read_speed"] > 0
    assert view["standard"]["class"] is None and "LDC" in view["standard"]["why"]
    assert lab.engine.catalog.volumes.get(disc.id).verified_ns > disc.verified_ns


async def archived(lab, name=b"f", data=DATA, release=False) -> int:
    ino = await lab.file(name, data)
    await lab.archive(ino, release=release)
    return ino


async def test_sample_reads_a_part_and_verifies_nothing(lab):
    disc, _ = lab.disc(await archived(lab))
    await scrubbed(lab, disc, share=1)
    view = of_volume(lab.engine, disc)
    assert view["entries"][0]["kind"] == "test passed"
    assert lab.engine.catalog.volumes.get(disc.id).verified_ns == disc.verified_ns


@pytest.mark.expect_log("unreadable")
@pytest.mark.expect_log("disc is suspect")
@pytest.mark.expect_log("disc failed its test")
async def test_bad_disc_is_asked_in_two_drives_then_replaced(lab):
    ino = await archived(lab, release=True)
    disc, _ = lab.disc(ino)
    lab.fail({"kind": "unreadable", "barcode": disc.barcode, "sector": 4, "count": 1})
    await scrubbed(lab, disc)
    view = of_volume(lab.engine, disc)
    drives = {e["drive"] for e in view["entries"] if e["kind"] == "unreadable sector"}
    assert len(drives) == 2
    assert all(d.state == 0 for d in lab.engine.catalog.volumes.drives())
    assert view["replacing"]["kind"] == "refresh"
    order = lab.engine.catalog.refreshes
    await lab.until(lambda: not order.open(), flush=True)
    new, _ = lab.disc(ino)
    assert new.barcode != disc.barcode and new.state is VolumeState.FULL
    assert lab.engine.catalog.volumes.get(disc.id).state is VolumeState.RETIRED
    assert lab.engine.files.attr(ino).state == FileState.MIGRATED
    assert await lab.read(ino) == DATA


@pytest.mark.expect_log("unreadable|is suspect|failed its test|put off")
async def test_what_is_held_on_a_bad_disc_is_copied_and_the_disc_stays(lab):
    ino = await archived(lab)
    disc, _ = lab.disc(ino)
    await lab.engine.trust.holds.place("case", "why", Scope((ino,)), "test")
    lab.fail({"kind": "unreadable", "barcode": disc.barcode, "sector": 4, "count": 1})
    await scrubbed(lab, disc)
    order = lab.engine.catalog.refreshes
    await lab.until(lambda: "legal hold" in order.get(disc.id).error, flush=True)
    attr = lab.engine.files.attr(ino)
    assert lab.engine.catalog.copies.proven(ino, attr.version) == 1
    assert lab.engine.catalog.volumes.get(disc.id).state is VolumeState.SUSPECT
    await lab.engine.trust.holds.release("case", "over", "test")
    await lab.until(lambda: not order.open(), flush=True)
    assert lab.engine.catalog.volumes.get(disc.id).state is VolumeState.RETIRED


@pytest.mark.expect_log("unreadable")
@pytest.mark.expect_log("drive down")
async def test_bad_drive_is_blamed_not_the_disc(lab):
    disc, sector = lab.disc(await archived(lab))
    used = lab.engine.mounts.drive_with(disc.id)
    lab.fail(
        {"kind": "corrupt", "barcode": disc.barcode, "drive": used, "sector": sector, "count": 1}
    )
    await scrubbed(lab, disc)
    assert lab.engine.catalog.volumes.get(disc.id).state is VolumeState.FULL
    drives = lab.engine.catalog.volumes.drives
    await lab.until(lambda: any(d.state is DriveState.DOWN for d in drives()))
    (bad,) = [d for d in drives() if d.read_errors]
    assert bad.name == used and bad.state is DriveState.DOWN
    view = of_drive(lab.engine, bad.serial)
    assert view["blamed"]["reading"] == 1
    assert view["entries"][0]["kind"] == "wrong bytes" and view["entries"][0]["sector"] == sector
    assert view["discs_with_errors"][0]["disc"] == disc.barcode


BIG = DATA[: 1 << 20] * 14


async def test_recall_takes_the_drive_and_the_scrub_goes_on(make_lab, monkeypatch):
    monkeypatch.setattr("hsmfs.engine.scrub.SAVE", 1 << 20)
    lab = make_lab(drives=1)
    async with lab.running(), trio.open_nursery() as nursery:
        big, other = await archived(lab, b"big", BIG), await archived(lab, b"g", release=True)
        disc, _ = lab.disc(big)
        positions = []

        async def reader():
            assert await lab.read(other) == DATA
            positions.append(lab.engine.catalog.health.scrub(disc.id).position)

        def point(where):
            if where == "scrub.saved" and not begun:
                begun.append(where)
                nursery.start_soon(reader)

        begun = []
        monkeypatch.setattr(crash, "point", point)
        await scrubbed(lab, disc)
        assert 0 < positions[0] < disc.used
        note = of_volume(lab.engine, disc)["entries"][0]["note"]
        assert note == f"{disc.used} of {disc.used} bytes read"


async def test_scrub_goes_on_where_it_was_killed(make_lab, monkeypatch):
    monkeypatch.setattr("hsmfs.engine.scrub.SAVE", 1 << 20)
    lab = make_lab()

    def point(where):
        if where == "scrub.saved":
            raise Killed

    async with lab.running():
        disc, _ = lab.disc(await archived(lab, b"big", BIG))

    async def killed():
        async with lab.running():
            monkeypatch.setattr(crash, "point", point)
            await scrubbed(lab, disc)

    with pytest.raises(BaseException) as fault:
        await killed()
    assert fault.group_contains(Killed)
    monkeypatch.setattr(crash, "point", lambda where: None)
    lab.config = configs.loads(lab.text + "[scrub]\nshare = 50\n")
    async with lab.running():
        await lab.engine.scrubber.pause()
        row = lab.engine.catalog.health.scrub(disc.id)
        assert row is None or row.position > 0
        assert scrubs(lab.engine)["paused"]
        await lab.engine.scrubber.resume()
        await lab.until(lambda: not lab.engine.catalog.health.scrubs())
        note = of_volume(lab.engine, disc)["entries"][0]["note"]
        assert note == f"{disc.used} of {disc.used} bytes read"


async def test_kill_anywhere_in_a_replacement(make_lab, monkeypatch):
    lab = make_lab(copies=2)
    async with lab.running():
        ino = await archived(lab, release=True)
        disc, _ = lab.disc(ino)

    async def replacing():
        async with lab.running():
            if lab.engine.catalog.refreshes.get(disc.id) is None:
                await lab.engine.refresher.ask([disc], "repack", "test")
            await lab.until(lambda: False, 20, flush=True)

    points = [
        "repack.asked", "repack.listed", "repack.queued", "repack.retired", "repack.certified",
        "repack.done",
    ]  # fmt: skip
    for name in points:
        hit = trio.Event()

        def point(where, name=name, hit=hit):
            if where == name and not hit.is_set():
                hit.set()
                raise Killed

        monkeypatch.setattr(crash, "point", point)
        with pytest.raises(BaseException) as fault:
            await replacing()
        assert fault.group_contains(Killed) or isinstance(fault.value, Killed), name
        assert hit.is_set()
    monkeypatch.setattr(crash, "point", lambda where: None)
    async with lab.running():
        await lab.until(lambda: not lab.engine.catalog.refreshes.open(), flush=True)
        proven = lab.engine.catalog.copies.proven(ino, lab.engine.files.attr(ino).version)
        assert proven == 2
        assert await lab.read(ino) == DATA
        row = lab.engine.catalog.refreshes.get(disc.id)
        folder = lab.engine.refresher.certificates
        body = (folder / f"{row.certificate}.json").read_bytes()
        text = (folder / f"{row.certificate}.txt").read_text()
        facts = json.loads(body)
        assert hashlib.sha256(body).hexdigest() in text
        assert [f["path"] for f in facts["files"]] == ["/f"]
        assert facts["files"][0]["sha256"] == hashlib.sha256(DATA).hexdigest()


async def test_repack_waits_for_the_trash_and_counts_the_dead(lab, monkeypatch):
    monkeypatch.setattr("hsmfs.engine.refresh.LOOK", 3600.0)
    one, two = await lab.file(b"one", DATA), await lab.file(b"two", DATA[::-1])
    await lab.archive(one, two, release=True)
    disc, _ = lab.disc(one)
    alive = lab.engine.catalog.refreshes.alive
    assert alive(disc.id)[0] == alive(disc.id)[1] == 2 * len(DATA)
    await trash(lab, b"two")
    await lab.engine.refresher.ask([disc], "repack", "test")
    order = lab.engine.catalog.refreshes
    await lab.until(
        lambda: "trash" in (order.get(disc.id).error if order.get(disc.id) else ""), flush=True
    )
    assert lab.engine.catalog.volumes.get(disc.id).state is VolumeState.FULL
    await lab.engine.trash.purge(two)
    await lab.until(lambda: not order.open(), flush=True)
    assert lab.engine.catalog.volumes.get(disc.id).state is VolumeState.RETIRED
    with pytest.raises(Conflict, match="is retired"):
        await lab.engine.refresher.ask(
            [lab.engine.catalog.volumes.get(disc.id)], "refresh", "test"
        )
    assert await lab.read(one) == DATA
    paper = lab.engine.refresher.certificates / f"{order.get(disc.id).certificate}.json"
    files = {f["path"]: f["lives_on"] for f in json.loads(paper.read_text())["files"]}
    assert files == {"/one": True, "/two": False}
    # It lies in its slot until somebody takes it out, and nothing is wrong with that.
    elements = await lab.engine.robot.inventory()
    assert library.volumes(lab.engine.catalog, elements) == []


async def test_an_order_goes_on_as_soon_as_its_files_are_burned(lab, monkeypatch):
    monkeypatch.setattr("hsmfs.engine.refresh.LOOK", 3600.0)
    ino = await lab.file(b"one", DATA)
    await lab.archive(ino, release=True)
    disc, _ = lab.disc(ino)
    await lab.engine.refresher.ask([disc], "repack", "test")
    await lab.until(lambda: not lab.engine.catalog.refreshes.open(), flush=True)
    assert lab.disc(ino)[0].id != disc.id


async def trash(lab, name):
    catalog = lab.engine.catalog
    async with catalog.write():
        attr = catalog.names.lookup(ROOT, name)
        catalog.names.unlink(ROOT, name, clock.now_ns())
        catalog.trash.put(attr.ino, ROOT, name, clock.now_ns(), 10**18)


async def test_blank_discs_are_not_tested_or_replaced(lab):
    blank = overview.volume_named(lab.engine, lab.engine.catalog.volumes.all()[0].barcode)
    for order in (lab.engine.scrubber.ask([blank], "x"),
                  lab.engine.refresher.ask([blank], "refresh", "x")):  # fmt: skip
        with pytest.raises(Conflict):
            await order


async def test_forecast_says_what_it_assumed(lab):
    await archived(lab)
    config = lab.config
    now = clock.now_ns()
    look = lab.engine.catalog.read
    new = await look(lambda reports: forecast(reports, config, now, None))
    assert new["blanks"] == 7 and new["losses"]["failed"] == 0
    year = await look(lambda reports: forecast(reports, config, now + YEAR_NS - 10**12, None))
    assert year["growth"] == 1.0 and year["losses"]["at_most"] == 1
    given = await look(lambda r: forecast(r, config, now, 160 << 20))
    assert given["growth"] == 10.0
    assert any("no disc failed" in text for text in year["assumed"])


@pytest.fixture
async def discs(tmp_path):
    """Of a catalog without a library: made by how many, state, size and age in years."""
    catalog = Catalog.create(tmp_path / "c")

    async def made(count, state, *, used=10**9, age=5.0, entry=None):
        async with catalog.write():
            for _ in range(count):
                number = catalog.volumes.add(f"D{len(catalog.volumes.all()):04d}", 10**10, 1)
                catalog.volumes.start(number, str(number))
                burned = int((10 - age) * YEAR_NS)
                catalog.volumes.close(number, used, "serial", "hash", burned)
                if state is not VolumeState.FULL:
                    catalog.volumes.set_state(number, state)
                if state is VolumeState.RETIRED:
                    catalog.refreshes.add([number], "refresh", "me", 1)
                    catalog.refreshes.retire(number, int(9.9 * YEAR_NS))
                if entry is not None:
                    catalog.health.note(Entry(1, number, "drive", entry.value, 7, "medium", ""))

    made.catalog = catalog
    yield made
    catalog.close()


async def told(discs, config):
    return await discs.catalog.read(lambda r: forecast(r, config, 10 * YEAR_NS, None))


async def test_discs_moved_to_larger_ones_did_not_fail_and_are_no_growth(discs, lab):
    await discs(100, VolumeState.RETIRED)
    await discs(20, VolumeState.FULL, used=5 * 10**9, age=0.1)
    await discs(10, VolumeState.FULL, used=5 * 10**9, age=0.5)
    found = await told(discs, lab.config)
    assert (found["losses"]["failed"], found["growth"]) == (0, 10)


async def test_a_disc_that_was_found_bad_and_replaced_is_one_that_failed(discs, lab):
    await discs(8, VolumeState.FULL)
    await discs(1, VolumeState.RETIRED, entry=Kind.UNREADABLE)
    await discs(1, VolumeState.LOST)
    found = (await told(discs, lab.config))["losses"]
    assert (found["failed"], found["disc_years"], found["rate_a_disc_year"]) == (2, 50, 0.04)
    assert found["discs"] == 0.32  # of the eight that are left


async def test_what_a_rebuilt_catalog_did_not_test_yet_did_not_fail(discs, lab):
    await discs(5, VolumeState.SUSPECT)
    await discs(1, VolumeState.SUSPECT, entry=Kind.WRONG)
    async with discs.catalog.write():
        discs.catalog.db.execute("UPDATE volumes SET verified_ns = NULL WHERE id <= 5")
    assert (await told(discs, lab.config))["losses"]["failed"] == 1


@pytest.mark.parametrize("good", [True, False])
async def test_a_disc_that_was_tested_by_a_clock_that_was_ahead_is_due_once(lab, good):
    disc, _ = lab.disc(await archived(lab))
    catalog, now = lab.engine.catalog, clock.now_ns()
    async with catalog.write():
        catalog.volumes.verified(disc.id, now + YEAR_NS)
        catalog.db.execute("UPDATE health SET at_ns = at_ns + ?", (YEAR_NS,))
    assert due_times(catalog, 1e6)[disc.id] == 0
    await scrubbed(lab, disc)
    async with catalog.write():
        if not good:  # a test that fails leaves the date of the last good one
            catalog.volumes.verified(disc.id, now + YEAR_NS)
    assert due_times(catalog, 1e6)[disc.id] > now


async def test_time_goes_on_when_the_next_test_is_due_in_less_than_a_float_can_tell(
    tmp_path, autojump_clock, monkeypatch
):
    catalog, looks = Catalog.create(tmp_path / "c"), []
    scrubber = Scrubber(catalog, None, Events(), SimpleNamespace(scrub=configs.ScrubConfig()))
    autojump_clock.jump(3e8)

    async def due():
        looks.append(trio.current_time())
        if len(looks) == 9:
            nursery.cancel_scope.cancel()
        return 1e-12

    monkeypatch.setattr(scrubber, "_queue_due", due)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scrubber.run)
    assert looks == sorted(set(looks))
    catalog.close()


async def test_ten_years_of_tests_in_seconds(make_lab, patient_clock, monkeypatch):
    monkeypatch.setattr("hsmfs.engine.scrub.LOOK", 500 * 86_400)
    lab = make_lab()
    async with lab.running():
        disc, _ = lab.disc(await archived(lab))
    catalog = Catalog.open(lab.config.daemon.state)
    library = configured.open_library(lab.config.library)
    lab.engine = engine = Engine(
        lab.config, catalog, await open_pools(lab.config.pool, catalog), library
    )
    clock.WALL.set(clock.now_ns())
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.mounts.run)
            await nursery.start(engine.scrubber.run)
            await trio.sleep(10.5 * 365 * 86_400)
            nursery.cancel_scope.cancel()
        view = of_volume(engine, disc)
        tests = [e for e in view["entries"] if e["kind"] == "test passed"]
        assert len(tests) == 10
        assert not view["overdue"] and view["due_ns"] > clock.now_ns()
    finally:
        clock.WALL._offset_ns = None
        await library.close()
        catalog.close()


@pytest.mark.expect_log("drive or disc failed|failed|another disc|given up|is down")
async def test_pairs_that_failed_are_known_after_a_restart(make_lab):
    lab = make_lab()
    async with lab.running() as engine:
        disc, _ = lab.disc(await archived(lab, release=True))
        drive = engine.mounts.drive_with(disc.id)
        serial = next(d.serial for d in engine.library.drives if d.name == drive)
        lab.fail({"kind": "read_fails", "drive": drive, "barcode": disc.barcode})
        ledger = engine.mounts.ledger
        with pytest.raises(DriveError):
            async with engine.mounts.use(disc.id, Purpose.READ) as session:
                await session.read(0, 1)
        assert not ledger.may_pair(serial, disc.barcode)
    async with lab.running() as engine:
        ledger = engine.mounts.ledger
        assert not ledger.may_pair(serial, disc.barcode)
        other = next(d.serial for d in engine.library.drives if d.serial != serial)
        assert ledger.may_pair(other, disc.barcode)
        await engine.mounts.drive_up(serial)
        assert ledger.may_pair(serial, disc.barcode)
    async with lab.running() as engine:
        assert engine.mounts.ledger.may_pair(serial, disc.barcode)


@pytest.mark.expect_log("drive or disc failed|burn given up|another disc")
async def test_a_burner_that_begins_nothing_spoils_no_disc(lab):
    lab.fail({"kind": "burn_refused"})
    ino = await archived(lab)
    assert lab.engine.files.attr(ino).state == FileState.PREMIGRATED
    states = [v.state for v in lab.engine.catalog.volumes.all()]
    assert states.count(VolumeState.BLANK) == 7 and VolumeState.DAMAGED not in states
    assert all(v.uuid is None for v in lab.engine.catalog.volumes.all(VolumeState.BLANK))


@pytest.mark.parametrize(("drives", "most"), [(1, 1), (2, 2)])
async def test_a_scrub_takes_no_more_drives_than_it_may(make_lab, monkeypatch, drives, most):
    lab = make_lab(drives=3, more=f"[scrub]\ndrives = {drives}\n")
    async with lab.running() as engine:
        inos = [await archived(lab, b"f%d" % number) for number in range(3)]
        seen = []
        monkeypatch.setattr(crash, "point", lambda name: seen.append(len(engine.scrubber.progress)))
        await scrubbed(lab, *[lab.disc(ino)[0] for ino in inos])
        assert max(seen) == most
