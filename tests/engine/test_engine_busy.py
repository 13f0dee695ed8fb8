"""Bytes of files while the disks are busy: what may wait is done in threads."""

from __future__ import annotations

import os
import stat
import threading

import pytest
import trio
import trio.testing

from hsmfs import pressure
from hsmfs.catalog.catalog import Catalog
from hsmfs.engine import batches, residency
from hsmfs.engine.files import Files
from hsmfs.engine.residency import LARGE
from hsmfs.pool.pools import Pools
from hsmfs.pool.store import Pool
from hsmfs.types import ROOT, Digest, Requester

WHO = Requester()


class Calls:
    """Which calls of os were made on which thread."""

    def __init__(self, monkeypatch):
        self.loop = threading.current_thread()
        self.seen = []
        for name in ("open", "ftruncate", "pwrite", "close", "utime"):
            monkeypatch.setattr(os, name, self._noted(name, getattr(os, name)))

    def _noted(self, name, call):
        def noted(*args, **kwargs):
            self.seen.append((name, threading.current_thread() is self.loop))
            return call(*args, **kwargs)

        return noted

    def on_loop(self):
        return [name for name, on_loop in self.seen if on_loop]

    def beside(self):
        return [name for name, on_loop in self.seen if not on_loop]


@pytest.fixture
async def files(tmp_path, monkeypatch):
    monkeypatch.setattr(pressure.DISK, "busy", lambda: True)
    uuid = Pool.create(tmp_path / "pool")
    pool = Pool("p", tmp_path / "pool")
    catalog = Catalog.create(tmp_path / "state")
    async with catalog.write():
        pool.id = catalog.volumes.register_pool("p", "disk", uuid)
    yield Files(catalog, Pools([pool]))
    catalog.close()


async def create(files, name=b"f"):
    async with files.catalog.write():
        attr = files.catalog.names.create(
            ROOT, name, stat.S_IFREG | 0o644, 0, 0, 1, pool=files.pools.for_new().id
        )
    files.born(attr)
    return files.open(attr.ino, write=True)


async def test_nothing_is_done_on_the_loop(files, monkeypatch):
    live = await create(files)
    calls = Calls(monkeypatch)
    await files.write(live, 0, b"bytes")
    await files.stamp(live.ino, 5)
    await files.truncate(live, 2)
    assert calls.on_loop() == []
    assert list(dict.fromkeys(calls.beside())) == ["open", "pwrite", "utime", "ftruncate"]
    assert await files.read(live, 0, 9, WHO) == b"by"


async def test_two_who_open_share_a_descriptor(files, monkeypatch):
    live = await create(files)
    os.makedirs(os.path.dirname(files.pools.for_new().path_of(live.ino)))
    calls = Calls(monkeypatch)
    async with trio.open_nursery() as nursery:
        for n in range(5):
            nursery.start_soon(files.write, live, n, b"x")
    assert calls.beside().count("open") == 1
    assert await files.read(live, 0, 9, WHO) == b"xxxxx"


async def test_a_file_that_was_cut_or_is_large_is_closed_beside(files, monkeypatch):
    live = await create(files)
    await files.write(live, LARGE, b"x")
    calls = Calls(monkeypatch)
    files.close(live, write=True)
    await files.flush_closed()
    residency.CLOSER.end()
    assert "close" in calls.beside() and "close" not in calls.on_loop()


async def test_a_write_that_waited_while_the_file_was_sealed_begins_a_version(files):
    live = await create(files)
    await files.write(live, 0, b"first")
    files.close(live, write=True)
    await files.flush_closed()
    live = files.open(live.ino, write=True)
    version = live.attr.version
    assert await files.read(live, 0, 9, WHO) == b"first"
    files.catalog._gate = trio.Event()  # as a checkpoint does: writers have to wait
    async with trio.open_nursery() as nursery:
        nursery.start_soon(files.write, live, 0, b"second")
        await trio.testing.wait_all_tasks_blocked()
        digest = Digest(b"\0" * 32, (b"\0" * 32,), 5)
        files.catalog._gate.set()
        async with files.catalog.write():
            assert files.seal(live, files.begin_hash(live), digest)
    assert live.attr.version == version + 1


async def test_the_mark_of_a_truncate_is_not_taken_away(files):
    live = await create(files)
    files.close(live, write=True)
    async with live.lock:
        assert await files.flush_closed() == 0
    assert await files.flush_closed() == 1


async def test_others_get_their_turn_while_many_closed_files_are_written_down(files, monkeypatch):
    monkeypatch.setattr(batches, "BATCH_SECONDS", 0)
    lives = [await create(files, b"%d" % n) for n in range(20)]
    for live in lives:
        files.close(live, write=True)
    turns = 0
    async with trio.open_nursery() as nursery:

        async def others():
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        nursery.start_soon(others)
        assert await files.flush_closed() == len(lives)
        nursery.cancel_scope.cancel()
    assert turns >= len(lives) / 2


async def test_an_inode_in_use_stays_when_what_was_known_of_it_before_is_forgotten_late(files):
    before = await create(files)
    files.close(before, write=True)
    await files.flush_closed()
    now = files.open(before.ino, write=False)
    files._forget_if_idle(before)
    assert files.live(now.ino) is now is not before
