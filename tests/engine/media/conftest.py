"""A whole engine's library side on a simulated library without delays, and archived files in it."""

from __future__ import annotations

import itertools
import os
import random
import stat
import uuid
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from hsmfs.catalog.catalog import Catalog
from hsmfs.config import (
    Config,
    DaemonConfig,
    EngineConfig,
    FsConfig,
    LibraryConfig,
    PoolConfig,
    RecallConfig,
)
from hsmfs.disc.compress import compress
from hsmfs.disc.digest import digest_file
from hsmfs.disc.image import build_image
from hsmfs.disc.layout import Kind, StagedFile, VolumeLabel
from hsmfs.engine.events import Events
from hsmfs.engine.files import Files
from hsmfs.engine.guard import Guard, Mode
from hsmfs.engine.journal import CatalogJournal
from hsmfs.engine.mounts import Mounts
from hsmfs.engine.recall import Recaller
from hsmfs.library.robot import Robot
from hsmfs.library.simulated.config import SimulatedConfig
from hsmfs.library.simulated.create import create
from hsmfs.library.simulated.library import SimulatedLibrary
from hsmfs.pool.pools import Pools
from hsmfs.pool.store import Pool
from hsmfs.states import CopyState, FileState
from hsmfs.types import CHUNK, ROOT, Barcode, DataVersion, InodeNo, Requester, StoredPart

MIB = 1 << 20
READER = Requester(pid=os.getpid(), uid=1, process="reader")


class LibraryRig:
    """One state folder, one pool, one library; `start` makes the engine's parts over them anew."""

    def __init__(self, root: Path, *, drives: int = 2, arms: int = 1, **engine: object) -> None:
        self.root = root
        Pool.create(root / "pool")
        self.sim = SimulatedConfig(
            root / "library", drives=drives, magazines=1, import_export=2, arms=arms,
            disc_bytes=64 * MIB,
        )  # fmt: skip
        create(self.sim)
        self.config = Config(
            daemon=DaemonConfig(mountpoint=root / "mnt", state=root / "state"),
            pool=(PoolConfig(name="p", path=root / "pool"),),
            fs=FsConfig(wait_limit="20 s"),
            recall=RecallConfig(shelf_wait="200 ms"),
            library=LibraryConfig(
                kind="simulated", path=root / "library", drives=drives, arms=arms, disc="64 MiB"
            ),
            engine=EngineConfig(**{"recall_retry_wait": "50 ms", "recall_retries": 2} | engine),
        )
        Catalog.create(root / "state").close()
        self._names = itertools.count()

    async def start(self) -> None:
        """As after a crash or a restart."""
        self.catalog = Catalog.open(self.root / "state")
        pool = Pool("p", self.root / "pool")
        async with self.catalog.write():
            pool.id = self.catalog.volumes.register_pool("p", "disk", pool.uuid)
        self.files = Files(self.catalog, Pools([pool]))
        await self.files.recover()
        self.library = SimulatedLibrary(self.sim)
        arms = self.config.library.arms
        self.robot = Robot(self.library, CatalogJournal(self.catalog), arms)
        self.events = Events()
        self.mounts = Mounts(self.catalog, self.library, self.robot, self.events, self.config)
        self.guard = Guard(self.catalog, self.events, Mode.OFF)
        self.recaller = Recaller(
            self.catalog, self.files, self.mounts, self.events, self.config, guard=self.guard,
            left=lambda who, ino: False,
        )  # fmt: skip

    async def stop(self) -> None:
        await self.library.close()
        self.catalog.close()

    async def serve(self, nursery) -> None:
        """Start the workers."""
        await nursery.start(self.mounts.run)
        await nursery.start(self.recaller.run)

    async def until(self, condition) -> None:
        """Wait until it holds, at most 20 seconds."""
        with trio.fail_after(20):
            while not condition():
                await wait_all_tasks_blocked(0.005)

    async def ended(self, ino: InodeNo) -> None:
        """Wait until the recall's row is gone."""
        await self.until(lambda: self.catalog.queues.recall(ino) is None)

    async def file(self, data: bytes) -> InodeNo:
        """A resident file, closed and settled."""
        name = b"f%d" % next(self._names)
        pool = next(iter(self.files.pools)).id
        async with self.catalog.write():
            attr = self.catalog.names.create(ROOT, name, stat.S_IFREG | 0o644, 0, 0, 1, pool=pool)
        self.files.born(attr)
        live = self.files.open(attr.ino, write=True)
        await self.files.write(live, 0, data)
        self.files.close(live, write=True)
        await self.files.flush_closed()
        return attr.ino

    async def burn(
        self,
        barcode: str,
        parts: list[tuple[InodeNo, int, int]],
        *,
        copy: int = 1,
        pack: bool = False,
        number: tuple[int, int] = (1, 1),
        label: str | None = None,
    ) -> None:
        """Put [offset, offset+length) of files on a disc by hand, as a migration does."""
        if not self.robot.elements:
            await self.mounts.inventory.sync()
        volume = self.catalog.volumes.by_barcode(barcode)
        disc_uuid = str(uuid.uuid4())
        staged = [self._staged(*part, number, pack) for part in parts]
        image = self.root / "image"
        made = build_image(
            staged,
            VolumeLabel(disc_uuid, label or barcode, "set", str(uuid.uuid4()), 1, 1, 0, 1),
            image,
            staging=self.root / "staging",
        )
        drive = self.library.drives[0]
        await self.robot.fetch(Barcode(barcode), drive)
        await drive.load()
        await drive.burn(image, lambda done: None)
        await self.robot.put_away(drive)
        async with self.catalog.write():
            table = self.catalog.volumes
            table.start(volume.id, disc_uuid)
            table.close(volume.id, made.size, drive.serial, made.root_hash.hex(), 1)
            for file in staged:
                where = StoredPart(
                    volume.id, number[0] - 1, number[1], file.offset, file.length,
                    made.sectors[file.key].sector, file.stored, file.compressed, file.frame_ends,
                )  # fmt: skip
                self.catalog.copies.set_digest(file.ino, file.version, file.digest)
                self.catalog.copies.add(file.ino, file.version, copy, where, CopyState.VALID)
                self.catalog.inodes.set_state(file.ino, FileState.PREMIGRATED)

    def _staged(self, ino, offset, length, number, pack) -> StagedFile:
        source = Path(next(iter(self.files.pools)).path_of(ino))
        fields = {"source": source, "source_offset": offset, "stored": length}
        if pack:
            packed = compress(source, self.root / f"{ino}.zst", offset=offset, length=length)
            fields = {
                "source": packed.path,
                "stored": packed.stored,
                "compressed": True,
                "stored_sha256": packed.sha256,
                "frame_ends": packed.frame_ends,
            }
        return StagedFile(
            ino=ino, version=DataVersion(1), paths=(b"f%d" % ino,), kind=Kind.FILE, mode=0o644,
            uid=0, gid=0, mtime_ns=1, atime_ns=1, ctime_ns=1, btime_ns=1,
            digest=digest_file(source), part=number[0], parts=number[1], offset=offset,
            length=length, **fields,
        )  # fmt: skip

    async def release(self, ino: InodeNo, head: int = 0) -> None:
        live = self.files.hold(ino)
        await self.files.release(live, head)
        self.files.drop(live)

    async def stub(self, data: bytes, *barcodes: str, pack: bool = False) -> InodeNo:
        """A file whose bytes are on those discs alone."""
        ino = await self.file(data)
        for number, barcode in enumerate(barcodes, start=1):
            await self.burn(barcode, [(ino, 0, len(data))], copy=number, pack=pack)
        await self.release(ino)
        return ino

    async def read(self, ino: InodeNo, offset: int = 0, size: int = 1 << 40, who=READER) -> bytes:
        """As the mount does."""
        live = self.files.open(ino, write=False)
        try:
            return await self.files.read(live, offset, size, who)
        finally:
            self.files.close(live, write=False)

    def volume(self, barcode: str):
        return self.catalog.volumes.by_barcode(barcode)

    def sector(self, ino: InodeNo, barcode: str) -> int:
        """The first sector of a file on a disc."""
        volume = self.volume(barcode).id
        (copy,) = [c for c in self.catalog.copies.all_of(ino) if c.where.volume == volume]
        return copy.where.sector


CHUNKY = random.Random(1).randbytes(3 * CHUNK + 12_345)


@pytest.fixture
async def rig(tmp_path):
    rig = LibraryRig(tmp_path)
    await rig.start()
    yield rig
    await rig.stop()


@pytest.fixture
def make_rig(tmp_path):
    def make(**changes) -> LibraryRig:
        return LibraryRig(tmp_path, **changes)

    return make


@pytest.fixture
def chunky() -> bytes:
    """A file's content of three chunks and a bit."""
    return CHUNKY
