"""A catalog, a pool and the handlers over them; with a real mount for those who ask."""

from __future__ import annotations

import os
import stat
import types
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from hsmfs.catalog.catalog import Catalog
from hsmfs.config import Config, DaemonConfig, FsConfig, LibraryConfig, PoolConfig, TrashConfig
from hsmfs.engine.events import Events
from hsmfs.engine.files import Files
from hsmfs.engine.trust import Trust
from hsmfs.fs.mount import Mount, mounted
from hsmfs.fs.operations import Operations
from hsmfs.pool.pools import Pools
from hsmfs.pool.store import Pool
from hsmfs.states import FileState
from hsmfs.types import ROOT, Attr, InodeNo, Range

THREADS = trio.CapacityLimiter(600)


def caller(uid: int = 0, gid: int = 0, pid: int | None = None, umask: int = 0o022):
    """What pyfuse3 says of the process that asks."""
    return types.SimpleNamespace(uid=uid, gid=gid, pid=pid or os.getpid(), umask=umask)


class World:
    """The rooms below the mount, and short ways to use them."""

    caller = staticmethod(caller)

    def __init__(self, path: Path, keep: str | float = 0.0) -> None:
        self.mountpoint = path / "mnt"
        self.mountpoint.mkdir()
        self.catalog = Catalog.create(path / "state")
        self.uuid = Pool.create(path / "pool")
        self.pool = Pool("p", path / "pool")
        self.config = Config(
            daemon=DaemonConfig(mountpoint=self.mountpoint, state=path / "state"),
            pool=(PoolConfig(name="p", path=path / "pool"),),
            fs=FsConfig(), trash=TrashConfig(keep=keep),
            library=LibraryConfig(kind="simulated", path=path / "library"),
        )  # fmt: skip

    async def start(self) -> World:
        async with self.catalog.write():
            self.pool.id = self.catalog.volumes.register_pool("p", "disk", self.uuid)
        self.files = Files(self.catalog, Pools([self.pool]))
        self.trust = Trust(self.catalog, self.files)
        self.operations = Operations(self.files, self.config, self.trust, None)
        return self

    async def stub(self, name: bytes, content: bytes) -> InodeNo:
        """A migrated file: the bytes that `arrive` brings in are not on disk."""
        mode = stat.S_IFREG | 0o644
        async with self.catalog.write():
            attr = self.catalog.names.create(ROOT, name, mode, 0, 0, 10**18, pool=self.pool.id)
            self.catalog.inodes.put(attr._replace(size=len(content), dirty=False))
            self.catalog.inodes.set_absent(attr.ino, [Range(0, len(content))])
            self.catalog.inodes.set_state(attr.ino, FileState.MIGRATED)
        return attr.ino

    async def arrive(self, ino: InodeNo, offset: int, data: bytes) -> None:
        """As a recall does it."""
        live = self.files.hold(ino)
        assert await self.files.fill(live, live.attr.base_version, offset, data)
        await self.files.save_ranges(live)
        self.files.drop(live)

    def wait_for_arrival(self) -> list[Range]:
        """Readers wait until `arrive`; returns the list of what they wait for."""
        asked: list[Range] = []

        async def wait(ino: InodeNo, wanted: Range, who: object) -> None:
            live = self.files.live(ino)
            assert live is not None
            asked.append(wanted)
            await live.arrived.wait()

        self.files.wait_for = wait
        return asked

    def at(self, path: bytes) -> Attr:
        found = self.catalog.names.resolve(path)
        assert found is not None
        return found


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World(tmp_path).start()
    yield made
    made.catalog.close()


@pytest.fixture
async def keeping(tmp_path: Path) -> AsyncIterator[World]:
    """A world with a trash."""
    made = await World(tmp_path, keep="1 h").start()
    yield made
    made.catalog.close()


@pytest.fixture
async def mount(world: World) -> AsyncIterator[Mount]:
    async with mounted(world.config, world.files, Events(), world.trust) as mount:
        world.operations = mount.operations
        yield mount
    assert not os.path.ismount(world.mountpoint)


@pytest.fixture
async def call() -> Callable:
    """`await call(f, *args)`: a system call on the mount, in a thread: the loop serves it."""

    async def run(f, *args, **kwargs):
        return await trio.to_thread.run_sync(
            partial(f, *args, **kwargs), limiter=THREADS, abandon_on_cancel=True
        )

    return run
