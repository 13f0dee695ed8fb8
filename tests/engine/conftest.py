"""A whole engine on a small simulated library, that can be killed and started again."""

from __future__ import annotations

import json
import os
import stat
from contextlib import asynccontextmanager

import pytest
import trio

from hsmfs import config as configs
from hsmfs.catalog.catalog import Catalog
from hsmfs.engine.files import Files
from hsmfs.engine.service import Engine
from hsmfs.engine.setup import init, open_pools
from hsmfs.library import configured
from hsmfs.pool.pools import Pools
from hsmfs.pool.store import Pool
from hsmfs.states import CopyState, FileState
from hsmfs.types import ROOT, Digest, Requester

TEXT = """
[daemon]
mountpoint = "/mnt/hsmfs-care"
state = "{root}/state"
socket = "{root}/socket"
[[pool]]
name = "p"
path = "{root}/pool"
[library]
kind = "simulated"
path = "{root}/library"
drives = {drives}
magazines = {magazines}
slots_per_magazine = {slots}
import_export = {mail}
drives_per_magazine = {group}
disc = "{disc}"
exchange = "0 s"
load = "0 s"
seek = "0 s"
read_rate = "100 GB/s"
write_rate = "100 GB/s"
[engine]
spool = "{root}/spool"
spool_limit = "200 MiB"
recall_drives = 0
min_residence = "0 s"
compression = 0
copies = {copies}
recall_retry_wait = "50 ms"
{more}
"""
READER = Requester(os.getpid(), 1, "reader")


class Lab:
    def __init__(self, root, **settings):
        given = {
            "drives": 2, "copies": 1, "slots": 8, "mail": 1, "disc": "16 MiB", "more": "",
            "magazines": 1, "group": 0,
        } | settings  # fmt: skip
        self.root = root
        self.text = TEXT.format(root=root, **given)
        self.config = configs.loads(self.text)

    @asynccontextmanager
    async def running(self):
        config = self.config
        if not config.daemon.state.exists():
            (self.root / "pool").mkdir(exist_ok=True)
            await init(config)
        catalog = Catalog.open(config.daemon.state)
        pools = await open_pools(config.pool, catalog)
        library = configured.open_library(config.library)
        self.engine = Engine(config, catalog, pools, library)
        try:
            async with self.engine.running():
                yield self.engine
        finally:
            await library.close()
            catalog.close()

    def fail(self, *faults):
        path = self.root / "library/faults.json"
        path.with_suffix(".new").write_text(json.dumps(faults))
        path.with_suffix(".new").rename(path)

    async def file(self, name: bytes, data: bytes) -> int:
        engine = self.engine
        async with engine.catalog.write():
            pool = engine.pools.for_new().id
            attr = engine.catalog.names.create(ROOT, name, 0o100644, 0, 0, 1, pool=pool)
        live = engine.files.open(attr.ino, write=True)
        for at in range(0, len(data), 1 << 20):
            await engine.files.write(live, at, data[at : at + (1 << 20)])
        engine.files.close(live, write=True)
        await engine.files.flush_closed()
        return attr.ino

    async def archive(self, *inos, release=False):
        await self.engine.migrator.archive(inos, release=release)
        await self.settle()

    async def settle(self):
        await self.engine.migrator.flush()
        await self.engine.migrator.settled()

    async def read(self, ino) -> bytes:
        live = self.engine.files.open(ino, write=False)
        try:
            return await self.engine.files.read(live, 0, 1 << 30, READER)
        finally:
            self.engine.files.close(live, write=False)

    def disc(self, ino):
        (copy, *_) = [
            c for c in self.engine.catalog.copies.all_of(ino) if c.state is CopyState.VALID
        ]
        return self.engine.catalog.volumes.get(copy.where.volume), copy.where.sector

    async def until(self, condition, seconds=30, flush=False):
        with trio.fail_after(seconds):
            while not condition():
                if flush:
                    await self.engine.migrator.flush()
                await trio.sleep(0.01)


@pytest.fixture
def make_lab(tmp_path):
    """Makes the lab of this test, with other settings; `running` starts it."""

    def make(at="", **settings):
        root = tmp_path / at
        root.mkdir(exist_ok=True)
        return Lab(root, **settings)

    return make


@pytest.fixture
async def lab(make_lab):
    lab = make_lab()
    async with lab.running():
        yield lab


class World:
    """A catalog and a pool without an engine, reopened as after a crash by `crash()`."""

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
