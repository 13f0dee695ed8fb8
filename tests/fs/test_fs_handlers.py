"""Handlers without a kernel: what a mount cannot be made to ask, or not on purpose."""

import errno
import os
import stat
from pathlib import Path

import pytest
import trio
import trio.testing
from pyfuse3 import FUSEError

from hsmfs.catalog.reports import Reports
from hsmfs.errors import Conflict, RecallTimeout
from hsmfs.fs import attributes, core, requester
from hsmfs.fs.guard import guarded
from hsmfs.states import FileState
from hsmfs.types import ROOT, Range, Requester

FILE = stat.S_IFREG | 0o666


async def refused(number, awaitable):
    with pytest.raises(FUSEError) as caught:
        await awaitable
    assert errno.errorcode[caught.value.errno] == errno.errorcode[number]


async def create(world, name, flags=os.O_RDWR, parent=ROOT):
    info, entry = await world.operations.create(parent, name, FILE, flags, world.caller())
    return info.fh, entry.st_ino


async def test_dot_and_dot_dot_of_any_inode(world):
    ops, who = world.operations, world.caller()
    folder = (await ops.mkdir(ROOT, b"d", 0o755, who)).st_ino
    _, ino = await create(world, b"f", parent=folder)
    assert (await ops.lookup(ino, b".", who)).st_ino == ino
    assert (await ops.lookup(ino, b"..", who)).st_ino == folder
    assert (await ops.lookup(folder, b"..", who)).st_ino == ROOT
    assert (await ops.lookup(ROOT, b"..", who)).st_ino == ROOT


async def test_dead_inodes_are_stale(world):
    await refused(errno.ESTALE, world.operations.lookup(999, b".", world.caller()))
    await refused(errno.ESTALE, world.operations.getattr(999, world.caller()))


async def test_a_file_in_the_trash_is_not_reachable_by_number(keeping):
    ops, who = keeping.operations, keeping.caller()
    fh, ino = await create(keeping, b"f")
    await ops.release(fh)
    await ops.unlink(ROOT, b"f", who)
    assert (await ops.lookup(ino, b".", who)).st_nlink == 0
    ops.forget([(ino, 2)])
    await refused(errno.ESTALE, ops.lookup(ino, b".", who))
    assert keeping.catalog.trash.get(ino).name == b"f"


async def test_inodes_are_counted_once_and_then_what_is_made_and_deleted(world, monkeypatch):
    ops, catalog, counts = world.operations, world.catalog, []
    real = Reports.inode_count
    monkeypatch.setattr(attributes, "_STATFS_SECONDS", -1.0)
    monkeypatch.setattr(
        Reports, "inode_count", lambda *args: counts.append(real(*args)) or counts[-1]
    )

    async def used() -> int:
        found = await ops.statfs(world.caller())
        return found.f_files - found.f_ffree

    await create(world, b"f")
    assert await used() == 2
    _, ino = await create(world, b"g")
    assert await used() == 3
    async with catalog.write():
        catalog.names.unlink(ROOT, b"g", 1)
        catalog.inodes.delete([ino])
    assert (await used(), counts) == (2, [2])

    async def fail() -> None:
        async with catalog.write():
            catalog.names.create(ROOT, b"h", FILE, 0, 0, 1)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert (await used(), counts) == (2, [2, 2])


async def test_long_names(world):
    who, ops = world.caller(), world.operations
    await refused(errno.ENAMETOOLONG, ops.lookup(ROOT, b"x" * 256, who))
    await refused(errno.ENAMETOOLONG, create(world, b"x" * 256))
    await create(world, b"x" * 255)


async def test_truncating_a_stub_at_open_recalls_nothing(world):
    ino = await world.stub(b"s", b"x" * 100_000)
    asked = world.wait_for_arrival()
    info = await world.operations.open(ino, os.O_RDWR | os.O_TRUNC, world.caller())
    assert asked == []
    assert not info.direct_io
    assert world.files.attr(ino).size == 0
    assert world.files.attr(ino).state == FileState.RESIDENT
    await world.operations.release(info.fh)


async def test_truncating_at_open_takes_set_id_bits_away(world):
    _, ino = await create(world, b"f")
    attr = world.files.attr(ino)
    await world.files.setattr(ino, attr._replace(mode=stat.S_IFREG | 0o6777))
    await world.operations.open(ino, os.O_WRONLY | os.O_TRUNC, world.caller(uid=7, gid=7))
    assert stat.S_IMODE(world.files.attr(ino).mode) == 0o777


async def test_stubs_are_opened_direct_and_resident_files_are_cached(world):
    stub = await world.operations.open(await world.stub(b"s", b"x"), os.O_RDONLY, world.caller())
    assert stub.direct_io
    _, ino = await create(world, b"f")
    plain = await world.operations.open(ino, os.O_RDONLY, world.caller())
    assert plain.keep_cache
    assert not plain.direct_io


async def test_a_stub_without_a_byte_on_disk_is_no_hole(world):
    """tar --sparse reads nothing of a file that has no blocks."""
    ino = await world.stub(b"s", b"x" * 100)
    assert world.files.attr(ino).blocks == 0
    assert (await world.operations.getattr(ino, world.caller())).st_blocks == 1
    assert (await world.operations.lookup(ROOT, b"s", world.caller())).st_blocks == 1
    _, empty = await create(world, b"f")
    assert (await world.operations.getattr(empty, world.caller())).st_blocks == 0


async def test_nfsd_is_not_made_to_wait(world):
    ino = await world.stub(b"s", b"x" * 10)
    asked = world.wait_for_arrival()
    info = await world.operations.open(ino, os.O_RDONLY, world.caller())
    world.operations.handles.files[info.fh].who = Requester(1, 0, 0, "nfsd", True)
    await refused(errno.EAGAIN, world.operations.read(info.fh, 0, 10))
    assert asked == []


@pytest.mark.expect_log("request failed.*too slow")
async def test_errors_of_a_recall_reach_the_reader(world):
    async def late(ino, wanted, who):
        raise RecallTimeout("too slow")

    world.files.wait_for = late
    info = await world.operations.open(await world.stub(b"s", b"x"), os.O_RDONLY, world.caller())
    await refused(errno.EIO, world.operations.read(info.fh, 0, 1))


async def test_waits_are_ended_with_an_answer(world):
    world.wait_for_arrival()
    info = await world.operations.open(await world.stub(b"s", b"x"), os.O_RDONLY, world.caller())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused, errno.EIO, world.operations.read(info.fh, 0, 1))
        await trio.testing.wait_all_tasks_blocked()
        world.operations.waits.end()
    await refused(errno.EIO, world.operations.read(info.fh, 0, 1))


@guarded
async def handler(fault):
    raise fault


@pytest.mark.expect_log("fault of hsmfs")
@pytest.mark.parametrize("fault", [KeyError("x"), MemoryError(), ExceptionGroup("g", [OSError()])])
async def test_no_fault_passes_the_guard(fault):
    await refused(errno.EIO, handler(fault))


@pytest.mark.expect_log("request failed")
async def test_errors_keep_their_number():
    await refused(errno.EBUSY, handler(Conflict("busy")))
    await refused(errno.EFBIG, handler(OSError(errno.EFBIG, "")))
    await refused(errno.EROFS, handler(OSError(errno.EROFS, "")))


async def test_cancelled_is_answered():
    @guarded
    async def sleeper():
        await trio.sleep_forever()

    with trio.CancelScope() as scope:
        scope.cancel()
        await refused(errno.ETIMEDOUT, sleeper())


async def test_the_last_user_lets_an_unlinked_inode_go(world):
    ops, who = world.operations, world.caller()
    fh, ino = await create(world, b"f")
    await ops.write(fh, 0, b"bytes")
    path = Path(world.pool.path_of(ino))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ops.lookups.run)
        await ops.unlink(ROOT, b"f", who)
        await trio.testing.wait_all_tasks_blocked()
        ops.forget([(ino, 1)])
        await trio.testing.wait_all_tasks_blocked()
        assert path.exists()
        assert bytes(await ops.read(fh, 0, 10)) == b"bytes"
        await ops.release(fh)
        with trio.fail_after(30):
            while path.exists():  # noqa: ASYNC110 - a thread removes it
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert world.files.attr(ino) is None


async def test_replaced_by_rename_goes_to_the_trash(keeping):
    ops, who = keeping.operations, keeping.caller()
    _, old = await create(keeping, b"old")
    _, new = await create(keeping, b"new")
    await ops.rename(ROOT, b"new", ROOT, b"old", 0, who)
    assert keeping.at(b"/old").ino == new
    assert keeping.catalog.trash.get(old).name == b"old"


async def test_atime_moves_once_after_a_change(world):
    fh, ino = await create(world, b"f")
    await world.operations.write(fh, 0, b"x")
    await world.operations.read(fh, 0, 1)
    first = world.files.attr(ino).atime_ns
    assert first >= world.files.attr(ino).mtime_ns
    again = await world.operations.open(ino, os.O_RDONLY, world.caller())
    await world.operations.read(again.fh, 0, 1)
    assert world.files.attr(ino).atime_ns == first


async def test_group_and_set_group_id_come_from_the_folder(world):
    ops = world.operations
    folder = (await ops.mkdir(ROOT, b"d", 0o755, world.caller())).st_ino
    attr = world.files.attr(folder)
    async with world.catalog.write():
        await world.files.setattr(folder, attr._replace(gid=55, mode=attr.mode | stat.S_ISGID))
    inner = await ops.mkdir(folder, b"e", 0o777, world.caller(uid=7, gid=7))
    assert (inner.st_uid, inner.st_gid) == (7, 55)
    assert inner.st_mode == stat.S_IFDIR | stat.S_ISGID | 0o755


async def test_xattr_limits(world):
    ops, who = world.operations, world.caller()
    _, ino = await create(world, b"f")
    await refused(errno.E2BIG, ops.setxattr(ino, b"user.a", b"x" * 65_537, who))
    await refused(errno.ERANGE, ops.setxattr(ino, b"user." + b"a" * 251, b"", who))
    await refused(errno.EOPNOTSUPP, ops.setxattr(ino, b"system.other", b"", who))
    await refused(errno.ENODATA, ops.removexattr(ino, b"user.a", who))
    for i in range(258):
        await ops.setxattr(ino, b"user.%0244d%04d" % (0, i), b"", who)
    await refused(errno.ENOSPC, ops.setxattr(ino, b"user.b", b"", who))


async def test_state_can_be_asked_and_is_not_listed(world):
    ops, who = world.operations, world.caller()
    ino = await world.stub(b"s", b"x")
    assert await ops.getxattr(ino, b"user.hsm.state", who) == b"migrated"
    assert list(await ops.listxattr(ino, who)) == []
    await refused(errno.ENODATA, ops.getxattr(ROOT, b"user.hsm.state", who))
    await refused(errno.EPERM, ops.setxattr(ino, b"user.hsm.state", b"resident", who))


async def test_orders_reach_the_engine(world):
    orders = []

    class Engine:
        async def recall(self, ino, who):
            orders.append(("recall", ino))

        async def pin(self, ino, pinned, who):
            orders.append(("pin", ino, pinned))

        async def why(self, ino):
            return {"state": "migrated", "seconds": 90}

    ops, who = world.operations, world.caller()
    ops.control = Engine()
    ino = await world.stub(b"s", b"x")
    await ops.setxattr(ino, b"user.hsm.recall", b"1", who)
    await ops.setxattr(ino, b"user.hsm.pin", b"0", who)
    for order in (b"recall", b"release", b"pin"):
        await refused(
            errno.EPERM, ops.setxattr(ino, b"user.hsm." + order, b"1", world.caller(uid=65534))
        )
    assert orders == [("recall", ino), ("pin", ino, False)]
    assert await ops.getxattr(ino, b"user.hsm.why", who) == b'{"state":"migrated","seconds":90}'


async def test_chmod_changes_the_acl_and_the_acl_the_mode(world):
    ops, who = world.operations, world.caller()
    _, ino = await create(world, b"f")
    entries = ((1, 6, 0), (2, 7, 1000), (4, 0, 0), (16, 7, 0), (32, 0, 0))
    value = core.Acl(entries).value()
    await ops.setxattr(ino, core.ACCESS, value, who)
    assert stat.S_IMODE(world.files.attr(ino).mode) == 0o670
    attr = world.files.attr(ino)
    async with world.catalog.write():
        await ops._apply(attr, {"mode": 0o640}, who)
    acl = core.Acl.parse(await ops.getxattr(ino, core.ACCESS, who))
    assert acl.bits(16) == 4
    await ops.setxattr(ino, core.ACCESS, core.Acl(((1, 6, 0), (4, 4, 0), (32, 4, 0))).value(), who)
    await refused(errno.ENODATA, ops.getxattr(ino, core.ACCESS, who))


async def test_bytes_overlap_of_a_partial_file(world):
    ino = await world.stub(b"s", b"x" * 8192)
    await world.arrive(ino, 0, b"a" * 4096)
    assert world.catalog.inodes.absent(ino) == [Range(4096, 8192)]
    info = await world.operations.open(ino, os.O_RDONLY, world.caller())
    assert bytes(await world.operations.read(info.fh, 0, 4096)) == b"a" * 4096


async def test_who_asks(world):
    who = requester.requester(world.caller(uid=3, gid=4))
    assert who.process == Path("/proc/self/comm").read_text().strip()
    assert (who.uid, who.gid, who.nfs) == (3, 4, False)


def test_the_client_of_a_samba_process_is_looked_up_once(monkeypatch):
    asked, began = [], [b"1"]
    stat_line = b"7 (smbd) " + b"0 " * 19
    monkeypatch.setattr(requester, "peer_of", lambda pid: asked.append(pid) or "10.0.0.1")
    monkeypatch.setattr(requester, "_told", lambda pid, file: stat_line + began[0] + b" 0")
    assert [requester._client(7) for _ in range(3)] == ["10.0.0.1"] * 3
    assert asked == [7]
    began[0] = b"2"  # the number is another process's now
    requester._client(7)
    assert asked == [7, 7]
    requester._clients.clear()
