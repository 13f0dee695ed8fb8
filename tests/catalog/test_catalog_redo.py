"""Transactions acknowledged and not committed yet: what survives, and who commits them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading

import apsw
import pytest
import trio
import trio.testing

from hsmfs import pressure
from hsmfs.catalog import catalog as module
from hsmfs.catalog import redo
from hsmfs.catalog.audit import GENESIS
from hsmfs.catalog.catalog import Catalog
from hsmfs.errors import CatalogInUse, NotFound, PosixError
from hsmfs.states import FileState
from hsmfs.types import ROOT

FILE = stat.S_IFREG | 0o644


class Held:
    """Holds the catalog's commits until `let_go`; notes which threads make them."""

    def __init__(self, catalog, monkeypatch):
        self.threads, self.began, self.let_go = [], threading.Event(), threading.Event()
        end = catalog._end_transaction

        def held(place):
            self.threads.append(threading.current_thread().name)
            self.began.set()
            assert self.let_go.wait(30)
            end(place)

        monkeypatch.setattr(catalog, "_end_transaction", held)


@pytest.fixture
def small_log(monkeypatch):
    """To be asked for before the catalog."""
    monkeypatch.setattr(redo, "SIZE", 1 << 14)


@pytest.fixture
async def catalog(tmp_path):
    catalog = Catalog.create(tmp_path / "c")
    yield catalog
    catalog.close()


@pytest.fixture
def busy(monkeypatch):
    monkeypatch.setattr(pressure.DISK, "busy", lambda: True)


@pytest.fixture
def idle(monkeypatch):
    monkeypatch.setattr(pressure.DISK, "busy", lambda: False)


async def make(catalog, name):
    async with catalog.write():
        return catalog.names.create(ROOT, name, FILE, 0, 0, 1)


def killed(tmp_path):
    """What a process that is killed now leaves, opened again."""
    left = tmp_path / f"left{len(os.listdir(tmp_path))}"
    shutil.copytree(tmp_path / "c", left)
    (left / "catalog.db-shm").unlink()
    return contextlib.closing(Catalog.open(left))


def spoil(file, place):
    """Change the byte of the log's there, as if it had not reached the disk."""
    place %= redo.SIZE
    whole = bytearray(file.read_bytes())
    whole[place] ^= 0xFF
    file.write_bytes(whole)


async def grow(catalog):
    """A change that the small log has no room for."""
    async with catalog.write():
        catalog.xattrs.set(ROOT, b"user.large", bytes(redo.SIZE))


async def listed(catalog):
    return {name for _, name, _ in catalog.names.entries(ROOT, 0, 10_000)}


# What survives


async def test_a_kill_loses_nothing_that_was_acknowledged(catalog, tmp_path):
    attr = await make(catalog, b"a")
    async with catalog.write():
        catalog.inodes.set_state(attr.ino, FileState.PREMIGRATED)  # an enumeration
        catalog.xattrs.set(attr.ino, b"user.x", memoryview(b"\0\xff"))
    await make(catalog, b"b")
    with pytest.raises(PosixError):
        await make(catalog, b"a")
    async with catalog.write():
        catalog.names.unlink(ROOT, b"b", 2)
    rows = "SELECT * FROM inodes ORDER BY ino"
    with killed(tmp_path) as after:
        assert await listed(after) == {b"a"}
        assert after.db.execute(rows).fetchall() == catalog.db.execute(rows).fetchall()
        assert after.xattrs.get(attr.ino, b"user.x") == b"\0\xff"


async def test_it_survives_any_number_of_kills_and_commits(catalog, tmp_path):
    for number in range(3 * module.TOGETHER // 2):
        await make(catalog, b"%d" % number)
        if number % 100 == 7:
            await catalog.sync()
        if number % 50 == 3:
            with killed(tmp_path) as after:
                assert await listed(after) == await listed(catalog)


async def test_a_record_that_is_not_whole_ends_the_log(catalog, tmp_path):
    await make(catalog, b"a")
    await make(catalog, b"b")
    spoil(tmp_path / "c" / redo.FILE, catalog._redo.end - 1)
    with killed(tmp_path) as after:
        assert await listed(after) == {b"a"}


async def test_an_old_log_is_not_taken_for_this_catalog_s(catalog, tmp_path):
    await make(catalog, b"a")
    with killed(tmp_path):
        pass
    stale = next(tmp_path.glob("left*"))
    Catalog.create(tmp_path / "new").close()
    shutil.copy(stale / redo.FILE, tmp_path / "new" / redo.FILE)
    with contextlib.closing(Catalog.open(tmp_path / "new")) as other:
        assert await listed(other) == set()


async def test_what_does_not_fit_is_committed(small_log, catalog, tmp_path):
    for number in range(200):
        await make(catalog, b"%d" % number)
        if number % 50 == 9:
            await grow(catalog)
        if number % 20 == 11:
            with killed(tmp_path) as after:
                assert await listed(after) == await listed(catalog)


async def test_a_change_outside_a_transaction_is_refused(catalog):
    with pytest.raises(AssertionError, match="outside a transaction"):
        catalog.db.execute("DELETE FROM inodes")


async def test_a_catalog_whose_making_was_cut_off_is_finished(tmp_path):
    Catalog.create(tmp_path / "c").close()
    with contextlib.closing(apsw.Connection(str(tmp_path / "c/catalog.db"))) as db:
        db.execute("DELETE FROM inodes; DELETE FROM meta WHERE key IN ('created_ns', 'archive')")
    assert not Catalog.complete(tmp_path / "c")
    with pytest.raises(NotFound, match="never finished"):
        Catalog.open(tmp_path / "c")
    with contextlib.closing(Catalog.create(tmp_path / "c")) as catalog:
        assert catalog.inodes.get_raw(ROOT) is not None
    assert Catalog.complete(tmp_path / "c")
    with pytest.raises(CatalogInUse, match="already"):
        Catalog.create(tmp_path / "c")


# What a power cut leaves


class Power:
    """Keeps what is durable of a catalog: its database since the last sync of the WAL."""

    def __init__(self, folder, catalog):
        self._folder, self._kept = folder, folder / "kept"
        self.wal_syncs = 0
        anchor = catalog._redo.anchor
        catalog._redo.anchor = lambda place: (anchor(place), self._keep())
        self._keep()

    def _keep(self):
        self.wal_syncs += 1
        shutil.rmtree(self._kept, ignore_errors=True)
        shutil.copytree(self._folder / "c", self._kept)
        (self._kept / "catalog.db-shm").unlink()

    def cut(self, *, wal=False):
        """What a cut leaves now, opened; wal: with the commits that nobody synced."""
        left = self._folder / f"cut{len(os.listdir(self._folder))}"
        shutil.copytree(self._kept, left)
        (left / redo.FILE).write_bytes(bytes(redo.SIZE))
        synced = [redo.SYNCED, *(["catalog.db-wal"] if wal else [])]
        for name in synced:
            shutil.copy(self._folder / "c" / name, left / name)
        return contextlib.closing(Catalog.open(left))


@pytest.fixture
def power(catalog, tmp_path):
    return Power(tmp_path, catalog)


async def test_a_sync_is_one_of_the_log_and_no_commit(catalog, power):
    before = catalog._redo.committed
    await make(catalog, b"a")
    await catalog.sync()
    await make(catalog, b"b")
    assert catalog._redo.committed == before
    with power.cut() as after:
        assert await listed(after) == {b"a"}


@pytest.mark.parametrize("wal", [False, True], ids=["wal lost", "wal kept"])
async def test_a_power_cut_takes_nothing_that_was_synced(small_log, catalog, power, wal):
    """Around the ring many times, with commits that nobody synced, and some that do not fit."""
    for number in range(500):
        await make(catalog, b"%d" % number)
        if number % 7 == 2:
            await catalog.commit()
        if number % 100 == 51:
            await grow(catalog)
        if number % 3:
            continue
        await catalog.sync()
        if number % 10 == 3:
            with power.cut(wal=wal) as after:
                assert await listed(after) == await listed(catalog)
    assert 5 < power.wal_syncs < 100


async def test_a_record_is_not_taken_without_the_one_before_it(catalog, power, tmp_path):
    ends = []
    for name in b"a", b"b", b"c":
        await make(catalog, name)
        await catalog.sync()
        ends.append(catalog._redo.end)
    spoil(tmp_path / "c" / redo.SYNCED, ends[1] - 1)
    with power.cut() as after:
        assert await listed(after) == {b"a"}


async def test_what_the_log_lost_before_it_was_synced_is_synced_by_the_wal(
    small_log, catalog, power
):
    for number in range(200):
        await make(catalog, b"%d" % number)
        if number % 20 == 0:
            await catalog.commit()
    assert not catalog._redo.whole
    await catalog.sync()
    assert catalog._redo.whole
    with power.cut() as after:
        assert await listed(after) == await listed(catalog)


@pytest.mark.expect_log("cannot be synced")
async def test_a_log_that_cannot_be_synced_is_not_trusted(catalog, power, monkeypatch):
    await make(catalog, b"a")
    with monkeypatch.context() as patched:
        patched.setattr(redo.RedoLog, "_write", fails_to_write)
        await catalog.sync()
    assert catalog.durable == catalog.commits
    assert catalog._redo.anchored == catalog._redo.end
    await make(catalog, b"b")
    await catalog.sync()
    with power.cut() as after:
        assert await listed(after) == {b"a", b"b"}


def fails_to_write(self, place, data):
    raise OSError(errno.EIO, "the page is lost")


# What is undone


async def test_a_failed_transaction_leaves_those_before_it(catalog):
    await make(catalog, b"a")
    with contextlib.suppress(ZeroDivisionError):
        async with catalog.write():
            catalog.names.create(ROOT, b"b", FILE, 0, 0, 1)
            raise ZeroDivisionError
    assert await listed(catalog) == {b"a"}
    await make(catalog, b"c")
    await catalog.sync()
    assert await listed(catalog) == {b"a", b"c"}


async def test_a_record_of_a_failed_transaction_is_not_in_the_chain(catalog):
    log = catalog.audit
    for fails in (False, True, False):
        with contextlib.suppress(ZeroDivisionError):
            async with catalog.write():
                head = log.append(1, "file.deleted", "m\u00fcller", '/"a"\n', "done", {"ino": 5})
                1 / (not fails)
    assert (head, head.seq) == (log.head(), 2)
    before = GENESIS
    for record in log.after(0):
        text = json.dumps([before.hex(), *record[:-1]], separators=(",", ":"))
        before = hashlib.sha256(text.encode()).digest()
        assert record.hash == before
    assert head.hash == before


@pytest.mark.parametrize("disk", ["busy", "idle"])
async def test_a_commit_that_fails_loses_nothing(catalog, tmp_path, monkeypatch, request, disk):
    request.getfixturevalue(disk)
    await make(catalog, b"a")

    def fails(place):
        catalog.db.control("ROLLBACK")  # as SQLite does
        raise apsw.FullError("disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(catalog, "_end_transaction", fails)
        with pytest.raises(apsw.FullError):
            await catalog.commit()
    assert await listed(catalog) == {b"a"}
    await make(catalog, b"b")
    with killed(tmp_path) as after:
        assert await listed(after) == {b"a", b"b"}
    await catalog.sync()
    assert catalog.durable == catalog.commits


# Who commits


async def test_readers_see_what_was_acknowledged(catalog):
    await make(catalog, b"a")
    assert await catalog.read(lambda reports: reports.by_state())


async def test_many_are_committed_together(catalog, idle, monkeypatch):
    held = Held(catalog, monkeypatch)
    held.let_go.set()
    for number in range(2 * module.TOGETHER + 1):
        await make(catalog, b"%d" % number)
    assert held.threads == [threading.current_thread().name] * 2


async def test_a_busy_disk_has_its_commits_in_a_thread(catalog, busy, monkeypatch):
    held = Held(catalog, monkeypatch)
    await make(catalog, b"a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(catalog.commit)
        nursery.start_soon(make, catalog, b"b")
        with trio.fail_after(30):
            while not held.began.is_set():  # noqa: ASYNC110 - a thread sets it
                await trio.sleep(0.001)
        assert catalog.committing
        held.let_go.set()
    assert not catalog.committing
    assert held.threads == ["committer"]
    assert await listed(catalog) == {b"a", b"b"}


async def test_a_query_meanwhile_sees_the_whole_commit(catalog, busy, monkeypatch):
    held = Held(catalog, monkeypatch)
    await make(catalog, b"a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(catalog.commit)
        with trio.fail_after(30):
            while not catalog.committing:
                await trio.lowlevel.checkpoint()
        threading.Timer(0.01, held.let_go.set).start()
        assert catalog.names.lookup(ROOT, b"a") is not None


async def test_leaving_is_not_cancelled(catalog, busy):
    with trio.CancelScope() as scope:
        async with catalog.write():
            scope.cancel()
            attr = catalog.names.create(ROOT, b"a", FILE, 0, 0, 1)
    assert catalog.names.lookup(ROOT, b"a") == attr
    assert not scope.cancelled_caught


async def test_a_checkpoint_takes_all_in(catalog, busy):
    async with trio.open_nursery() as nursery:
        for n in range(20):
            nursery.start_soon(make, catalog, b"%d" % n)
        nursery.start_soon(catalog.checkpoint)
    assert len(await listed(catalog)) == 20
    assert await catalog.checkpoint()


@pytest.mark.parametrize("point", ["catalog.noted", "catalog.commit.begun", "catalog.commit.done"])
def test_a_catalog_whose_making_was_killed_is_finished(tmp_path, point):
    make = "import sys, pathlib as p; from hsmfs.catalog.catalog import Catalog as c;"
    make += "c.create(p.Path(sys.argv[1]))"
    died = subprocess.run(
        [sys.executable, "-c", make, tmp_path / "state"],
        env={**os.environ, "HSMFS_CRASH": point}, check=False,
    )  # fmt: skip
    assert died.returncode == -signal.SIGKILL
    with contextlib.suppress(CatalogInUse):  # what was committed is whole
        Catalog.create(tmp_path / "state").close()
    opened = Catalog.open(tmp_path / "state")
    assert opened.inodes.get_raw(ROOT).is_dir
    opened.close()


# Who writes what a sync syncs


@pytest.mark.parametrize("disk", ["busy", "idle"])
async def test_a_busy_disk_has_its_log_written_by_a_thread(catalog, monkeypatch, request, disk):
    request.getfixturevalue(disk)
    wrote, write = [], redo.RedoLog._write

    def noted(log, place, data):
        wrote.append(threading.current_thread() is threading.main_thread())
        write(log, place, data)

    monkeypatch.setattr(redo.RedoLog, "_write", noted)
    await make(catalog, b"a")
    await catalog.sync()
    assert wrote == [disk == "idle"]
    assert catalog.durable == catalog.commits
