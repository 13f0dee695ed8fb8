"""Files compared with what clients say of them, and with what was written down at ingest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random

import pytest

from hsmfs.engine import overview
from hsmfs.engine.integrity import resume, tree
from hsmfs.engine.integrity.tree import FILES
from hsmfs.engine.jobs import Job
from hsmfs.states import FileState
from hsmfs.types import ROOT

pytestmark = pytest.mark.slow
DATA = random.Random(3).randbytes(5_000_000)


def root(lab):
    return lab.engine.catalog.inodes.get_raw(ROOT)


async def verify(lab, *, deep=False, of=None):
    return await lab.engine.verifier.run(Job("verify"), [of or root(lab)], "test", deep=deep)


async def xattr(lab, ino, name, value):
    async with lab.engine.catalog.write():
        lab.engine.catalog.xattrs.set(ino, name, value)


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


def state(lab, ino):
    return FileState(lab.engine.files.attr(ino).state)


def records(lab, kind):
    log = lab.engine.trust.audit.log
    return [json.loads(record.detail) for record in log.after(0) if record.kind == kind]


def pool_file(lab, ino):
    (path,) = [lab.engine.pools[lab.engine.files.attr(ino).pool].path_of(ino)]
    return path


def spoil(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


async def test_what_is_as_it_was_is_said_to_be(lab):
    inos = [await lab.file(b"f%d" % n, DATA[: n * 400]) for n in range(FILES + 2)]
    big = await lab.file(b"big", DATA)
    await lab.archive(*inos, big)
    await lab.engine.releaser.release(big, "test")
    later = await lab.file(b"later", b"x")
    found = await verify(lab, deep=True)
    assert (found.files, found.unarchived, found.changed) == (FILES + 4, 1, 0)
    assert (found.failed, found.findings, found.unread, found.heads) == (0, [], 0, 0)
    assert found.copies == FILES + 3 and found.on_disk == FILES + 1
    assert sum(disc.parts_read for disc in found.discs) == FILES + 2
    (record,) = records(lab, "integrity.verified")
    assert record["files"] == FILES + 4 and record["failed"] == 0
    assert found.record.startswith(f"{lab.engine.trust.audit.log.head().seq}:")
    shallow = await verify(lab)
    assert shallow.heads > 0 and shallow.unread == FILES + 2
    assert state(lab, later) is FileState.RESIDENT


async def test_a_wrong_byte_on_disk_is_found_and_named(lab):
    whole, stub = await lab.file(b"whole", DATA), await lab.file(b"stub", DATA)
    await lab.archive(whole, stub)
    await lab.engine.releaser.release(stub, "test")
    spoil(pool_file(lab, whole), 4_500_000)
    spoil(pool_file(lab, stub), 7)
    found = await verify(lab)
    assert [(item["ino"], item["what"]) for item in found.findings] == [(whole, "disk")]
    found = await verify(lab, deep=True)
    assert {(item["ino"], item["what"]) for item in found.findings} == {
        (whole, "disk"), (stub, "disk")
    }  # fmt: skip
    assert len(records(lab, "integrity.mismatch")) == 3
    os.unlink(pool_file(lab, whole))
    found = await verify(lab, of=lab.engine.files.attr(whole))
    assert "missing" in found.findings[0]["error"]


@pytest.mark.expect_log("unreadable|disc failed its test|suspect|not tested")
async def test_a_wrong_sector_is_found_and_the_disc_is_tested(lab):
    good, bad = await lab.file(b"good", DATA), await lab.file(b"bad", DATA[1:])
    await lab.archive(good, bad)
    volume, sector = lab.disc(bad)
    lab.fail({"kind": "unreadable", "barcode": volume.barcode, "sector": sector, "count": 1,
              "times": None})  # fmt: skip
    assert (await verify(lab)).failed == 0
    found = await verify(lab, deep=True)
    assert [(i["ino"], i["what"], i["disc"]) for i in found.findings] == [
        (bad, "disc", volume.barcode)
    ]
    (disc,) = found.discs
    assert (disc.parts_read, disc.parts_bad) == (1, 1)
    await lab.until(lambda: lab.engine.catalog.volumes.get(volume.id).state.name == "SUSPECT")


async def test_a_disc_outside_is_listed_as_not_read(lab):
    ino = await lab.file(b"a", DATA)
    await lab.archive(ino)
    volume, _ = lab.disc(ino)
    async with lab.engine.catalog.write():
        lab.engine.catalog.db.execute(
            "UPDATE volumes SET element = NULL, location = 'safe 2' WHERE id = ?", (volume.id,)
        )
    found = await verify(lab, deep=True)
    assert (found.failed, found.unread, found.away) == (0, 1, 0)
    assert "safe 2" in found.discs[0].not_here
    await lab.engine.releaser.release(ino, "test")
    assert (await verify(lab, deep=True)).away == 1


@pytest.mark.expect_log("not what its client's checksum says|not archived now")
async def test_a_clients_checksum_is_compared_before_the_first_disc(lab):
    right = await lab.file(b"right", b"right")
    wrong = await lab.file(b"wrong", b"wrong")
    await xattr(lab, right, b"user.checksum.sha256", sha(b"right"))
    await xattr(lab, wrong, b"user.checksum.sha256", sha(b"else"))
    await lab.archive(right, wrong)
    assert [state(lab, right), state(lab, wrong)] == [FileState.PREMIGRATED, FileState.RESIDENT]
    (record,) = records(lab, "integrity.client_mismatch")
    assert record["ino"] == wrong and record["expected"] == sha(b"else").decode()
    (event,) = [e for e in lab.engine.events.since(0) if e.kind == "client_mismatch"]
    assert event.fields["ino"] == wrong
    said = overview.info(lab.engine, lab.engine.files.attr(wrong)).disputed
    assert "user.checksum.sha256" in said
    await lab.settle()  # looked at again: on record once
    assert len(records(lab, "integrity.client_mismatch")) == 1
    # Accepted it goes as it is; and it stays so.
    async with lab.engine.catalog.write():
        assert lab.engine.migrator.ingest.accept(wrong, "somebody")
    await lab.archive(wrong)
    assert state(lab, wrong) is FileState.PREMIGRATED
    found = await verify(lab)
    assert (found.claimed, found.accepted, found.failed) == (2, 1, 0)
    assert records(lab, "integrity.accepted")[0]["ino"] == wrong


@pytest.mark.expect_log("not what its client's checksum says|not archived now")
async def test_a_sums_file_above_counts_and_a_correction_is_enough(lab):
    names = lab.engine.catalog.names
    async with lab.engine.catalog.write():
        sub = names.create(ROOT, b"sub", 0o040755, 0, 0, 1).ino
    ino = await lab.file(b"a b", b"bytes")
    async with lab.engine.catalog.write():
        names.rename(ROOT, b"a b", sub, b"a b", 1)
    text = b"no sum\n" + sha(b"other") + b"  ./sub/a b\n"
    sums = await lab.file(b"SHA256SUMS", text)
    await lab.archive(ino)
    assert state(lab, ino) is FileState.RESIDENT
    assert records(lab, "integrity.client_mismatch")[0]["source"] == "/SHA256SUMS"
    live = lab.engine.files.open(sums, write=True)
    await lab.engine.files.write(live, 0, b"no sum\n" + sha(b"bytes"))
    lab.engine.files.close(live, write=True)
    await lab.archive(ino)
    assert state(lab, ino) is FileState.PREMIGRATED
    assert (await verify(lab)).failed == 0


@pytest.mark.expect_log("not what its client's checksum says")
async def test_a_checksum_that_came_later_is_seen_by_verify(lab):
    ino = await lab.file(b"a", b"bytes")
    attr = lab.engine.files.attr(ino)
    await xattr(lab, ino, b"user.shatag.sha256", sha(b"others"))
    await xattr(lab, ino, b"user.shatag.ts", b"%d.000000000" % (attr.mtime_ns // 10**9 - 5))
    await lab.archive(ino)  # its time is another: what it says is of other bytes
    assert state(lab, ino) is FileState.PREMIGRATED
    assert (await verify(lab)).claimed == 0
    now = b"%d.%09d" % divmod(attr.mtime_ns, 10**9)
    await xattr(lab, ino, b"user.shatag.ts", now)
    found = await verify(lab)
    assert [(item["what"], item["ino"]) for item in found.findings] == [("client", ino)]


class Killed(BaseException):
    pass


def killed_at(monkeypatch, count):
    """The daemon dies when a verification has written down for the n-th time where it stands."""
    left = iter(range(count - 1, -1, -1))

    def point(name):
        if name == "verify.noted" and next(left) == 0:
            raise Killed

    monkeypatch.setattr(resume.crash, "point", point)


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5])
async def test_what_was_compared_is_not_compared_again_after_a_restart(make_lab, monkeypatch, at):
    lab = make_lab(copies=2, disc="4 MiB")
    looked = []
    real = tree._read

    def read(looks):
        looked.extend(look.live.ino for look in looks)
        real(looks)

    monkeypatch.setattr(resume, "EVERY_S", 0.0)
    monkeypatch.setattr(tree, "_read", read)
    monkeypatch.setattr(tree, "FILES", 2)
    async with lab.running():
        inos = [await lab.file(b"f%d" % n, DATA[n : 800_000 + n]) for n in range(5)]
        await lab.archive(*inos)
        await lab.engine.releaser.release(inos[0], "test")
        spoil(pool_file(lab, inos[1]), 7)
        whole = await verify(lab, deep=True)
        looked.clear()
        with monkeypatch.context() as patch:
            killed_at(patch, at)
            with pytest.raises(Killed):
                await verify(lab, deep=True)
    async with lab.running():
        found = await verify(lab, deep=True)
        facts = dataclasses.asdict(whole) | {
            "begun_ns": found.begun_ns, "ended_ns": found.ended_ns, "resumed": 1,
            "record": found.record,
        }  # fmt: skip
        assert dataclasses.asdict(found) == facts
        assert looked == inos
        assert (found.failed, found.heads) == (1, 0)
        assert sum(disc.parts_read for disc in found.discs) == 10
        assert (await verify(lab, deep=True)).resumed == 0  # that one has ended


async def test_another_order_and_an_old_one_begin_anew(lab, monkeypatch):
    ino = await lab.file(b"a", DATA)
    await lab.archive(ino)
    monkeypatch.setattr(resume, "EVERY_S", 0.0)

    async def cut_off():
        with monkeypatch.context() as patch:
            killed_at(patch, 1)
            with pytest.raises(Killed):
                await verify(lab)

    await cut_off()
    assert (await verify(lab, of=lab.engine.files.attr(ino))).resumed == 0
    await cut_off()
    found = await lab.engine.verifier.run(
        Job("verify"), [root(lab)], "test", deep=False, anew=True
    )
    assert (found.resumed, found.on_disk) == (0, 1)
    await cut_off()
    monkeypatch.setattr(resume, "OLD_NS", 0)
    assert (await verify(lab)).resumed == 0


async def test_what_is_written_meanwhile_is_not_judged(lab, monkeypatch):
    ino = await lab.file(b"a", b"bytes")
    await lab.archive(ino)
    spoil(pool_file(lab, ino), 0)
    read = tree._read

    def write_meanwhile(looks):
        read(looks)
        looks[0].live.gen += 1

    monkeypatch.setattr(tree, "_read", write_meanwhile)
    found = await verify(lab)
    assert (found.changed, found.failed) == (1, 0)
