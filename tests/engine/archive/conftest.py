"""A whole engine without a mount: catalog, pool, simulated library with real images, migrator."""

from __future__ import annotations

import json
import random
import shutil
import stat
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from hsmfs import config as configs
from hsmfs.catalog.catalog import Catalog
from hsmfs.disc.reader import read_chunk
from hsmfs.engine.events import Events
from hsmfs.engine.files import Files
from hsmfs.engine.journal import CatalogJournal
from hsmfs.engine.migrate import Migrator
from hsmfs.engine.mounts import Mounts
from hsmfs.engine.policy.match import Ruleset
from hsmfs.engine.release import Releaser
from hsmfs.engine.schedule import Purpose
from hsmfs.engine.trust import Trust
from hsmfs.library import configured
from hsmfs.library.robot import Robot
from hsmfs.pool.pools import Pools
from hsmfs.pool.store import Pool
from hsmfs.states import VolumeState
from hsmfs.types import CHUNK, ROOT, SECTOR

TEXT = """
[daemon]
mountpoint = "/mnt/hsmfs-test"
state = "{root}/state"
[[pool]]
name = "p"
path = "{root}/pool"
{pool}
[library]
kind = "simulated"
path = "{root}/library"
drives = {drives}
magazines = 1
slots_per_magazine = {discs}
import_export = 1
disc = "{disc}"
exchange = "0 s"
load = "0 s"
seek = "0 s"
read_rate = "100 GB/s"
write_rate = "100 GB/s"
[engine]
spool = "{root}/spool"
spool_limit = "{spool}"
burn_wait = "{burn_wait}"
recall_drives = 0
min_residence = "0 s"
{engine}
"""


class Site:
    """The engine's parts as the service wires them; `restart` is what a crash and a start are."""

    def __init__(self, root: Path, **settings: object) -> None:
        given = {
            "drives": 2, "discs": 6, "disc": "16 MiB", "spool": "200 MiB", "burn_wait": "1 h",
            "pool": "", "engine": "compression = 0",
        } | settings  # fmt: skip
        self.root = root
        root.mkdir()
        self.config = configs.loads(TEXT.format(root=root, **given))
        configured.build(self.config.library)
        self.uuid = Pool.create(root / "pool")
        self.catalog = Catalog.create(root / "state")
        self.random = random.Random(7)

    async def start(self) -> None:
        pool = self.config.pool[0]
        self.pool = Pool("p", root_pool(self), pool.tier, pool.capacity, pool.high, pool.low)
        async with self.catalog.write():
            self.pool.id = self.catalog.volumes.register_pool("p", "disk", self.uuid)
        self.pools = Pools([self.pool])
        self.files = Files(self.catalog, self.pools)
        await self.files.recover()
        self.library = configured.open_library(self.config.library)
        self.events = Events()
        self.trust = Trust(self.catalog, self.files)
        await self.trust.begin()
        self.robot = Robot(self.library, CatalogJournal(self.catalog))
        await self.robot.inventory()
        self.mounts = Mounts(self.catalog, self.library, self.robot, self.events, self.config)
        parts = (self.catalog, self.pools, self.files)
        self.migrator = Migrator(*parts, self.mounts, self.events, self.config)
        engine = self.config.engine
        self.rules = Ruleset([], copies=engine.copies, head=self.config.fs.head)
        self.releaser = Releaser(*parts, self.rules, self.events, self.config)
        self.migrator.burner.note = self.releaser.note = self.trust.audit.note
        self.migrator.finisher.release = self.releaser.release

    def fail(self, *faults: dict[str, object]) -> None:
        """Faults that the library acts out from now on."""
        path = self.config.library.path / "faults.json"
        path.with_suffix(".new").write_text(json.dumps(faults))
        path.with_suffix(".new").rename(path)

    def keep(self) -> None:
        """Remember the disks as they are: what a kill at this moment leaves."""
        shutil.copytree(self.root, self.root.with_name("killed"), symlinks=True)

    async def restart(self, *, killed: bool = False) -> None:
        """Open it anew; with killed from what `keep` remembered."""
        await self.library.close()
        self.catalog.close()
        if killed:
            shutil.rmtree(self.root)
            self.root.with_name("killed").rename(self.root)
        self.catalog = Catalog.open(self.root / "state")
        await self.start()

    @asynccontextmanager
    async def running(self):
        """Drives and migrator at work."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.mounts.run)
            await nursery.start(self.migrator.run)
            yield
            nursery.cancel_scope.cancel()

    async def folder(self, name: bytes, parent: int = ROOT) -> int:
        async with self.catalog.write():
            return self.catalog.names.create(parent, name, stat.S_IFDIR | 0o755, 0, 0, 1).ino

    async def file(self, name: bytes, data: bytes | int, parent: int = ROOT) -> int:
        """A closed file with the data, or so many random bytes."""
        if isinstance(data, int):
            data = self.random.randbytes(data)
        async with self.catalog.write():
            attr = self.catalog.names.create(
                parent, name, stat.S_IFREG | 0o644, 0, 0, 1, pool=self.pool.id
            )
        self.files.born(attr)
        live = self.files.open(attr.ino, write=True)
        for at in range(0, len(data), 1 << 20):
            await self.files.write(live, at, data[at : at + (1 << 20)])
        self.files.close(live, write=True)
        await self.files.flush_closed()
        return attr.ino

    async def write(self, ino: int, data: bytes, at: int = 0) -> None:
        live = self.files.open(ino, write=True)
        await self.files.write(live, at, data)
        self.files.close(live, write=True)
        await self.files.flush_closed()

    async def archive(self, *inos: int, **options: object) -> None:
        """Archive now and wait until nothing is left to do."""
        await self.migrator.archive(inos, **options)
        await self.migrator.flush()
        with trio.fail_after(60):
            await self.migrator.settled()

    def state(self, ino: int) -> int:
        return self.files.attr(ino).state

    async def read_back(self, ino: int) -> bytes:
        """The file's bytes from its first readable copy, each chunk checked."""
        digest = self.catalog.copies.digest(ino, self.files.attr(ino).version)
        copies = self.copies(ino)
        data = []
        for part in (copy.where for copy in copies if copy.copy_no == copies[0].copy_no):
            async with self.mounts.use(part.volume, Purpose.READ) as session:
                stored = await session.read(part.sector, max(1, -(-part.stored // SECTOR)))

            def read_at(sector, count, part=part, stored=stored):
                return stored[(sector - part.sector) * SECTOR :][: count * SECTOR]

            first = part.offset // CHUNK
            chunks = range(first, first - (-part.length // CHUNK))
            data += [read_chunk(part, index, digest, read_at) for index in chunks]
        return b"".join(data)

    def sound(self) -> None:
        """Nothing half-done is left."""
        assert not self.catalog.queues.burns()
        assert not self.catalog.queues.migrations()
        assert not self.volumes(VolumeState.BURNING)
        assert self.catalog.db.execute("SELECT count(*) FROM copies WHERE state = 0").get == 0
        assert list((self.root / "spool").iterdir()) == []

    def copies(self, ino: int):
        attr = self.files.attr(ino)
        return self.catalog.copies.readable(ino, attr.version)

    def on_disk(self, ino: int) -> bytes:
        return Path(self.pool.path_of(ino)).read_bytes()

    async def until(self, true, seconds: float = 30) -> None:
        """Wait until something is so."""
        with trio.fail_after(seconds):
            while not true():  # noqa: ASYNC110  # what is waited for has no event
                await trio.sleep(0.02)

    def volumes(self, state) -> list[str]:
        return [volume.barcode for volume in self.catalog.volumes.all(state)]

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events.since(0)]


def root_pool(site: Site) -> Path:
    return site.config.pool[0].path


@pytest.fixture
async def make_site(tmp_path):
    made: list[Site] = []

    async def make(**settings):
        site = Site(tmp_path / "site", **settings)
        await site.start()
        made.append(site)
        return site

    yield make
    for site in made:
        await site.library.close()
        site.catalog.close()


@pytest.fixture
async def site(make_site):
    return await make_site()
