"""The folder of snapshots on a mount: its names and numbers, and that it cannot be written."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from calendar import timegm

import pytest
from pyfuse3 import FUSEError

from hsmfs import clock
from hsmfs.config import SnapshotsConfig
from hsmfs.engine.events import Events
from hsmfs.engine.files import Files
from hsmfs.fs import snapnumbers
from hsmfs.fs.mount import mounted
from hsmfs.fs.snapnumbers import PAST, SNAPSHOTS
from hsmfs.types import ROOT
from tests.fs.conftest import World

BEGIN = timegm((2031, 2, 11, 7, 30, 0)) * 10**9
MINUTE = 60 * 10**9
THEN = "@GMT-2031.02.11-07.31.00"


class Wall:
    """A wall clock that goes when it is told to."""

    def __init__(self) -> None:
        self.ns = BEGIN

    def now_ns(self) -> int:
        self.ns += 1000
        return self.ns

    def install(self, monkeypatch) -> None:
        """Changes of pool files bear real times, which say nothing beside this clock."""
        monkeypatch.setattr(clock, "WALL", self)
        monkeypatch.setattr(Files, "last_change_ns", lambda files, attr: None)


@pytest.fixture
def wall(monkeypatch):
    wall = Wall()
    wall.install(monkeypatch)
    return wall


@pytest.fixture
async def past(wall, tmp_path):
    """A mount with a trash and a clock."""
    world = await World(tmp_path, keep="1 d").start()
    async with mounted(world.config, world.files, Events(), world.trust) as mount:
        world.operations = mount.operations
        yield world
    world.catalog.close()


@contextlib.contextmanager
def refused(number):
    with pytest.raises(OSError) as caught:
        yield
    assert errno.errorcode[caught.value.errno] == errno.errorcode[number]


@pytest.mark.mount
async def test_the_tree_as_it_was(past, wall, call):
    top = past.mountpoint / "ct"
    await call(top.mkdir)
    await call((top / "a").write_bytes, b"deleted later")
    await call((top / "b").write_bytes, b"renamed later")
    await call((top / "link").symlink_to, "a")
    await call(os.setxattr, top / "a", "user.note", b"1")
    wall.ns = BEGIN + 2 * MINUTE
    await call((top / "a").unlink)
    await call((top / "b").rename, top / "c")
    await call((top / "b").write_bytes, b"another")
    await call((top / "link").unlink)

    snapshots = past.mountpoint / ".snapshots"
    then = snapshots / THEN / "ct"
    assert await call(os.listdir, past.mountpoint) == ["ct"]
    assert sorted(await call(os.listdir, then)) == ["a", "b", "link"]
    assert await call((then / "a").read_bytes) == b"deleted later"
    assert await call((then / "b").read_bytes) == b"renamed later"
    assert await call(os.readlink, then / "link") == "a"
    assert await call((then / "link").read_bytes) == b"deleted later"
    assert await call(os.getxattr, then / "a", "user.note") == b"1"
    assert await call(os.listxattr, then / "a") == ["user.note"]
    assert await call(os.getxattr, then / "a", "user.hsm.state") == b"resident"
    found, now = await call((then / "b").stat), await call((top / "c").stat)
    assert found.st_ino != now.st_ino
    assert (found.st_size, found.st_mtime_ns) == (now.st_size, now.st_mtime_ns)
    for other in ("c", "nothing"):
        with refused(errno.ENOENT):
            await call((then / other).stat)
    assert (await call((then / "..").stat)).st_ino == (await call(then.parent.stat)).st_ino
    assert (await call((then / "../..").stat)).st_ino == SNAPSHOTS
    assert (await call((snapshots / "..").stat)).st_ino == ROOT


@pytest.mark.mount
async def test_nothing_can_be_written(past, wall, call):
    file = past.mountpoint / "f"
    await call(file.write_bytes, b"bytes")
    wall.ns = BEGIN + 2 * MINUTE
    snapshots = past.mountpoint / ".snapshots"
    then, kept = snapshots / THEN, snapshots / THEN / "f"
    acts = [
        lambda: os.open(kept, os.O_WRONLY),
        lambda: os.open(kept, os.O_RDONLY | os.O_TRUNC),
        lambda: os.truncate(kept, 0),
        lambda: os.open(then / "new", os.O_CREAT | os.O_WRONLY),
        lambda: os.mkdir(then / "new"),
        lambda: os.mkdir(snapshots / "new"),
        lambda: os.mknod(then / "new"),
        lambda: os.symlink("x", then / "new"),
        lambda: os.link(file, then / "new"),
        lambda: os.link(kept, past.mountpoint / "new"),
        lambda: os.unlink(kept),
        lambda: os.rmdir(then),
        lambda: os.rmdir(snapshots),
        lambda: os.rename(kept, past.mountpoint / "new"),
        lambda: os.rename(file, kept),
        lambda: os.rename(snapshots, past.mountpoint / "new"),
        lambda: os.chmod(kept, 0o600),
        lambda: os.chown(kept, 1, 1),
        lambda: os.utime(kept),
        lambda: os.setxattr(kept, "user.a", b"1"),
        lambda: os.removexattr(kept, "user.a"),
        lambda: os.setxattr(kept, "user.hsm.pin", b"1"),
    ]
    for number, act in enumerate(acts):
        with pytest.raises(OSError) as caught:
            await call(act)
        assert caught.value.errno == errno.EROFS, (number, caught.value)
    with refused(errno.EEXIST):
        await call(os.mkdir, snapshots)
    assert await call(file.read_bytes) == await call(kept.read_bytes) == b"bytes"


@pytest.mark.mount
async def test_an_open_file_of_the_past_stays_what_it_was_or_fails(past, wall, call):
    file = past.mountpoint / "f"
    await call(file.write_bytes, b"1" * 300_000)
    wall.ns = BEGIN + 2 * MINUTE
    kept = past.mountpoint / ".snapshots" / THEN / "f"
    fd = await call(os.open, kept, os.O_RDONLY)
    try:
        assert await call(os.pread, fd, 10, 0) == b"1" * 10
        await call(file.write_bytes, b"2" * 300_000)
        with refused(errno.EIO):
            await call(os.pread, fd, 10, 290_000)
    finally:
        await call(os.close, fd)
    with refused(errno.EIO):
        await call(kept.read_bytes)


@pytest.mark.mount
async def test_who_may_not_read_the_file_may_not_read_what_it_was(past, wall, call):
    file = past.mountpoint / "f"
    await call(file.write_bytes, b"secret")
    wall.ns = BEGIN + 2 * MINUTE
    kept = past.mountpoint / ".snapshots" / THEN / "f"
    assert stat.S_IMODE((await call(kept.stat)).st_mode) == 0o644
    await call(file.chmod, 0o600)
    await call(os.setxattr, file, "user.a", b"1")
    attr = past.operations.must((await call(kept.stat)).st_ino)
    assert stat.S_IMODE(attr.mode) == 0o600


async def numbers(world, *names):
    """The chain of inodes from the root down."""
    found, ops = [ROOT], world.operations
    for name in names:
        found.append((await ops.lookup(found[-1], name, world.caller())).st_ino)
    return found


async def test_numbers_lead_back_without_names(wall, tmp_path):
    """As after a restart: a client of NFS has nothing but the number."""
    world = await World(tmp_path, keep="1 d").start()
    ops, who = world.operations, world.caller()
    folder = (await ops.mkdir(ROOT, b"d", 0o755, who)).st_ino
    inner = (await ops.mkdir(folder, b"e", 0o755, who)).st_ino
    wall.ns = BEGIN + 2 * MINUTE
    await ops.rename(folder, b"e", ROOT, b"e", 0, who)
    chain = await numbers(world, b".snapshots", THEN.encode(), b"d", b"e")
    assert len(set(chain)) == len(chain)
    assert all(number >= PAST for number in chain[1:])
    ops.forget([(number, 1) for number in chain[1:]])
    for number, above in zip(chain[1:], chain, strict=False):
        assert (await ops.lookup(number, b".", who)).st_ino == number
        assert (await ops.lookup(number, b"..", who)).st_ino == above
        assert (await ops.getattr(number, who)).st_ino == number
    wall.ns = BEGIN + 86_400 * 10**9 + 2 * MINUTE  # longer ago than the trash reaches
    for number in chain[2:]:
        with pytest.raises(FUSEError) as caught:
            await ops.getattr(number, who)
        assert caught.value.errno == errno.ESTALE
    assert inner < PAST
    world.catalog.close()


def test_names_and_numbers_are_worked_out_both_ways():
    assert snapnumbers.name_of(BEGIN + MINUTE) == THEN.encode()
    assert snapnumbers.time_of(THEN.encode()) == BEGIN + MINUTE
    for bad in (b"@GMT-2031.02.11-07.31.01", b"@GMT-2031.2.11-07.31.00", b"x", b"\xff",
                b"@GMT-2031.02.30-07.31.00"):  # fmt: skip
        assert snapnumbers.time_of(bad) is None
    number = snapnumbers.number(2**37 - 1, BEGIN)
    assert snapnumbers.split(number) == (2**37 - 1, BEGIN)
    assert PAST < number < 2**63
    assert snapnumbers.number(2**37, BEGIN) is None
    assert snapnumbers.number(5, timegm((2019, 12, 31, 0, 0, 0)) * 10**9) is None
    assert snapnumbers.number(5, timegm((2084, 1, 1, 0, 0, 0)) * 10**9) is None


async def test_which_times_are_listed(wall, tmp_path):
    world = await World(tmp_path, keep="3 d").start()
    wall.ns = BEGIN + 10 * 86_400 * 10**9
    snapshots = world.operations.snapshots
    snapshots._config = SnapshotsConfig(hourly=3, daily=31, listed=True)
    names = [snapnumbers.name_of(time_ns).decode()[5:] for time_ns in snapshots.times()]
    assert names == [
        "2031.02.21-07.00.00", "2031.02.21-06.00.00", "2031.02.21-05.00.00",
        "2031.02.21-00.00.00", "2031.02.20-00.00.00", "2031.02.19-00.00.00",
    ]  # fmt: skip
    page, after = await snapshots.page(SNAPSHOTS, 2, 100)
    assert after is None
    assert [name.decode()[5:] for _, name, _ in page] == names[::-1]
    assert [cookie for cookie, _, _ in page] == sorted(cookie for cookie, _, _ in page)
    world.catalog.close()


@pytest.mark.mount
async def test_it_is_listed_if_that_is_wanted_and_gives_way_to_a_real_one(past, wall, call):
    snapshots = past.operations.snapshots
    snapshots._config = SnapshotsConfig(listed=True)
    wall.ns = BEGIN + 90 * MINUTE
    assert await call(os.listdir, past.mountpoint) == [".snapshots"]
    assert len(await call(os.listdir, past.mountpoint / ".snapshots")) == 2
    snapshots._config = SnapshotsConfig()
    snapshots.name = b".other"
    real = past.mountpoint / ".snapshots"
    await call(real.mkdir)
    snapshots.name = b".snapshots"  # as after a change of the configuration
    wall.ns += MINUTE
    await call((real / "own").write_bytes, b"kept")
    assert await call(os.listdir, past.mountpoint) == [".snapshots"]
    assert await call(os.listdir, real) == ["own"]
    await call(real.rename, past.mountpoint / "kept")
    assert len(await call(os.listdir, real)) == 2
