"""Commits that a thread makes while the disks are busy."""

from __future__ import annotations

import stat
import threading

import apsw
import pytest
import trio
import trio.testing

from hsmfs import pressure
from hsmfs.catalog.catalog import Catalog
from hsmfs.types import ROOT

FILE = stat.S_IFREG | 0o644


class Held:
    """Holds the catalog's commits until `let_go`; notes which threads make them."""

    def __init__(self, catalog, monkeypatch):
        self.threads, self.began, self.let_go = [], threading.Event(), threading.Event()
        commit = catalog.db.commit

        def held():
            self.threads.append(threading.current_thread().name)
            self.began.set()
            assert self.let_go.wait(30)
            commit()

        monkeypatch.setattr(catalog.db, "commit", held)


@pytest.fixture
async def catalog(tmp_path):
    catalog = Catalog.create(tmp_path)
    yield catalog
    catalog.close()


@pytest.fixture
def busy(monkeypatch):
    monkeypatch.setattr(pressure.DISK, "busy", lambda: True)


async def make(catalog, name):
    async with catalog.write(aside=True):
        return catalog.names.create(ROOT, name, FILE, 0, 0, 1)


async def test_a_busy_disk_has_its_commits_in_a_thread(catalog, busy, monkeypatch):
    held = Held(catalog, monkeypatch)
    ran = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(make, catalog, b"a")
        nursery.start_soon(make, catalog, b"b")
        with trio.fail_after(30):
            while not held.began.is_set():  # noqa: ASYNC110 - a thread sets it
                await trio.sleep(0.001)
        ran.append(catalog.committing)
        held.let_go.set()
    assert ran == [True] and not catalog.committing
    assert held.threads == ["committer"] * 2
    assert catalog.names.lookup(ROOT, b"a") and catalog.names.lookup(ROOT, b"b")


async def test_a_query_meanwhile_sees_the_whole_commit(catalog, busy, monkeypatch):
    held = Held(catalog, monkeypatch)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(make, catalog, b"a")
        with trio.fail_after(30):
            while not catalog.committing:
                await trio.lowlevel.checkpoint()
        threading.Timer(0.01, held.let_go.set).start()
        assert catalog.names.lookup(ROOT, b"a") is not None


async def test_leaving_is_not_cancelled(catalog, busy):
    with trio.CancelScope() as scope:
        scope.cancel()
        attr = await make(catalog, b"a")
    assert catalog.names.lookup(ROOT, b"a") == attr
    assert not scope.cancelled_caught


async def test_a_commit_that_fails_is_undone_and_told(catalog, busy, monkeypatch):
    def fails():
        raise apsw.FullError("disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(catalog.db, "commit", fails)
        with pytest.raises(apsw.FullError):
            await make(catalog, b"a")
    assert not catalog.db.in_transaction
    await make(catalog, b"b")
    assert catalog.names.lookup(ROOT, b"a") is None


async def test_a_checkpoint_waits_for_the_thread(catalog, busy):
    async with trio.open_nursery() as nursery:
        for n in range(20):
            nursery.start_soon(make, catalog, b"%d" % n)
        nursery.start_soon(catalog.checkpoint)
    assert len(catalog.names.entries(ROOT, 0, 100)) == 20


async def test_an_idle_disk_has_them_on_the_loop(catalog, monkeypatch):
    monkeypatch.setattr(pressure.DISK, "busy", lambda: False)
    held = Held(catalog, monkeypatch)
    held.let_go.set()
    await make(catalog, b"a")
    assert held.threads == [threading.current_thread().name]
