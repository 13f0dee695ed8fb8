"""The catalog's promises: numbers, durability without a sync on the loop, one owner."""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
import stat
import threading
from functools import partial

import apsw
import pytest
import trio

from hsmfs import durable
from hsmfs.catalog.catalog import Catalog
from hsmfs.catalog.connection import connect
from hsmfs.catalog.paths import PathCache
from hsmfs.catalog.redo import RedoLog
from hsmfs.errors import CatalogInUse, PosixError
from hsmfs.states import CopyState, Lock
from hsmfs.types import ROOT, Attr, StoredPart

FILE, DIR = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755


async def make(catalog, name, mode=FILE, parent=ROOT):
    async with catalog.write():
        return catalog.names.create(parent, name, mode, 1, 2, 3)


async def test_names(catalog):
    folder = await make(catalog, b"d", DIR)
    file = await make(catalog, b"\xff\n", parent=folder.ino)
    assert catalog.names.lookup(folder.ino, b"\xff\n") == file
    assert catalog.names.paths(file.ino) == [b"d/\xff\n"]
    assert catalog.names.resolve(b"/d/\xff\n") == file
    assert catalog.inodes.get_raw(ROOT).nlink == 3
    async with catalog.write():
        catalog.names.link(file.ino, ROOT, b"two", 4)
        assert catalog.names.unlink(folder.ino, b"\xff\n", 5).nlink == 1
        catalog.names.rmdir(ROOT, b"d", 6)
    assert catalog.inodes.get_raw(ROOT).nlink == 2
    assert catalog.names.paths(file.ino) == [b"two"]


async def undone(catalog, change, file):
    """A transaction that looks at the path and then fails."""
    with contextlib.suppress(ZeroDivisionError):
        async with catalog.write():
            change()
            assert catalog.names.paths(file.ino) == [b"up/f"]
            raise ZeroDivisionError


async def test_paths_that_are_remembered_follow_their_folders(catalog):
    names, top = catalog.names, await make(catalog, b"top", DIR)
    low = await make(catalog, b"low", DIR, parent=top.ino)
    file = await make(catalog, b"f", parent=low.ino)
    other = await make(catalog, b"other", DIR)

    async def changed(change):
        names.paths(file.ino)
        async with catalog.write():
            change()
        return names.paths(file.ino)

    assert names.folder_path(ROOT) == b""
    moved = partial(names.rename, ROOT, b"top", ROOT, b"t", 4)
    assert await changed(moved) == [b"t/low/f"]
    swapped = partial(names.exchange, ROOT, b"t", ROOT, b"other", 5)
    assert await changed(swapped) == [b"other/low/f"]
    assert await changed(partial(names.discard, low.ino)) == []
    assert names.folder_path(low.ino) is None
    back = partial(names.revive, low.ino, other.ino, b"back", 6)
    assert await changed(back) == [b"t/back/f"]
    await undone(catalog, lambda: names.rename(other.ino, b"back", ROOT, b"up", 7), file)
    assert names.paths(file.ino) == [b"t/back/f"], "what was undone is not remembered"


@pytest.mark.parametrize(
    ("call", "number"),
    [
        (lambda n, d, f: n.create(ROOT, b"f", FILE, 0, 0, 1), errno.EEXIST),
        (lambda n, d, f: n.create(f, b"x", FILE, 0, 0, 1), errno.ENOTDIR),
        (lambda n, d, f: n.create(ROOT, b"x" * 256, FILE, 0, 0, 1), errno.ENAMETOOLONG),
        (lambda n, d, f: n.unlink(ROOT, b"d", 1), errno.EISDIR),
        (lambda n, d, f: n.rmdir(ROOT, b"d", 1), errno.ENOTEMPTY),
        (lambda n, d, f: n.rmdir(ROOT, b"f", 1), errno.ENOTDIR),
        (lambda n, d, f: n.link(d, ROOT, b"x", 1), errno.EPERM),
        (lambda n, d, f: n.rename(ROOT, b"d", d, b"x", 1), errno.EINVAL),
        (lambda n, d, f: n.rename(ROOT, b"f", ROOT, b"d", 1), errno.EISDIR),
        (lambda n, d, f: n.rename(ROOT, b"d", ROOT, b"f", 1), errno.ENOTDIR),
        (lambda n, d, f: n.rename(ROOT, b"none", ROOT, b"x", 1), errno.ENOENT),
        (lambda n, d, f: n.rename(ROOT, b"f", ROOT, b"d", 1, no_replace=True), errno.EEXIST),
        (lambda n, d, f: n.exchange(ROOT, b"d", d, b"in", 1), errno.EINVAL),
    ],
)
async def test_refusals_change_nothing(catalog, call, number):
    folder = await make(catalog, b"d", DIR)
    await make(catalog, b"in", parent=folder.ino)
    file = await make(catalog, b"f")
    before = catalog.db.execute("SELECT * FROM dentries").fetchall()
    with pytest.raises(PosixError) as fault:
        async with catalog.write():
            call(catalog.names, folder.ino, file.ino)
    assert fault.value.number == number
    assert catalog.db.execute("SELECT * FROM dentries").fetchall() == before


async def test_where_a_purged_file_was_is_kept_if_a_disc_has_it(catalog):
    folder = await make(catalog, b"d", DIR)
    burned, plain = [await make(catalog, name, parent=folder.ino) for name in (b"f", b"g")]
    part = StoredPart(1, 0, 1, 0, 100, 0, 100)
    async with catalog.write():
        catalog.copies.add(burned.ino, 1, 1, part, CopyState.PENDING)
        for attr, name in ((burned, b"f"), (plain, b"g")):
            catalog.names.unlink(folder.ino, name, 4)
            catalog.trash.put(attr.ino, folder.ino, name, 4, 1)
        catalog.names.rmdir(ROOT, b"d", 5)
        catalog.trash.put(folder.ino, ROOT, b"d", 5, 1)
    paths = PathCache(catalog.db)
    assert [paths.last(attr.ino) for attr in (burned, plain)] == [b"d/f", b"d/g"]
    gone = [burned.ino, plain.ino, folder.ino]
    async with catalog.write():
        dead = catalog.copies.mark_dead(gone)
        catalog.trash.keep_paths(dead)
        catalog.inodes.delete(gone)
    assert dead == {burned.ino}
    (copy,) = catalog.copies.all_of(burned.ino)
    assert copy.state is CopyState.PENDING  # its disc is being burned
    paths = PathCache(catalog.db)
    assert [paths.last(attr.ino) for attr in (burned, plain)] == [b"d/f", None]


async def test_exchange_counts_links(catalog):
    one, two = await make(catalog, b"one", DIR), await make(catalog, b"two", DIR)
    await make(catalog, b"sub", DIR, one.ino)
    await make(catalog, b"file", FILE, two.ino)
    async with catalog.write():
        catalog.names.exchange(one.ino, b"sub", two.ino, b"file", 9)
    assert catalog.inodes.get_raw(one.ino).nlink == 2
    assert catalog.inodes.get_raw(two.ino).nlink == 3


async def test_listing_survives_deletion(catalog):
    for i in range(1200):
        await make(catalog, b"%d" % i)
    seen, after = set(), 0
    while page := catalog.names.entries(ROOT, after, 100):
        after = page[-1][0]
        seen |= {name for _, name, _ in page}
        async with catalog.write():
            for _, name, _ in page:
                catalog.names.unlink(ROOT, name, 1)
    assert len(seen) == 1200


async def test_numbers_are_never_used_again(tmp_path):
    used = set()
    for _ in range(3):
        catalog = Catalog.open(tmp_path) if used else Catalog.create(tmp_path)
        with contextlib.suppress(RuntimeError):
            async with catalog.write():
                catalog.names.create(ROOT, b"gone", FILE, 0, 0, 1)
                raise RuntimeError("undo")
        assert catalog.names.lookup(ROOT, b"gone") is None
        attr = await make(catalog, b"f")
        assert attr.ino not in used
        used.add(attr.ino)
        async with catalog.write():
            catalog.names.unlink(ROOT, b"f", 2)
            catalog.inodes.delete([attr.ino])
        catalog.close()


async def test_numbers_are_set_aside_durably(tmp_path):
    """A power cut that undoes the creation must not let its number be given again."""
    Catalog.create(tmp_path / "a").close()
    catalog = Catalog.open(tmp_path / "a")
    (tmp_path / "b").mkdir()
    for name in ("catalog.db", "catalog.db-wal"):
        (tmp_path / "b" / name).write_bytes((tmp_path / "a" / name).read_bytes())
    given = await make(catalog, b"lost")
    catalog.close()
    after = Catalog.open(tmp_path / "b")
    assert (await make(after, b"new")).ino > given.ino
    after.close()


class Recorder(apsw.VFS):
    """Notes which thread syncs which file."""

    def __init__(self):
        self.syncs = []
        self.base = apsw.vfs_names()[0]
        super().__init__("recorder", base="", makedefault=True)

    def xOpen(self, name, flags):
        recorder = self

        class File(apsw.VFSFile):
            def __init__(self):
                super().__init__(recorder.base, name, flags)

            def xSync(self, flags):
                recorder.syncs.append(threading.current_thread())
                super().xSync(flags)

        return File()


async def test_loop_never_syncs_and_wal_is_reused(tmp_path):
    recorder = Recorder()
    try:
        catalog = Catalog.create(tmp_path)
        del recorder.syncs[:]
        for _ in range(3):
            for i in range(300):
                await make(catalog, b"f%d" % i)
            assert await catalog.checkpoint()
            for i in range(300):
                async with catalog.write():
                    catalog.names.unlink(ROOT, b"f%d" % i, 1)
            assert await catalog.checkpoint()
            size = catalog.wal_bytes()
        assert recorder.syncs
        assert threading.main_thread() not in recorder.syncs
        assert size == catalog.wal_bytes()
        assert size < 3 * 600 * 40_000
        catalog.close()
    finally:
        recorder.unregister()


@pytest.fixture
def flushes(monkeypatch):
    """The syncs of the redo log."""
    made = []
    write = RedoLog._write

    def counted(log, place, data):
        made.append(place)
        write(log, place, data)

    monkeypatch.setattr(RedoLog, "_write", counted)
    return made


async def test_what_is_durable_is_not_synced_again(catalog, flushes):
    await make(catalog, b"f")
    for _ in range(3):
        await catalog.sync()
    assert len(flushes) == 1
    assert catalog.durable == catalog.commits


async def test_many_who_wait_share_a_sync(catalog, flushes, monkeypatch):
    """One is under way when the others come, who all get the next."""
    flushed, everyone_is_there = durable.flushed, trio.Event()

    async def slow(fd, **kwargs):
        await everyone_is_there.wait()
        await flushed(fd, **kwargs)

    async def change(number):
        await make(catalog, b"%d" % number)
        mine = catalog.commits
        if mine - before == 100:
            everyone_is_there.set()
        await catalog.sync()
        assert catalog.durable >= mine

    before = catalog.commits
    monkeypatch.setattr(durable, "flushed", slow)
    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(change, number)
    assert 1 <= len(flushes) <= 2


async def test_a_sync_that_fails_is_told_and_tried_again(catalog, tmp_path, monkeypatch):
    await make(catalog, b"f")
    flushed = durable.flushed

    async def fails(fd, **kwargs):
        raise OSError(errno.EIO, "the disk is gone")

    monkeypatch.setattr(RedoLog, "whole", False)
    monkeypatch.setattr(durable, "flushed", fails)
    with pytest.raises(OSError, match="the disk is gone"):
        await catalog.sync()
    assert catalog.durable < catalog.commits
    monkeypatch.setattr(durable, "flushed", flushed)
    await catalog.sync()
    assert catalog.durable == catalog.commits
    # The failed sync may have lost pages of the WAL, and the next would not say so.
    (tmp_path / "alone").mkdir()
    shutil.copy(catalog.path, tmp_path / "alone")
    alone = connect(tmp_path / "alone" / catalog.path.name)
    assert alone.execute("SELECT 1 FROM dentries WHERE name = ?", (b"f",)).get
    alone.close()


async def test_a_long_reader_only_delays_the_checkpoint(catalog):
    await make(catalog, b"f")
    release = threading.Event()
    started = threading.Event()

    def slow(reports):
        first = reports.by_state()
        started.set()
        release.wait()
        return first

    async with trio.open_nursery() as nursery:
        nursery.start_soon(catalog.read, slow)
        await trio.to_thread.run_sync(started.wait)
        assert not await catalog.checkpoint(patience=0.01)
        await make(catalog, b"g")
        release.set()
    assert await catalog.checkpoint()
    assert catalog.names.lookup(ROOT, b"g") is not None


async def test_a_reader_that_slips_in_is_no_new_beginning_of_the_wal(catalog, monkeypatch):
    await make(catalog, b"f")
    reader, copy = connect(catalog.path, readonly=True), catalog._copy_frames

    def slips_in():
        if not reader.in_transaction:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM meta").fetchall()
        copy()

    monkeypatch.setattr(catalog, "_copy_frames", slips_in)
    assert not await catalog.checkpoint()
    monkeypatch.undo()
    reader.close()
    assert await catalog.checkpoint()


async def test_sync_moves_the_durable_mark(catalog):
    await make(catalog, b"f")
    assert catalog.durable < catalog.commits
    await catalog.sync()
    assert catalog.durable == catalog.commits


async def test_one_owner(catalog, tmp_path):
    with pytest.raises(CatalogInUse, match="in use by process"):
        Catalog.open(tmp_path)


async def test_dirty_files_are_found_with_and_without_a_name(catalog):
    async with catalog.write():
        for name in (b"named", b"unlinked"):
            catalog.names.create(ROOT, name, FILE, 1, 2, 3)
        clean = catalog.names.create(ROOT, b"clean", FILE, 1, 2, 3)
        catalog.inodes.put(clean._replace(dirty=False))
        unlinked = catalog.names.unlink(ROOT, b"unlinked", 4)
    assert unlinked == catalog.inodes.get_raw(unlinked.ino)
    assert [attr.nlink for attr in catalog.inodes.dirty()] == [1, 0]


# The folder that is remembered while names in it come and go

ACTS = {
    "create": lambda c, f: c.names.create(f.ino, b"new", FILE, 0, 0, 9),
    "mkdir": lambda c, f: c.names.create(f.ino, b"new", DIR, 0, 0, 9),
    "unlink": lambda c, f: c.names.unlink(f.ino, b"a", 9),
    "rmdir": lambda c, f: c.names.rmdir(f.ino, b"d", 9),
    "in": lambda c, f: c.names.rename(ROOT, b"e", f.ino, b"e", 9),
    "out": lambda c, f: c.names.rename(f.ino, b"d", ROOT, b"d", 9),
    "exchange": lambda c, f: c.names.exchange(f.ino, b"d", ROOT, b"b", 9),
    "moved": lambda c, f: c.names.rename(ROOT, b"f", ROOT, b"g", 9),
    "link": lambda c, f: c.names.link(c.names.lookup(ROOT, b"b").ino, f.ino, b"b", 9),
    "chmod": lambda c, f: c.inodes.put(f._replace(mode=DIR & ~0o111)),
    "lock": lambda c, f: c.inodes.set_locked(f.ino, Lock.HELD),
    "by SQL": lambda c, f: c.db.execute("UPDATE inodes SET uid = 5 WHERE ino = ?", (f.ino,)),
}


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("act", ACTS)
async def test_a_folder_is_remembered_as_it_is(catalog, act, fails):
    async with catalog.write():
        folder = catalog.names.create(ROOT, b"f", DIR, 0, 0, 1)
        for name, mode in (b"a", FILE), (b"d", DIR):
            catalog.names.create(folder.ino, name, mode, 0, 0, 2)
        for name, mode in (b"e", DIR), (b"b", FILE):
            catalog.names.create(ROOT, name, mode, 0, 0, 2)
    before = catalog.inodes.get_raw(folder.ino)
    with contextlib.suppress(ZeroDivisionError):
        async with catalog.write():
            ACTS[act](catalog, before)
            1 / (not fails)
    known = catalog.inodes.get_raw(folder.ino)
    assert known == await catalog.read(lambda reports: reports.inodes.get_raw(folder.ino))
    assert (known == before) == fails


@pytest.mark.parametrize(
    "detail",
    [{}, {"ino": 5, "size": 1 << 63, "by_ns": -1}, {"on": True}, {"n": 1, "why": '"é'}],
)
async def test_the_detail_of_a_record_is_canonical_json(catalog, detail):
    async with catalog.write():
        catalog.audit.append(1, "file.deleted", "me", "/a", "done", detail)
    (record,) = catalog.audit.after(0)
    assert record.detail == json.dumps(detail, separators=(",", ":"))


def test_an_inode_with_other_links_is_the_same_but_for_them():
    attr = Attr(*range(20))
    other = attr.with_links(-1, -2, -3, -4)
    assert type(other) is Attr
    assert other == attr._replace(nlink=-1, mtime_ns=-2, ctime_ns=-3, change_seq=-4)
