"""Bytes of files while something fails or comes in between: a disk, a transaction, a hold."""

from __future__ import annotations

import contextlib
import errno
import os

import pytest
import trio
import trio.testing

from hsmfs.engine.events import Events
from hsmfs.engine.finish import Finisher
from hsmfs.errors import HsmError, PoolFull, PosixError, RecallFailed
from hsmfs.states import Lock
from hsmfs.types import ROOT, Digest, Range, Requester

WHO = Requester()
SIZE = 200_000


async def test_a_file_whose_pool_is_gone_keeps_no_other_from_being_noted(world, monkeypatch):
    lives = [await world.create(name, b"x") for name in (b"one", b"two")]
    stale, fstat = lives[0].fd, os.fstat

    def gone(fd):
        if fd == stale:
            raise OSError(errno.ESTALE, "stale")
        return fstat(fd)

    monkeypatch.setattr(os, "fstat", gone)
    assert world.files.attr(lives[0].ino).size == 1
    for live in lives:
        world.files.close(live, write=True)
    assert await world.files.flush_closed() == 2
    assert all(world.catalog.inodes.get_raw(live.ino).size == 1 for live in lives)


@pytest.mark.parametrize("change", ["write", "cut"])
async def test_what_waits_while_its_file_is_held_changes_nothing(world, change):
    ino = await world.archived(b"x" * 100)
    live = world.files.open(ino, write=True)
    refused = []

    async def late():
        try:
            if change == "write":
                await world.files.write(live, 0, b"y")
            else:
                await world.files.truncate(live, 0)
        except PosixError as fault:
            refused.append(fault.number)

    async with trio.open_nursery() as nursery, live.lock:
        nursery.start_soon(late)
        await trio.testing.wait_all_tasks_blocked()
        async with world.catalog.write():
            world.files.lock(ino, Lock.HELD)
    assert refused == [errno.EPERM]
    assert await world.files.read(live, 0, 999, WHO) == b"x" * 100
    assert live.sealed


@pytest.mark.parametrize("size", [4001, 2 << 20])
async def test_bytes_of_a_write_that_failed_half_way_are_never_shown(world, monkeypatch, size):
    live = await world.create(data=b"a")
    real = os.pwrite

    def pwrite(fd, data, offset):
        if len(data) < size:
            raise OSError(errno.ENOSPC, "full")
        return real(fd, data[: size - 1], offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(PoolFull):
        await world.files.write(live, 1, b"b" * size)
    monkeypatch.undo()
    await world.files.write(live, 5000, b"c")
    assert await world.files.read(live, 0, 5001, WHO) == b"a" + bytes(4999) + b"c"


@pytest.mark.parametrize("lost", ["cut", "removed"])
async def test_bytes_that_only_discs_have_do_not_read_as_zeros(world, lost):
    ino = await world.archived(b"x" * SIZE)
    path = world.pool.path_of(ino)
    if lost == "cut":
        os.truncate(path, 50)
    else:
        os.unlink(path)
    live = world.files.open(ino, write=False)
    for _ in range(2):
        with pytest.raises(HsmError, match="bytes of inode"):
            await world.files.read(live, 0, 100, WHO)
    assert os.stat(path).st_size == (50 if lost == "cut" else 0), "fsck must see it"


ACTS = {
    "flush": lambda files, live: files._flush(live),
    "seal": lambda files, live: files.seal(live, live.gen, Digest(b"", (), 1)),
    "state": lambda files, live: files.premigrated(live.ino, live.attr.version),
    "lock": lambda files, live: files.lock(live.ino, 1),
    "names": lambda files, live: files.touch_links(live.attr._replace(nlink=0)),
    "ranges": lambda files, live: files._note_ranges(live),
}


@pytest.mark.parametrize("act", ACTS)
async def test_memory_goes_back_with_its_transaction(world, act):
    live = await world.create(data=b"x")
    world.files.close(live, write=True)
    before = live.attr, live.sealed, live.unflushed
    with contextlib.suppress(ZeroDivisionError):
        async with world.catalog.write():
            ACTS[act](world.files, live)
            assert before != (live.attr, live.sealed, live.unflushed)
            raise ZeroDivisionError
    assert before == (live.attr, live.sealed, live.unflushed)


async def test_a_purge_that_fails_forgets_nothing(world, monkeypatch):
    live = await world.create(data=b"x" * 100)
    world.files.close(live, write=True)
    async with world.catalog.write():
        world.catalog.names.unlink(ROOT, b"f", 1)

    def full(changes):
        raise OSError(errno.EIO, "no more")

    monkeypatch.setattr(world.catalog._redo, "append", full)
    with pytest.raises(OSError, match="no more"):
        await world.files.purge(live.ino)
    monkeypatch.undo()
    assert world.files.attr(live.ino).size == 100
    await world.files.flush_closed()
    assert world.catalog.inodes.get_raw(live.ino).size == 100


async def test_read_under_a_release_is_not_zeros(world, monkeypatch):
    data = os.urandom(SIZE)
    ino = await world.archived(data)
    live = world.files.open(ino, write=False)
    real, reads = os.pread, []

    def pread(fd, size, offset):
        if size == 10 and not reads:  # not the look at the disks' requests, on the loop
            reads.append(1)
            trio.from_thread.run(lambda: world.files.release(live, 0, even_open=True))
        return real(fd, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    with pytest.raises(RecallFailed):
        await world.files.read(live, 100_000, 10, WHO)


async def test_bytes_that_a_failed_sync_may_have_lost_are_recalled_again(world, monkeypatch):
    """The kernel tells of it once: the next fdatasync succeeds without them."""
    ino = await world.stub(b"x" * SIZE)
    live = world.files.hold(ino)
    await world.files.fill(live, 1, 0, b"x" * SIZE)

    def fdatasync(fd):
        raise OSError(errno.EIO, "lost")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fdatasync)
        with pytest.raises(OSError, match="lost"):
            await world.files.save_ranges(live)
    await world.files.save_ranges(live)
    assert live.absent == world.catalog.inodes.absent(ino) == [Range(4096, SIZE)]


@pytest.mark.expect_log("not released")
async def test_a_release_that_a_pool_refuses_stops_no_other(world):
    events, tried = Events(), []

    async def release(ino, who):
        tried.append(ino)
        raise OSError(errno.EIO, "bad sector")

    finisher = Finisher(world.catalog, world.files, events)
    finisher.release = release
    await finisher.release_all([1, 2])
    assert tried == [1, 2]
    assert [event.fields["error"] for event in events.since(0)] == ["[Errno 5] bad sector"] * 2
