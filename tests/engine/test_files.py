"""Bytes, versions, ranges and what survives a crash."""

from __future__ import annotations

import errno
import os

import pytest
import trio
import trio.testing

from hsmfs import durable
from hsmfs.errors import Conflict, PoolFull, RecallFailed
from hsmfs.states import FileState
from hsmfs.types import ROOT, Digest, Range, Requester

WHO = Requester()
SIZE = 200_000


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
    state = world.catalog.inodes.get_raw(ino).state
    assert state == FileState.RESIDENT, "no disc has it whole: it goes to one anew"
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
