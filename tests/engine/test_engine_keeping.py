"""What a file was is kept when it is changed in place before a disc has it."""

from __future__ import annotations

import errno
import os

import pytest

from hsmfs import clock
from hsmfs.disc.digest import digest_file
from hsmfs.engine import keeping
from hsmfs.engine.fsck import fsck
from hsmfs.engine.past import Past
from hsmfs.engine.stubs import Unkept
from hsmfs.pool import copying
from hsmfs.states import FileState, Lock
from hsmfs.types import ROOT
from tests.engine.conftest import READER

OLD = bytes(range(256)) * 40
STILL = 3600.0
"""Seconds since the last change."""


@pytest.fixture
async def lab(lab):
    yield lab
    await lab.engine.files.flush_closed()
    report = await fsck(lab.engine.catalog, lab.engine.pools, files=lab.engine.files)
    assert report.findings == []


def place(lab, ino):
    return lab.engine.pools.for_new().path_of(ino)


def age(lab, ino, seconds=STILL):
    """Nobody has changed the file's bytes for so long."""
    path = place(lab, ino)
    then = os.stat(path).st_mtime - seconds
    os.utime(path, (then, then))


async def still(lab, name=b"a", data=OLD):
    ino = await lab.file(name, data)
    if data:
        age(lab, ino)
    return ino


async def write(lab, ino, at, data, *, cut=None):
    files = lab.engine.files
    live = files.open(ino, write=True)
    if cut is not None:
        await files.truncate(live, cut)
    if data:
        await files.write(live, at, data)
    files.close(live, write=True)
    await files.flush_closed()
    return live


async def truncate(lab, ino, size):
    """By name, without opening the file."""
    live = lab.engine.files.hold(ino)
    await lab.engine.files.truncate(live, size)
    lab.engine.files.drop(live)
    await lab.engine.files.flush_closed()


async def was(lab, ino, time_ns):
    """What the file was then, as a snapshot shows it."""
    past = Past(lab.engine.catalog, lab.engine.files, 10**9)
    size = past.attr(ino, time_ns).size
    live = await past.open(ino, time_ns)
    try:
        return await lab.engine.files.read(live, 0, size, READER)
    finally:
        lab.engine.files.close(live, write=False)


async def views(lab, path=b"/a"):
    return [(v.id, v.where, v.size) for v in await lab.engine.versions.of(path, None)]


def unnamed(lab):
    return lab.engine.catalog.db.execute("SELECT count(*) FROM inodes WHERE nlink = 0").get


@pytest.mark.parametrize("how", ["write", "O_TRUNC", "truncate", "cut", "hole"])
@pytest.mark.parametrize("clones", [True, False])
async def test_a_change_in_place(lab, how, clones, monkeypatch):
    if not clones:
        monkeypatch.setattr(copying, "_cloned", lambda source, fd: False)
    ino, then = await still(lab), clock.now_ns()
    if how == "write":
        await write(lab, ino, 5, b"encrypted")
        new = OLD[:5] + b"encrypted" + OLD[14:]
    elif how == "O_TRUNC":
        await write(lab, ino, 0, b"encrypted", cut=0)
        new = b"encrypted"
    elif how == "truncate":
        await truncate(lab, ino, 0)
        new = b""
    elif how == "cut":
        await truncate(lab, ino, 100)
        new = OLD[:100]
    else:
        await write(lab, ino, len(OLD) - 1, b"xyz")
        new = OLD[:-1] + b"xyz"
    assert await lab.read(ino) == new
    assert await was(lab, ino, then) == OLD
    assert await views(lab) == [(f"{ino}.2", "now", len(new)), (f"{ino}.1", "disk", len(OLD))]
    assert unnamed(lab) == 1
    await lab.engine.versions.restore(b"/a", f"{ino}.1", b"/b", "test", None)
    back = lab.engine.catalog.names.resolve(b"b")
    assert (await lab.read(back.ino), back.mode, back.nlink) == (OLD, 0o100644, 1)
    # There is one inode with these bytes, which has a name now: another restore copies.
    await lab.engine.versions.restore(b"/a", f"{ino}.1", b"/c", "test", None)
    again = lab.engine.catalog.names.resolve(b"c")
    assert again.ino != back.ino
    await write(lab, back.ino, 0, b"changed, too")
    assert (await lab.read(again.ino), await was(lab, ino, then)) == (OLD, OLD)


async def test_a_new_mtime_before_the_change_hides_nothing(lab):
    ino, then = await still(lab), clock.now_ns()
    async with lab.engine.catalog.write():
        attr = lab.engine.files.attr(ino)._replace(mtime_ns=clock.now_ns())
        await lab.engine.files.setattr(ino, attr)
    await write(lab, ino, 0, b"encrypted")
    assert await was(lab, ino, then) == OLD


@pytest.mark.parametrize("size", [0, len(OLD)])
async def test_a_truncation_that_cuts_nothing_hides_nothing(lab, size):
    ino, then = await still(lab, data=OLD[:size]), clock.now_ns()
    await truncate(lab, ino, size)
    await write(lab, ino, 0, b"encrypted")
    assert await was(lab, ino, then) == OLD[:size]


async def test_a_file_that_only_grows_costs_a_row(lab):
    ino = await still(lab)
    times = [clock.now_ns()]
    for n in range(3):
        await write(lab, ino, len(OLD) + n, b"%d" % n)
        age(lab, ino)
        times.append(clock.now_ns())
    assert unnamed(lab) == 0
    for n, time_ns in enumerate(times):
        assert await was(lab, ino, time_ns) == OLD + b"012"[:n]
    # Now somebody writes into what older versions are; that it grew just now does not help him.
    await write(lab, ino, len(OLD) + 3, b"footer")
    await write(lab, ino, 1, b"encrypted")
    assert unnamed(lab) == 1
    for n, time_ns in enumerate(times):
        assert await was(lab, ino, time_ns) == OLD + b"012"[:n]
    await lab.engine.versions.restore(b"/a", f"{ino}.2", None, "test", None)
    assert await lab.read(lab.engine.catalog.names.resolve(b"a").ino) == OLD + b"0"


async def test_growing_and_changing_in_one_opening(lab):
    ino, then = await still(lab), clock.now_ns()
    files = lab.engine.files
    live = files.open(ino, write=True)
    await files.write(live, len(OLD), b"more")
    assert live.plain(len(OLD)) and not live.plain(0)
    await files.write(live, 0, b"x")
    assert live.plain(0)
    await files.truncate(live, 0)
    files.close(live, write=True)
    assert await was(lab, ino, then) == OLD
    assert unnamed(lab) == 1


async def test_what_is_changed_again_soon_is_not_copied_again(lab):
    ino, then = await still(lab), clock.now_ns()
    await write(lab, ino, 0, b"one")
    young = clock.now_ns()
    live = await write(lab, ino, 0, b"two")
    assert (unnamed(lab), live.attr.version) == (1, 2)
    assert await was(lab, ino, then) == OLD
    with pytest.raises(Unkept):
        await was(lab, ino, young)
    age(lab, ino)
    await write(lab, ino, 0, b"three")
    assert unnamed(lab) == 2


async def test_a_file_being_made_and_a_file_on_discs_need_nothing(lab):
    ino = await lab.file(b"a", OLD)
    await write(lab, ino, 0, b"patched")
    assert (unnamed(lab), lab.engine.files.attr(ino).version) == (0, 1)
    await lab.archive(ino)
    age(lab, ino)
    await write(lab, ino, 0, b"again")
    assert (unnamed(lab), lab.engine.files.attr(ino).version) == (0, 2)


async def test_a_file_with_checksums_that_no_disc_has(lab):
    """Sealed for a burn that is not over, or was never one."""
    ino, then = await still(lab), clock.now_ns()
    files, catalog = lab.engine.files, lab.engine.catalog
    live = files.hold(ino)
    async with catalog.write():
        digest = digest_file(place(lab, ino))
        assert files.seal(live, live.gen, digest)
    files.drop(live)
    await write(lab, ino, 0, b"x")
    assert await was(lab, ino, then) == OLD
    assert files.attr(ino).version == 2
    async with catalog.write():
        catalog.db.execute("DELETE FROM digests WHERE ino = ?", (ino,))


@pytest.mark.expect_log("old versions of files are not kept")
@pytest.mark.parametrize("why", ["too large", "share", "watermark", "disk full"])
@pytest.mark.parametrize("how", ["write", "truncate"])
async def test_no_room_is_no_reason_to_refuse_a_write(lab, why, how, monkeypatch):
    ino, then = await still(lab), clock.now_ns()
    monkeypatch.setattr(copying, "_cloned", lambda source, fd: False)
    if why == "too large":
        lab.engine.keeping._at_most = len(OLD) - 1
    elif why == "share":
        lab.engine.keeping._share = 0
    elif why == "watermark":
        lab.engine.pools.for_new().high = 0
    else:
        def full(*args):
            raise OSError(errno.ENOSPC, "no space left on device")

        monkeypatch.setattr(copying, "_copy", full)
    await (write(lab, ino, 0, b"x") if how == "write" else truncate(lab, ino, 0))
    linked = how == "truncate" and why != "share"
    assert await lab.read(ino) == (b"x" + OLD[1:] if how == "write" else b"")
    if linked:  # it costs nothing, whatever its size
        assert await was(lab, ino, then) == OLD
        return
    assert unnamed(lab) == 0
    told = [event for event in lab.engine.events.since(0) if event.kind == "versions_not_kept"]
    assert len(told) == (why != "too large")
    assert (await views(lab))[1] == (f"{ino}.1", "lost", len(OLD))
    # Also if the mtime was set back: that its version ended is known.
    async with lab.engine.catalog.write():
        await lab.engine.files.setattr(ino, lab.engine.files.attr(ino)._replace(mtime_ns=1))
    with pytest.raises(Exception, match="no disc"):
        await was(lab, ino, then)


async def test_adopted_files_that_have_names_outside_are_copied(lab, tmp_path):
    ino, then = await still(lab), clock.now_ns()
    os.link(place(lab, ino), tmp_path / "outside")
    await truncate(lab, ino, 0)
    assert (tmp_path / "outside").stat().st_size == 0  # as ever
    assert await was(lab, ino, then) == OLD
    (tmp_path / "outside").unlink()


async def test_readers_of_the_old_pool_file_go_on(lab):
    """The descriptor that a thread reads from names another file from one moment to the next."""
    ino = await still(lab)
    files = lab.engine.files
    live = files.open(ino, write=False)
    assert await files.read(live, 0, 10, READER) == OLD[:10]
    fd = live.fd
    await truncate(lab, ino, 0)
    assert (live.fd, await files.read(live, 0, 10, READER)) == (fd, b"")
    await write(lab, ino, 0, b"new")
    assert await files.read(live, 0, 10, READER) == b"new"
    files.close(live, write=False)


async def test_old_versions_are_purged_with_their_time_and_with_their_file(lab):
    catalog, files = lab.engine.catalog, lab.engine.files
    ino, other = await still(lab), await still(lab, b"b")
    await write(lab, ino, 0, b"x")
    await truncate(lab, other, 0)
    paths = [place(lab, n) for (n,) in catalog.db.execute("SELECT holder FROM kept").fetchall()]
    assert all(map(os.path.exists, paths)) and len(paths) == 2
    await lab.engine.housekeeper._look_at_pools()
    assert sum(lab.engine.keeping.used.values()) >= 2 * len(OLD)
    async with catalog.write():
        catalog.db.execute("UPDATE kept SET purge_ns = 1 WHERE ino = ?", (ino,))
        files.lock(ino, Lock.HELD)
    await lab.engine.keeping.purge_due()
    assert os.path.exists(paths[0])  # a hold beats it
    async with catalog.write():
        files.lock(ino, 0)
    await lab.engine.keeping.purge_due()
    assert [os.path.exists(p) for p in paths] == [False, True]
    assert await views(lab) == [(f"{ino}.2", "now", len(OLD))]
    async with catalog.write():
        files.touch_links(catalog.names.unlink(ROOT, b"b", 1))
    await files.purge(other)
    assert not os.path.exists(paths[1])
    assert catalog.db.execute("SELECT count(*) FROM kept").get == 0


async def test_what_a_crash_leaves(make_lab, monkeypatch):
    """Before anything is noted: an orphan, gone after the next start."""
    lab = make_lab()

    class Cut(BaseException):
        pass

    def die(name):
        if name == "keeping.set_aside":
            raise Cut

    async with lab.running():
        ino = await still(lab)
        with monkeypatch.context() as patch:
            patch.setattr(keeping.crash, "point", die)
            with pytest.raises(Cut):
                await write(lab, ino, 0, b"x")
        lab.engine.files.live(ino).writers = lab.engine.files.live(ino).opens = 0
    async with lab.running():
        assert unnamed(lab) == 0
        assert await lab.read(ino) == OLD


async def test_a_power_cut_between_the_note_and_the_empty_file(lab):
    """As recover() finds it: the inode with the old bytes never reached the disk."""
    ino = await still(lab)
    files, catalog = lab.engine.files, lab.engine.catalog
    then = clock.now_ns()
    await truncate(lab, ino, 0)
    (holder,) = catalog.kept.holders(ino)
    os.rename(place(lab, holder), place(lab, ino))
    async with catalog.write():
        catalog.db.execute("UPDATE inodes SET dirty = 1 WHERE ino = ?", (ino,))
    await files.recover()
    assert await lab.read(ino) == OLD
    assert await was(lab, ino, then) == OLD
    await lab.engine.housekeeper.begin()
    # And: both names are there, the file is not empty yet.
    age(lab, ino)
    await truncate(lab, ino, 0)
    (holder,) = catalog.kept.holders(ino)
    os.unlink(place(lab, ino))
    os.link(place(lab, holder), place(lab, ino))
    async with catalog.write():
        catalog.db.execute("UPDATE inodes SET dirty = 1 WHERE ino = ?", (ino,))
    await files.recover()
    assert files.attr(ino).size == 0
    assert await lab.read(ino) == b""
    assert await was(lab, ino, then) == OLD


async def test_a_file_that_waits_for_a_disc_waits_in_its_new_version(lab):
    ino = await still(lab)
    await lab.engine.migrator.archive([ino])
    await write(lab, ino, 0, b"x")
    await lab.settle()
    attr = lab.engine.files.attr(ino)
    assert lab.engine.catalog.copies.is_archived(ino, attr.version)
    assert attr.state == FileState.PREMIGRATED
