"""What users and administrators do, as the mount's handlers would, and what they remember of it."""

from __future__ import annotations

import random
import stat
from typing import TYPE_CHECKING

import trio

from hsmfs import clock
from hsmfs.catalog.queues import RecallClass
from hsmfs.catalog.retention import Folder
from hsmfs.engine.live import Live
from hsmfs.errors import Conflict, Forbidden, HsmError, PoolFull
from hsmfs.states import FileState, RetentionMode, SetState
from hsmfs.types import ROOT, InodeNo, Requester

from .checks import expect_bytes
from .files import EMPTY, Content, UserFile
from .plan import Step
from .world import DAY, YEAR, Failure

if TYPE_CHECKING:
    from .life import Life

FILE = stat.S_IFREG | 0o644
TRASH_NS = int(30 * DAY * 1e9)
RECORDS = b"records"
PIECE = 16 * 1024
S = 10**9


def reader(rng: random.Random) -> Requester:
    """Somebody; whether the process lives is the simulation's affair."""
    return Requester(1, rng.randrange(1000, 1004), "viewer")


async def folder(life: Life, name: bytes) -> int:
    """A folder of the root, made if need be; one is for records."""
    world = life.world
    if name not in world.folders:
        known = life.catalog.names.lookup(ROOT, name)
        if known is None:
            async with life.catalog.write():
                known = life.catalog.names.create(
                    ROOT, name, stat.S_IFDIR | 0o755, 0, 0, clock.now_ns()
                )
            await life.catalog.sync()
        world.folders[name] = known.ino
    ino = InodeNo(world.folders[name])
    if name == RECORDS and life.engine.trust.retention.folder_of(ino) is None:
        await life.engine.trust.retention.set_folder(
            Folder(ino, RetentionMode.COMPLIANCE, int(10 * DAY) * S, int(YEAR) * S,
                   int(6 * YEAR) * S, None), "admin",
        )  # fmt: skip
    return ino


async def _write(life: Life, live: Live, content: Content) -> None:
    data = content.data()
    for at in range(0, len(data), PIECE):
        await life.engine.files.write(live, at, data[at : at + PIECE])


async def create(life: Life, parent: int, rng: random.Random, *, sure: bool = True) -> UserFile:
    """A new file; with sure it is fsynced before anybody relies on it."""
    world, engine = life.world, life.engine
    world.state["names"] = number = world.state.get("names", 0) + 1
    name = b"f%06d" % number
    size = rng.choice((0, 900, 5000, 9000, 20_000, 40_000))
    content = Content(rng.getrandbits(40), size)
    file = UserFile(name, parent, 0, EMPTY, [content], acked=False, gone=True)
    world.files[name] = file
    async with life.catalog.write():
        pool = engine.pools.for_new().id
        attr = life.catalog.names.create(
            InodeNo(parent), name, FILE, 1000, 1000, clock.now_ns(), pool=pool
        )
        engine.trust.retention.arrived(attr, parent)
    file.ino = attr.ino
    live = engine.files.open(attr.ino, write=True)
    try:
        await _write(life, live, content)
        file.content, file.others, file.acked, file.gone = content, [EMPTY], True, False
        life.doom.promise()
        if sure:
            await engine.files.fsync(live)
            file.others = []
            life.doom.promise()
    except PoolFull:
        file.sure = False
        raise
    finally:
        engine.files.close(live, write=True)
    world.counts["files written"] += 1
    return file


def chosen(
    life: Life, rng: random.Random, count: int, *states: FileState, kept: bool = False
) -> list[UserFile]:
    """Files of users, by chance, but more often new ones."""
    known = [
        f for f in life.world.files.values()
        if not f.gone and f.trashed_at is None and f.sure and f.acked and not f.torn and f.ino
        and (kept or f.retained_until is None)
    ]  # fmt: skip
    if states:
        with_state = []
        for f in known:
            attr = life.engine.files.attr(InodeNo(f.ino))
            if attr is not None and attr.state in states:
                with_state.append(f)
        known = with_state
    picked: dict[int, UserFile] = {}
    for _ in range(count if known else 0):
        at = int(len(known) * (1 - rng.random() ** 2))
        picked[known[min(at, len(known) - 1)].ino] = known[min(at, len(known) - 1)]
    return list(picked.values())


async def store(life: Life, step: Step) -> None:
    """A study comes in and is to be archived; some days later it may be released."""
    rng = random.Random(step.seed)
    parent = await folder(life, b"study%02d" % rng.randrange(20))
    files = []
    for _ in range(rng.randrange(3, 12)):
        try:
            files.append(await create(life, parent, rng, sure=rng.random() < 0.7))
        except PoolFull:
            life.world.counts["pool full"] += 1
            break
    await archive(life, files, rng.random() < 0.6)
    if rng.random() < 0.5:
        await life.engine.migrator.flush()
    else:
        await life.pause(1.1 * DAY)


async def archive(life: Life, files: list[UserFile], release: bool) -> None:
    await life.engine.migrator.archive([InodeNo(f.ino) for f in files], release=release)
    for file in files:
        file.archived = True


async def overwrite(life: Life, step: Step) -> None:
    """Files on disk are written to, cut or replaced."""
    rng = random.Random(step.seed)
    await _change(life, rng, chosen(life, rng, 4, FileState.RESIDENT, FileState.PREMIGRATED))


async def write_stub(life: Life, step: Step) -> None:
    """Files whose bytes are on discs are written to in part, cut, or replaced."""
    rng = random.Random(step.seed)
    await _change(life, rng, chosen(life, rng, 3, FileState.MIGRATED, FileState.PARTIAL))


async def _change(life: Life, rng: random.Random, files: list[UserFile]) -> None:
    for file in files:
        try:
            await _change_one(life, rng, file)
        except PoolFull:
            life.world.counts["pool full"] += 1
            file.torn = True
    if rng.random() < 0.7:
        await archive(life, files, rng.random() < 0.5)
        await life.engine.migrator.flush()


async def _change_one(life: Life, rng: random.Random, file: UserFile) -> None:
    engine, size = life.engine, len(file.content.data())
    live = engine.files.open(InodeNo(file.ino), write=True)
    file.acked = False
    try:
        what = rng.choice(("write", "write", "cut", "replace"))
        key, length = rng.getrandbits(40), rng.choice((10, 3000, 9000))
        at = rng.randrange(size + 1)
        if what == "write":
            new = file.content.wrote(at, key, length)
            file.others.append(new)
            await engine.files.write(live, at, new.data()[at : at + length])
        elif what == "cut":
            new = file.content.cut(at)
            file.others.append(new)
            await engine.files.truncate(live, at)
        else:
            new = Content(key, length)
            file.others += [EMPTY, new]
            await engine.files.truncate(live, 0)
            await _write(life, live, new)
        file.others, file.content, file.acked = [file.content, *file.others], new, True
        life.doom.promise()
        if rng.random() < 0.85:
            await engine.files.fsync(live)
            file.others = []
            life.doom.promise()
        life.world.counts["files changed"] += 1
    finally:
        engine.files.close(live, write=True)


async def read(life: Life, step: Step) -> None:
    """Several people read several files at once."""
    rng = random.Random(step.seed)
    files = chosen(life, rng, rng.randrange(1, 7), kept=True)
    async with trio.open_nursery() as nursery:
        for file in files:
            await trio.sleep(rng.expovariate(1 / 20.0))
            nursery.start_soon(expect_bytes, life, file, reader(rng))


async def storm(life: Life, step: Step) -> None:
    """A batch order about many files, while readers come."""
    rng = random.Random(step.seed)
    for file in chosen(life, rng, 25, FileState.MIGRATED, kept=True):
        await life.engine.recaller.request(InodeNo(file.ino), RecallClass.BULK, "hsmctl")
    await read(life, step)


async def release(life: Life, step: Step) -> None:
    """Bytes on disk are given up."""
    rng = random.Random(step.seed)
    await trio.sleep(900.0)
    for file in chosen(life, rng, 8, FileState.PREMIGRATED, kept=True):
        try:
            await life.engine.releaser.release(InodeNo(file.ino), "hsmctl")
        except Conflict:
            life.world.counts["release refused"] += 1


async def delete(life: Life, step: Step) -> None:
    """Files go to the trash; records refuse."""
    rng = random.Random(step.seed)
    for file in chosen(life, rng, 4, kept=True):
        await delete_one(life, file)


async def delete_one(life: Life, file: UserFile) -> None:
    """As the mount's unlink. A record that is not over must refuse."""
    engine, world, now = life.engine, life.world, clock.now_ns()
    was_gone, file.gone = file.gone, True
    over = file.retained_until is None or trio.current_time() >= file.retained_until
    try:
        async with life.catalog.write():
            attr = life.catalog.names.unlink(InodeNo(file.parent), file.name, now)
            if attr.locked:
                engine.trust.retention.may_lose_name(attr, "unlink")
            engine.files.touch_links(attr)
            life.catalog.trash.put(attr.ino, InodeNo(file.parent), file.name, now, TRASH_NS)
    except Forbidden:
        file.gone = was_gone
        world.counts["deletion refused"] += 1
        return
    if not over:
        raise Failure(f"record {file.name!r} was deleted before its time")
    file.trashed_at, file.gone, file.others = trio.current_time(), False, [file.content]
    if file.ino % 2:
        await life.catalog.sync()
        file.others = []
    world.counts["files deleted"] += 1


async def restore(life: Life, step: Step) -> None:
    """Somebody wants a file back from the trash."""
    rng = random.Random(step.seed)
    trashed = [
        f for f in life.world.files.values()
        if f.trashed_at is not None and trio.current_time() < f.trashed_at + 28 * DAY and not f.gone
    ]  # fmt: skip
    if trashed:
        file = rng.choice(trashed)
        file.gone = True
        await life.engine.trash.restore(InodeNo(file.ino))
        file.trashed_at, file.gone, file.retained_until = None, False, None
        life.world.counts["files restored"] += 1


async def retain(life: Life, step: Step) -> None:
    """Files become records; their deletion is tried at once and must fail."""
    rng = random.Random(step.seed)
    parent = await folder(life, RECORDS)
    try:
        files = [await create(life, parent, rng) for _ in range(rng.randrange(1, 4))]
    except PoolFull:
        life.world.counts["pool full"] += 1
        return
    retention = life.engine.trust.retention
    await life.engine.files.flush_closed()
    for file in files:
        attr = life.engine.files.attr(InodeNo(file.ino))
        assert attr is not None
        async with life.catalog.write():
            made = retention.commit(attr, "modality")
            await life.engine.files.setattr(made.ino, made._replace(mode=made.mode & ~0o222))
        await life.catalog.sync()
        # The compliance clock counts the time that the machine ran, and never less.
        file.retained_until = trio.current_time() + YEAR - 1.0
        life.world.counts["records made"] += 1
        await delete_one(life, file)
    await archive(life, files, release=True)
    await life.engine.migrator.flush()


async def refresh(life: Life, step: Step) -> None:
    """An administrator has a disc replaced."""
    rng = random.Random(step.seed)
    volumes = [v for v in life.catalog.volumes.all() if v.used and v.state.name == "FULL"]
    if volumes:
        try:
            await life.engine.refresher.ask([rng.choice(volumes)], "refresh", "admin")
        except Conflict:
            life.world.counts["refresh refused"] += 1


async def vault(life: Life, step: Step) -> None:
    """A closed set goes to a vault; what readers want of it is brought back."""
    rng = random.Random(step.seed)
    groups = [g for g in life.catalog.sets.all() if g.state is SetState.CLOSED]
    if groups:
        try:
            await life.engine.vault.export([rng.choice(groups).name], "bunker")
        except HsmError:
            life.world.counts["export refused"] += 1


WORK = {
    f.__name__: f
    for f in (
        store, overwrite, write_stub, read, storm, release, delete, restore, retain, refresh, vault
    )
}  # fmt: skip
