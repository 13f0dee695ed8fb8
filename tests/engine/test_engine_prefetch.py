"""Files brought in before they are read: which, how many, and who goes when room is needed."""

import os
import time
from pathlib import Path

import pytest
import trio
from pydicom.data import get_testdata_file

from hsmfs.engine.group import study
from hsmfs.engine.policy.match import Ruleset
from hsmfs.engine.release_choice import Wanted, choose
from hsmfs.engine.worklist import Watched, Wishes, load, parse
from hsmfs.errors import ConfigError
from hsmfs.states import FileState

CT = Path(get_testdata_file("CT_small.dcm"))
KNOWN = study(CT)
DATA = CT.read_bytes() + bytes(200_000)
SHARE = '[prefetch]\nshare = {}\nsiblings = "{}"\n'


@pytest.fixture
def study_lab(make_lab):
    """A lab with three files of one study, on one disc, archived and not on disk."""

    async def fill(lab):
        inos = [await lab.file(b"%d.dcm" % n, DATA) for n in range(3)]
        await lab.engine.migrator.archive(inos, release=True, grouping="dicom-study")
        await lab.settle()
        return inos

    def make(share=10, siblings="off"):
        return make_lab(more=SHARE.format(share, siblings)), fill

    return make


def away(engine, ino):
    return engine.files.attr(ino).state == FileState.MIGRATED


def asked(engine, ino) -> bool:
    return engine.recaller.why(ino)["state"] != "no recall"


async def came(lab, *inos):
    await lab.until(lambda: not any(away(lab.engine, ino) for ino in inos))
    await lab.until(lambda: not lab.engine.catalog.queues.recalls())


async def test_a_patient_is_known_from_the_headers_and_brought_in(study_lab):
    lab, fill = study_lab()
    async with lab.running() as engine:
        inos = await fill(lab)
        assert engine.catalog.studies.of(inos[0]) == KNOWN
        wishes = Wishes(patients=[KNOWN.patient, "nobody"], studies=[KNOWN.uid])
        done = await engine.prefetcher.fetch(wishes, "test")
        assert (done.files, done.refused, done.unknown) == (3, 0, ("patient nobody",))
        await came(lab, *inos)
        told = await engine.prefetcher.status()
        assert (told["files"], told["unread"], told["studies_known"]) == (3, 3, 1)
        again = await engine.prefetcher.fetch(wishes, "test")
        assert (again.files, again.on_disk) == (0, 3)
        await lab.read(inos[0])
        async with engine.catalog.write():  # as a read a day later does
            engine.catalog.inodes.put(
                engine.files.attr(inos[0])._replace(atime_ns=time.time_ns() + 10**9)
            )
        assert (await engine.prefetcher.status())["files"] == 2, "what was read is as any other"
        async with engine.catalog.write():
            new = engine.catalog.names.create(1, b"undone", 0o100644, 0, 0, 1).ino
            engine.catalog.history.inherit(inos[0], new)
        assert engine.catalog.studies.of(new) == KNOWN


async def test_the_share_is_kept_and_what_was_not_read_makes_room(study_lab):
    lab, fill = study_lab(share=1)
    async with lab.running() as engine:
        inos = await fill(lab)
        pool = next(iter(engine.pools))
        need = max(0, len(DATA) - engine.files.attr(inos[0]).blocks * 512)
        pool.capacity, pool.used = int(2.5 * need * 100), 0
        done = await engine.prefetcher.fetch(Wishes(studies=[KNOWN.uid]), "test")
        assert (done.files, done.refused) == (2, 1) and "share" in done.why
        await came(lab, *inos[:2])
        done = await engine.prefetcher.fetch(Wishes(paths=["/2.dcm"]), "test")
        assert done.files == 1 and away(engine, inos[0]) and not away(engine, inos[1])
        await came(lab, inos[2])
        pool.used = pool.capacity
        done = await engine.prefetcher.fetch(Wishes(paths=["/0.dcm"]), "test")
        assert done.refused == 1 and "watermark" in done.why and not away(engine, inos[1])
        wanted = Wanted(pool.id, 1, 10**18, time.time_ns(), {})
        rules = Ruleset((), copies=1, head=0)
        first = await engine.catalog.read(lambda reports: choose(reports, rules, wanted))
        assert [c.attr.ino for c in first] == [inos[1]], "it goes first, however new it is"


async def test_what_lies_beside_comes_with_the_disc_that_is_in_the_drive(study_lab):
    lab, fill = study_lab(siblings="off")
    async with lab.running() as engine:
        inos = await fill(lab)
        disc, _ = lab.disc(inos[0])
        for how in ("off", "folder", "study"):
            prefetch = engine.config.prefetch.model_copy(update={"siblings": how})
            engine.prefetcher.configure(engine.config.model_copy(update={"prefetch": prefetch}))
            live = engine.files.hold(inos[0])
            # It is not there before what lies beside was found.
            async with trio.open_nursery() as nursery, live.lock:
                nursery.start_soon(lab.read, inos[0])
                if how != "off":
                    await lab.until(lambda: all(asked(engine, ino) for ino in inos[1:]))
            engine.files.drop(live)
            if how != "off":
                await came(lab, *inos)
            await lab.until(lambda: not engine.recaller.left())
            assert [away(engine, ino) for ino in inos[1:]] == [how == "off"] * 2
            assert (await engine.prefetcher.status())["unread"] == (0 if how == "off" else 2)
            for ino in inos:
                if not away(engine, ino):
                    await engine.releaser.release(ino, "test")
        assert engine.catalog.volumes.get(disc.id).loads <= 1


async def test_what_lies_beside_comes_though_the_readers_file_came_before_it_was_found(study_lab):
    lab, fill = study_lab(siblings="study")
    async with lab.running() as engine:
        inos = await fill(lab)
        beside, choose, jobs = engine.recaller.beside, engine.recaller.beside.choose, []

        async def late(ino, volume):
            await lab.until(lambda: engine.recaller.job(inos[0]) is None)
            jobs.append(ino)
            return await choose(ino, volume)

        beside.choose = late
        await lab.read(inos[0])
        await came(lab, *inos)
        await lab.until(lambda: not engine.recaller.left())
        assert jobs == inos[:1] and lab.disc(inos[0])[0].loads <= 1


async def test_a_worklist_of_a_patient_who_was_indexed(make_lab, tmp_path):
    (tmp_path / "wl").mkdir()
    file = tmp_path / "wl/tomorrow.list"
    file.write_text(f"patient {KNOWN.patient}\n")
    os.utime(file, (time.time() - 60,) * 2)
    lab = make_lab()
    async with lab.running() as engine:
        ino = await lab.file(b"a.dcm", DATA)
        other = await lab.file(b"b", b"x" * 300_000)
        await lab.archive(ino, other, release=True)
        assert engine.catalog.studies.of(ino) is None
        root = engine.catalog.inodes.get_raw(1)
        assert await engine.prefetcher.index([root]) == (1, 2)
        assert engine.catalog.studies.of(ino) == KNOWN
        prefetch = engine.config.prefetch.model_copy(update={"worklist": tmp_path / "wl"})
        engine.prefetcher.configure(engine.config.model_copy(update={"prefetch": prefetch}))
        await lab.until(lambda: "worklist_taken" in {e.kind for e in engine.events.since(0)})
        await came(lab, ino)
        assert away(engine, other)
        told = [e.fields["files"] for e in engine.events.since(0) if e.kind == "worklist_taken"]
        assert told == [1]


def test_lists(tmp_path):
    text = "# tomorrow\npatient 4711\nstudy 1.2.3\n\n/a b/c\npath /d\n"
    assert parse(text, "x") == Wishes(["4711"], ["1.2.3"], ["/a b/c", "/d"])
    with pytest.raises(ConfigError, match="line 2"):
        parse("patient 1\npatients 2\n", "x")
    (tmp_path / "a.wl").write_bytes(DATA[:30_000])
    assert load(tmp_path / "a.wl") == Wishes(patients=[KNOWN.patient])
    (tmp_path / "b.wl").write_bytes(b"no DICOM")
    with pytest.raises(ConfigError, match="PatientID"):
        load(tmp_path / "b.wl")


def test_a_watched_folder_gives_each_list_once(tmp_path):
    watched, file = Watched(tmp_path), tmp_path / "a.list"
    file.write_text("patient 1\n")
    assert watched.new() == [], "it may still be written"

    def age(seconds):
        os.utime(file, (time.time() - seconds,) * 2)

    age(60)
    assert (watched.new(), watched.new()) == ([file], [])
    age(50)
    assert watched.new() == [file], "it was written anew"
    age(100_000)
    assert Watched(tmp_path).new() == [], "that was long ago"


@pytest.mark.expect_log("unreadable|suspect|drive down")
async def test_no_disc_is_fetched_for_what_lies_beside_alone(study_lab):
    lab, fill = study_lab(siblings="study")
    async with lab.running() as engine:
        inos = await fill(lab)
        for drive in engine.library.drives:
            await engine.mounts.drive_down(drive.name, "test")
        async with trio.open_nursery() as readers:
            readers.start_soon(lab.read, inos[0])
            await lab.until(lambda: all(engine.recaller.job(ino) for ino in inos))
            readers.cancel_scope.cancel()
        await lab.until(lambda: not engine.recaller.left())
        assert not any(engine.recaller.job(ino) for ino in inos), "the reader left"
        for drive in engine.library.drives:
            await engine.mounts.drive_up(drive.name)
        disc, sector = lab.disc(inos[1])
        lab.fail({"kind": "unreadable", "barcode": disc.barcode, "sector": sector, "count": 1})
        await lab.read(inos[0])
        await came(lab, inos[2])
        await lab.until(lambda: not engine.recaller.left())
        assert engine.recaller.job(inos[1]) is None and away(engine, inos[1])
        assert engine.recaller.failure(inos[1]) is None, "nobody asked for it"
