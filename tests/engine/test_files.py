"""Bytes, versions, ranges and what survives a crash."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

import pytest
import trio
import trio.testing

from hsmfs import durable
from hsmfs.catalog.catalog import Catalog
from hsmfs.engine.events import Events
from hsmfs.engine.files import Files
from hsmfs.engine.finish import Finisher
from hsmfs.errors import Conflict, PoolFull, PosixError, RecallFailed
from hsmfs.pool.pools import Pools
from hsmfs.pool.store import Pool
from hsmfs.states import FileState, Lock
from hsmfs.types import ROOT, Digest, Range, Requester

WHO = Requester()
SIZE = 200_000


class World:
    """A catalog and a pool, reopened as after a crash by `crash()`."""

    def __init__(self, path):
        self.path = path
        self.uuid = Pool.create(path / "pool")
        self.pool = Pool("p", path / "pool")
        self.catalog = Catalog.create(path / "state")

    async def start(self):
        async with self.catalog.write():
            self.pool.id = self.catalog.volumes.register_pool("p", "disk", self.uuid)
        self.files = Files(self.catalog, Pools([self.pool]))

    async def crash(self):
        self.catalog.close()
        self.catalog = Catalog.open(self.path / "state")
        await self.start()
        await self.files.recover()

    async def create(self, name=b"f", data=b""):
        async with self.catalog.write():
            attr = self.catalog.names.create(
                ROOT, name, stat.S_IFREG | 0o644, 0, 0, 1, pool=self.pool.id
            )
        self.files.born(attr)
        live = self.files.open(attr.ino, write=True)
        if data:
            await self.files.write(live, 0, data)
        return live

    async def archived(self, data, name=b"f"):
        """A closed, sealed and premigrated file; its copy is only claimed."""
        live = await self.create(name, data)
        self.files.close(live, write=True)
        await self.files.flush_closed()
        async with self.catalog.write():
            digest = Digest(b"\0" * 32, (b"\0" * 32,), len(data))
            self.catalog.copies.set_digest(live.ino, live.attr.version, digest)
            self.catalog.inodes.set_state(live.ino, FileState.PREMIGRATED)
        return live.ino

    async def stub(self, data, head=4096):
        ino = await self.archived(data)
        live = self.files.hold(ino)
        assert await self.files.release(live, head) > 0
        self.files.drop(live)
        return ino


@pytest.fixture
async def world(tmp_path):
    world = World(tmp_path)
    await world.start()
    yield world
    world.catalog.close()


async def test_read_back_and_flush(world):
    live = await world.create(data=b"abc")
    await world.files.write(live, 5, b"x")
    assert bytes(world.files.read_now(live, 0, 10)) == b"abc\0\0x"
    assert await world.files.read(live, 4, 10, WHO) == b"\0x"
    world.files.close(live, write=True)
    await world.files.flush_closed()
    assert world.files.live(live.ino) is None
    attr = world.catalog.inodes.get_raw(live.ino)
    assert (attr.size, attr.dirty, attr.blocks > 0) == (6, 0, True)


async def test_what_was_written_survives_a_crash(world):
    live = await world.create(data=b"a" * 5000)
    await world.files.truncate(live, 3000)
    await world.files.write(live, 4000, b"b")
    await world.crash()
    assert world.files.attr(live.ino).size == 4001
    again = world.files.open(live.ino, write=False)
    want = b"a" * 3000 + b"\0" * 1000 + b"b"
    assert await world.files.read(again, 0, 9999, WHO) == want


async def test_fsync_by_another_handle_syncs_what_a_closed_one_wrote(world, monkeypatch):
    live = await world.create(data=b"x")
    world.files.close(live, write=True)
    await world.files.flush_closed()
    synced, flushed = [], durable.flushed

    async def noted(fd, **kwargs):
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        await flushed(fd, **kwargs)

    monkeypatch.setattr(durable, "flushed", noted)
    again = world.files.open(live.ino, write=False)
    assert again.fd < 0
    await world.files.fsync(again)
    assert str(world.pool.path_of(live.ino)) in synced


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


async def test_mtime_set_while_dirty_survives_a_crash(world):
    live = await world.create(data=b"a")
    await world.files.stamp(live.ino, 123_000_000_007)
    await world.files.setattr(live.ino, live.attr._replace(mtime_ns=123_000_000_007))
    await world.crash()
    assert world.files.attr(live.ino).mtime_ns == 123_000_000_007


async def test_clean_row_heals_the_pool_file(world):
    live = await world.create(data=b"a" * 100)
    world.files.close(live, write=True)
    await world.files.flush_closed()
    path = world.pool.path_of(live.ino)
    for size in (50, 500):
        os.truncate(path, size)
        again = world.files.open(live.ino, write=False)
        assert len(await world.files.read(again, 0, 999, WHO)) == 100
        world.files.close(again, write=False)


async def test_release_keeps_the_head_and_survives(world):
    data = os.urandom(SIZE)
    ino = await world.stub(data)
    assert world.catalog.inodes.absent(ino) == [Range(4096, SIZE)]
    assert world.files.attr(ino).blocks * 512 <= 8192
    await world.crash()
    live = world.files.open(ino, write=False)
    assert await world.files.read(live, 0, 4096, WHO) == data[:4096]
    with pytest.raises(RecallFailed):
        await world.files.read(live, 0, 4097, WHO)


@pytest.mark.parametrize("case", ["open", "pinned", "resident"])
async def test_release_refuses(world, case):
    ino = await world.archived(b"x" * SIZE)
    live = world.files.hold(ino)
    if case == "open":
        world.files.open(ino, write=False)
    elif case == "pinned":
        live.attr = live.attr._replace(pinned=True)
    else:
        live.sealed = False
    with pytest.raises(Conflict):
        await world.files.release(live, 0)
    assert live.absent == []


async def test_fill_wakes_readers_and_saves(world):
    data = os.urandom(SIZE)
    ino = await world.stub(data)
    live = world.files.open(ino, write=False)

    async def wait(ino, wanted, who):
        await live.arrived.wait()

    world.files.wait_for = wait
    got = []

    async def reader():
        got.append(await world.files.read(live, 100_000, 50, WHO))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader)
        await trio.testing.wait_all_tasks_blocked()
        assert await world.files.fill(live, live.attr.version, 0, data[:150_000])
    assert got == [data[100_000:100_050]]
    assert not await world.files.fill(live, live.attr.version + 1, 0, data)
    assert await world.files.fill(live, live.attr.version, 0, data)
    await world.files.save_ranges(live)
    assert world.catalog.inodes.get_raw(ino).state == FileState.PREMIGRATED
    await world.crash()
    again = world.files.open(ino, write=False)
    assert await world.files.read(again, 0, SIZE, WHO) == data


async def test_release_of_shared_bytes_is_refused(world):
    ino = await world.archived(b"x" * SIZE)
    os.link(world.pool.path_of(ino), world.path / "outside")
    live = world.files.hold(ino)
    with pytest.raises(Conflict, match="outside"):
        await world.files.release(live, 0)
    assert (world.path / "outside").read_bytes() == b"x" * SIZE


async def test_release_leaves_no_block_but_the_head(world):
    ino = await world.archived(b"x" * SIZE)
    live = world.files.hold(ino)
    await world.files.release(live, 0)
    assert world.files.attr(ino).blocks == 0


async def test_unsaved_fill_is_recalled_again(world):
    ino = await world.stub(b"x" * SIZE)
    live = world.files.hold(ino)
    await world.files.fill(live, live.attr.version, 0, b"x" * SIZE)
    await world.crash()
    assert world.catalog.inodes.absent(ino) == [Range(4096, SIZE)]


async def test_overwrite_of_a_stub_recalls_nothing(world):
    data = os.urandom(SIZE)
    ino = await world.stub(data)
    live = world.files.open(ino, write=True)
    await world.files.write(live, 50_001, b"new")
    attr = world.files.attr(ino)
    assert (attr.version, attr.base_version, attr.state) == (2, 1, FileState.PARTIAL)
    assert live.absent == [Range(4096, 50_001), Range(50_004, SIZE)]
    assert await world.files.fill(live, 1, 0, data)
    want = data[:50_001] + b"new" + data[50_004:]
    assert await world.files.read(live, 0, SIZE, WHO) == want
    await world.files.save_ranges(live)
    assert world.catalog.inodes.get_raw(ino).state == FileState.RESIDENT


async def test_truncate_of_a_stub_recalls_nothing(world):
    data = os.urandom(SIZE)
    ino = await world.stub(data)
    live = world.files.open(ino, write=True)
    await world.files.truncate(live, 10_000)
    assert live.absent == [Range(4096, 10_000)]
    await world.files.truncate(live, 20_000)
    assert await world.files.read(live, 10_000, 99_999, WHO) == b"\0" * 10_000
    await world.files.truncate(live, 0)
    assert (live.absent, live.attr.state) == ([], FileState.RESIDENT)
    await world.crash()
    assert world.files.attr(ino).size == 0
    assert world.catalog.inodes.absent(ino) == []


async def test_write_to_a_sealed_file_is_a_new_version(world):
    ino = await world.archived(b"x" * 100)
    live = world.files.open(ino, write=True)
    assert live.sealed
    await world.files.write(live, 0, b"y")
    attr = world.catalog.inodes.get_raw(ino)
    assert (attr.version, attr.state, live.sealed) == (2, FileState.RESIDENT, False)
    assert world.catalog.durable == world.catalog.commits


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


async def test_full_pool_makes_room_once(world, monkeypatch):
    live = await world.create()
    asked = []

    async def make_room(need):
        asked.append(need)
        return len(asked) == 2

    world.files.make_room = make_room
    real = os.pwrite
    full = [True]

    def pwrite(fd, data, offset):
        if full[0]:
            full[0] = len(asked) < 1
            raise OSError(errno.ENOSPC, "full")
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(PoolFull) as fault:
        await world.files.write(live, 0, b"abc")
    assert fault.value.errno == errno.ENOSPC
    full[0] = True
    assert await world.files.write(live, 0, b"abc") == 3
    assert live.attr.size == 3


async def forget_pool(world, ino):
    """As after a rebuild from discs: no bytes on disk, so no pool has them."""
    async with world.catalog.write():
        world.catalog.inodes.set_pool(ino, None)


@pytest.mark.parametrize("size", [0, SIZE], ids=["empty", "stub"])
async def test_what_is_written_to_a_file_without_a_pool_survives_a_crash(world, size):
    ino = await world.archived(b"a" * size)
    world.pool.remove(ino)
    await forget_pool(world, ino)
    if size:
        async with world.catalog.write():
            world.catalog.inodes.set_absent(ino, [Range(0, size)])
            world.catalog.inodes.set_state(ino, FileState.MIGRATED)
    live = world.files.open(ino, write=True)
    await world.files.write(live, size, b"new bytes")
    await world.files.fsync(live)
    await world.crash()
    live = world.files.open(ino, write=False)
    assert live.attr.size == size + 9
    assert await world.files.read(live, size, 9, WHO) == b"new bytes"


async def test_purge_finds_what_came_in_for_a_file_without_a_pool(world):
    ino = await world.stub(b"a" * SIZE, head=0)
    world.pool.remove(ino)
    await forget_pool(world, ino)
    live = world.files.hold(ino)
    assert await world.files.fill(live, live.attr.version, 0, b"a" * SIZE)
    await world.files.save_ranges(live)
    await world.crash()
    assert world.catalog.inodes.get_raw(ino).pool == world.pool.id
    async with world.catalog.write():
        world.catalog.names.unlink(ROOT, b"f", 1)
    await world.files.purge(ino)
    assert list(world.pool.inodes()) == []


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


async def test_purge(world):
    live = await world.create(data=b"x")
    async with world.catalog.write():
        world.catalog.names.unlink(ROOT, b"f", 1)
    with pytest.raises(Conflict):
        await world.files.purge(live.ino)
    world.files.close(live, write=True)
    await world.files.purge(live.ino)
    assert world.files.attr(live.ino) is None
    assert not os.path.exists(world.pool.path_of(live.ino))


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


async def test_seal_sees_a_race(world):
    live = await world.create(data=b"x" * 10)
    digest = Digest(b"\0" * 32, (b"\0" * 32,), 10)
    gen = world.files.begin_hash(live)
    await world.files.write(live, 0, b"y")
    async with world.catalog.write():
        assert not world.files.seal(live, gen, digest)
        assert world.files.seal(live, world.files.begin_hash(live), digest)
    await world.files.write(live, 0, b"z")
    assert (live.attr.version, live.sealed) == (2, False)


async def test_read_under_a_release_is_not_zeros(world, monkeypatch):
    data = os.urandom(SIZE)
    ino = await world.archived(data)
    live = world.files.open(ino, write=False)
    real, reads = os.pread, []

    def pread(fd, size, offset):
        if not reads:
            reads.append(1)
            trio.from_thread.run(lambda: world.files.release(live, 0, even_open=True))
        return real(fd, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    with pytest.raises(RecallFailed):
        await world.files.read(live, 100_000, 10, WHO)


@pytest.mark.parametrize("change", ["write", "truncate", "truncate a mixed one"])
async def test_what_came_in_is_durable_before_a_change_relies_on_it(world, monkeypatch, change):
    data = os.urandom(SIZE)
    ino = await world.stub(data)
    live = world.files.open(ino, write=True)
    if change == "truncate a mixed one":
        await world.files.write(live, 0, b"new")
    await world.files.fill(live, 1, 0, data)
    real, synced = durable.flushed, []

    async def flushed(fd, **how):
        await real(fd, **how)
        synced.append(fd)

    monkeypatch.setattr(durable, "flushed", flushed)
    if change == "write":
        await world.files.write(live, 0, b"new")
    else:
        await world.files.truncate(live, SIZE - 1)
    await world.catalog.sync()
    assert live.fd in synced[:1], "a power cut would leave zeros that the catalog calls data"
    await world.crash()
    assert world.catalog.inodes.absent(ino) == []


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
