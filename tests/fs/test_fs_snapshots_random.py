"""Whatever users do to names, every minute's snapshot is the tree that there was then."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import stat

import pytest
from pyfuse3 import RENAME_EXCHANGE, FUSEError

from hsmfs.engine.events import Events
from hsmfs.engine.fsck import fsck
from hsmfs.engine.keeping import Keeping
from hsmfs.engine.trash import TrashCan
from hsmfs.errors import Conflict
from hsmfs.fs.snapnumbers import MINUTE_NS, name_of
from hsmfs.types import ROOT
from tests.fs.conftest import World
from tests.fs.test_fs_snapshots import BEGIN, Wall

pytestmark = pytest.mark.slow
MINUTES, ACTS = 12, 8
LOST = b"overwritten since, before a disc had it"
NAMES = (b"a", b"b", b"c")
FILE = stat.S_IFREG | 0o644


class User:
    """Does something at random; refusals are as good as acts."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world, self.rng, self.ops = world, rng, world.operations
        self.who = world.caller()
        self.folders = [ROOT]
        self.count = 0
        self.overwritten: dict[int, int] = {}

    async def act(self) -> None:
        acts = (self.create, self.mkdir, self.unlink, self.rmdir, self.rename, self.rename,
                self.exchange, self.link, self.undelete, self.overwrite)  # fmt: skip
        if self.world.files.keeping is not None:
            acts += (self.append, self.cut, self.empty)
        with contextlib.suppress(FUSEError):
            await self.rng.choice(acts)(self.rng.choice(self.folders), self.rng.choice(NAMES))

    async def create(self, folder, name):
        info, _ = await self.ops.create(folder, name, FILE, os.O_RDWR | os.O_EXCL, self.who)
        self.count += 1
        await self.ops.write(info.fh, 0, b"%d" % self.count)
        await self.ops.release(info.fh)

    async def mkdir(self, folder, name):
        self.folders.append((await self.ops.mkdir(folder, name, 0o755, self.who)).st_ino)

    async def unlink(self, folder, name):
        await self.ops.unlink(folder, name, self.who)

    async def rmdir(self, folder, name):
        await self.ops.rmdir(folder, name, self.who)

    async def rename(self, folder, name):
        there = self.rng.choice(self.folders), self.rng.choice(NAMES)
        await self.ops.rename(folder, name, *there, 0, self.who)

    async def exchange(self, folder, name):
        there = self.rng.choice(self.folders), self.rng.choice(NAMES)
        await self.ops.rename(folder, name, *there, RENAME_EXCHANGE, self.who)

    async def link(self, folder, name):
        there = self.rng.choice(self.folders), self.rng.choice(NAMES)
        found = self.world.catalog.names.lookup(*there)
        if found is not None:
            await self.ops.link(found.ino, folder, name, self.who)

    async def undelete(self, folder, name):
        """To another place: in its old one a file is shown in between, too."""
        kept = [k for k in self.world.catalog.trash.kept() if k.attr.is_file]
        above = self.world.catalog.names.folder_path(folder)
        gone = self.rng.choice(kept) if kept else None
        if gone is None or above is None or (gone.parent, gone.name) == (folder, name):
            return
        with contextlib.suppress(Conflict):
            trash = TrashCan(self.world.catalog, self.world.files, Events())
            await trash.restore(gone.attr.ino, above + name)

    async def overwrite(self, folder, name):
        found = self.world.catalog.names.lookup(folder, name)
        if found is not None and found.is_file:
            self.count += 1
            info = await self.ops.open(found.ino, os.O_WRONLY, self.who)
            await self.ops.write(info.fh, 0, b"%d" % self.count)
            await self.ops.release(info.fh)
            self.overwritten[found.ino] = self.count

    async def append(self, folder, name):
        found = self.world.catalog.names.lookup(folder, name)
        if found is not None and found.is_file:
            size = self.world.files.attr(found.ino).size
            info = await self.ops.open(found.ino, os.O_WRONLY | os.O_APPEND, self.who)
            await self.ops.write(info.fh, size, b"+")
            if self.rng.random() < 0.3:  # and it goes on at the beginning
                await self.ops.write(info.fh, 0, b"-")
            await self.ops.release(info.fh)
            self.overwritten[found.ino] = self.count

    async def cut(self, folder, name):
        found = self.world.catalog.names.lookup(folder, name)
        if found is not None and found.is_file:
            live = self.world.files.hold(found.ino)
            await self.world.files.truncate(live, self.rng.randrange(4))
            self.world.files.drop(live)
            self.overwritten[found.ino] = self.count

    async def empty(self, folder, name):
        """As a program does that saves a file anew."""
        found = self.world.catalog.names.lookup(folder, name)
        if found is not None and found.is_file:
            self.count += 1
            info = await self.ops.open(found.ino, os.O_WRONLY | os.O_TRUNC, self.who)
            await self.ops.write(info.fh, 0, b"%d" % self.count)
            await self.ops.release(info.fh)
            self.overwritten[found.ino] = self.count

    # What there is

    async def tree(self, top: int, path: bytes = b"") -> dict[bytes, bytes | None]:
        """Every path below a folder; bytes of files, None: a folder."""
        found: dict[bytes, bytes | None] = {}
        for name, ino, folder in await self.entries(top):
            where = path + b"/" + name
            found[where] = None if folder else await self.bytes_of(ino)
            if folder:
                found |= await self.tree(ino, where)
        return found

    async def entries(self, top: int) -> list[tuple[bytes, int, bool]]:
        if top < 2**62:
            rows = self.world.catalog.names.entries(top, 0, 1000)
            return [(name, attr.ino, attr.is_dir) for _, name, attr in rows]
        found, after = list[tuple[bytes, int, bool]](), 0
        while after is not None:
            rows, after = await self.ops.snapshots.page(top, after, 2)
            found += [(name, attr.ino, attr.is_dir) for _, name, attr in rows]
        for name, ino, _ in found:
            assert (await self.ops.lookup(top, name, self.who)).st_ino == ino
        return found

    async def bytes_of(self, ino: int) -> bytes:
        try:
            info = await self.ops.open(ino, os.O_RDONLY, self.who)
        except FUSEError as fault:
            return LOST if fault.errno == errno.EIO else b"not opened: %d" % fault.errno
        try:
            return bytes(await self.ops.read(info.fh, 0, 1000))
        finally:
            await self.ops.release(info.fh)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("seed", range(12))
async def test_every_minute(seed, kept, tmp_path, monkeypatch):
    wall = Wall()
    wall.install(monkeypatch)
    world = await World(tmp_path, keep="1 d").start()
    if kept:  # pool files have real times, so everything lay still for years
        world.files.keeping = Keeping(
            world.catalog, world.files, Events(), world.config.versions, 86_400
        )
    user = User(world, random.Random(seed))
    was: dict[int, dict[bytes, bytes | None]] = {}
    for minute in range(MINUTES):
        wall.ns = BEGIN + minute * MINUTE_NS
        await world.files.flush_closed()
        for _ in range(ACTS):
            await user.act()
        was[BEGIN + (minute + 1) * MINUTE_NS] = await user.tree(ROOT)
    wall.ns = BEGIN + (MINUTES + 1) * MINUTE_NS
    top = (await user.ops.lookup(ROOT, b".snapshots", user.who)).st_ino
    lost = 0
    for time_ns, meant in was.items():
        then = (await user.ops.lookup(top, name_of(time_ns), user.who)).st_ino
        found = await user.tree(then)
        assert found.keys() == meant.keys()
        for path, data in meant.items():
            if found[path] == LOST:
                lost += 1
                assert user.overwritten and not kept
            else:
                assert found[path] == data, (time_ns, path)
    assert lost < sum(map(len, was.values())) / 2
    await world.files.flush_closed()
    report = await fsck(world.catalog, world.files.pools, files=world.files)
    assert [found for found in report.findings if found.severity.name != "NOTE"] == []
    world.catalog.close()
