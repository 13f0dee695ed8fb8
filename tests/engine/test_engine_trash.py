"""Undelete is complete: bytes, links, xattrs, times, owners, empty files, removed folders."""

from __future__ import annotations

import stat
from types import SimpleNamespace

import pytest

from hsmfs.catalog.catalog import Catalog
from hsmfs.config import VersionsConfig
from hsmfs.engine import housekeeping
from hsmfs.engine.events import Events
from hsmfs.engine.files import Files
from hsmfs.engine.fsck import fsck
from hsmfs.engine.keeping import Keeping
from hsmfs.engine.trash import TrashCan
from hsmfs.errors import Conflict, NotFound
from hsmfs.pool.pools import Pools
from hsmfs.pool.store import Pool
from hsmfs.types import ROOT, Requester

FILE, DIR, LINK = stat.S_IFREG | 0o640, stat.S_IFDIR | 0o750, stat.S_IFLNK | 0o777


class World:
    """/d/e/f with bytes and /d/e/l, a link; all can be deleted as the mount does it."""

    def __init__(self, path):
        uuid = Pool.create(path / "pool")
        self.pool = Pool("p", path / "pool")
        self.catalog = Catalog.create(path / "state")
        self.uuid = uuid

    async def start(self):
        async with self.catalog.write():
            names = self.catalog.names
            self.pool.id = self.catalog.volumes.register_pool("p", "disk", self.uuid)
            self.d = names.create(ROOT, b"d", DIR, 7, 8, 1).ino
            self.e = names.create(self.d, b"e", DIR, 7, 8, 1).ino
            self.f = names.create(self.e, b"f", FILE, 7, 8, 123, pool=self.pool.id).ino
            self.link = names.create(self.e, b"l", LINK, 7, 8, 1, target=b"\xff f").ino
            self.catalog.xattrs.set(self.f, b"user.a", b"b\0")
        self.pools = Pools([self.pool])
        self.files = Files(self.catalog, self.pools)
        self.events = Events()
        self.trash = TrashCan(self.catalog, self.files, self.events)
        live = self.files.open(self.f, write=True)
        await self.files.write(live, 0, b"bytes")
        self.files.close(live, write=True)
        await self.files.flush_closed()

    async def delete(self, parent, name, now=50):
        async with self.catalog.write():
            names = self.catalog.names
            is_dir = names.lookup(parent, name).is_dir
            gone = (names.rmdir if is_dir else names.unlink)(parent, name, now)
            if gone.nlink == 0:
                self.catalog.trash.put(gone.ino, parent, name, now, 1000)
            self.files.touch_links(gone)

    async def delete_all(self):
        for parent, name in ((self.e, b"f"), (self.e, b"l"), (self.d, b"e"), (ROOT, b"d")):
            await self.delete(parent, name)


@pytest.fixture
async def world(tmp_path):
    world = World(tmp_path)
    await world.start()
    yield world
    assert (await fsck(world.catalog, world.pools, files=world.files)).findings == []
    world.catalog.close()


async def test_a_file_comes_back_as_it_was(world):
    before = world.catalog.inodes.get_raw(world.f)
    await world.delete(world.e, b"f")
    (entry,) = await world.trash.entries()
    assert (entry.path, entry.attr.ino) == (b"d/e/f", world.f)
    assert await world.trash.restore(world.f) == b"d/e/f"
    after = world.catalog.inodes.get_raw(world.f)
    same = {"ctime_ns": 0, "change_seq": 0}
    assert after._replace(**same) == before._replace(**same)
    assert world.catalog.xattrs.all(world.f) == {b"user.a": b"b\0"}
    live = world.files.open(world.f, write=False)
    assert await world.files.read(live, 0, 9, Requester()) == b"bytes"
    world.files.close(live, write=False)
    assert await world.trash.entries() == []


async def test_removed_folders_come_back_above_it(world):
    await world.delete_all()
    assert world.trash.get(world.f).path == b"d/e/f"
    assert await world.trash.restore(world.f) == b"d/e/f"
    assert world.catalog.inodes.get_raw(world.e).uid == 7
    assert [entry.path for entry in await world.trash.entries()] == [b"d/e/l"]


async def test_a_folder_with_all_that_was_in_it(world):
    await world.delete_all()
    assert await world.trash.restore(world.d, recursive=True) == b"d"
    assert await world.trash.entries() == []
    assert world.catalog.inodes.target(world.catalog.names.resolve(b"d/e/l").ino) == b"\xff f"


async def test_another_place_and_names_that_are_taken(world):
    await world.delete(world.e, b"f")
    async with world.catalog.write():
        world.catalog.names.create(world.e, b"f", stat.S_IFIFO | 0o600, 0, 0, 60)
    with pytest.raises(Conflict, match="'d/e/f' exists"):
        await world.trash.restore(world.f)
    with pytest.raises(Conflict, match="not a folder"):
        await world.trash.restore(world.f, b"none/f")
    with pytest.raises(Conflict, match="exists"):
        await world.trash.restore(world.f, b"/d")
    assert world.trash.get(world.f)
    assert await world.trash.restore(world.f, b"/d/back") == b"d/back"


async def test_when_the_folder_is_gone_for_good(world):
    await world.delete_all()
    await world.trash.purge(world.e)
    assert world.trash.get(world.f).path is None
    with pytest.raises(Conflict, match="gone for good"):
        await world.trash.restore(world.f)
    assert await world.trash.restore(world.f, b"f") == b"f"


async def test_purge_now(world):
    await world.delete_all()
    live = world.files.open(world.f, write=False)
    assert await world.trash.purge_all() == (3, 1)
    told = [(event.kind, event.fields) for event in world.events.since(0)]
    assert told == [("trash_purged", {"count": 3})]  # a repack that waited for it goes on
    world.files.close(live, write=False)
    await world.trash.purge(world.f)
    with pytest.raises(NotFound):
        await world.trash.restore(world.f)
    assert list(world.pool.inodes()) == []


async def test_only_the_newest_of_a_name_comes_back_with_its_folder(world):
    await world.delete(world.e, b"l")
    async with world.catalog.write():
        newer = world.catalog.names.create(world.e, b"l", LINK, 0, 0, 1, target=b"new").ino
    await world.delete(world.e, b"l", 60)
    await world.delete(world.e, b"f")
    await world.delete(world.d, b"e")
    await world.trash.restore(world.e, recursive=True)
    assert world.catalog.names.resolve(b"d/e/l").ino == newer
    assert [entry.attr.ino for entry in await world.trash.entries()] == [world.link]


async def test_what_is_restored_while_the_trash_is_emptied_stays(world, monkeypatch):
    await world.delete_all()
    real, restored = world.files.purge, []

    async def purge(ino):
        if not restored:
            restored.append(await world.trash.restore(world.f, b"back"))
        await real(ino)

    monkeypatch.setattr(world.files, "purge", purge)
    assert await world.trash.purge_all() == (3, 0)
    assert world.catalog.names.resolve(b"back").ino == world.f
    live = world.files.open(world.f, write=False)
    assert await world.files.read(live, 0, 9, Requester()) == b"bytes"
    world.files.close(live, write=False)


@pytest.fixture
def keeper(world):
    config = SimpleNamespace(
        fs=SimpleNamespace(sync_interval=1), trash=SimpleNamespace(keep=100)
    )
    keeping = Keeping(world.catalog, world.files, Events(), VersionsConfig(), 100)
    return housekeeping.Housekeeper(
        world.catalog, world.pools, world.files, keeping, Events(), config
    )


@pytest.mark.parametrize("what", ["frozen", "deleted anew"])
async def test_what_changed_since_it_was_found_due_stays(world, keeper, monkeypatch, what):
    await world.delete_all()
    real = world.files.purge_many

    async def later(*args):
        async with world.catalog.write():
            if what == "frozen":
                world.catalog.trash.freeze(1)
            else:
                world.catalog.trash.put(world.f, world.e, b"f", 60, 1 << 62)
        return await real(*args)

    monkeypatch.setattr(world.files, "purge_many", later)
    await keeper._purge_due()
    kept = {entry.attr.ino for entry in await world.trash.entries()}
    assert kept == ({world.d, world.e, world.f, world.link} if what == "frozen" else {world.f})


async def test_moves_that_cannot_be_taken_back_any_more_are_forgotten(world, keeper, monkeypatch):
    monkeypatch.setattr(housekeeping, "BATCH_ROWS", 2)
    db, late = world.catalog.db, 1 << 62
    async with world.catalog.write():
        db.execute("DELETE FROM name_moves")
        for at in (1, 2, late, 3, late, 4):
            db.execute("INSERT INTO name_moves VALUES (NULL, 9, 1, x'61', 1, x'62', ?)", (at,))
    for left in ((late, 3, late, 4), (late, late, 4), (late, late, 4)):
        await keeper._purge_due()  # it looks at the first two only, as there may be millions
        found = db.execute("SELECT moved_ns FROM name_moves ORDER BY id").fetchall()
        assert tuple(at for (at,) in found) == left


async def test_what_must_stay_does_not_keep_the_rest(world, keeper, monkeypatch):
    monkeypatch.setattr(housekeeping, "PURGES", 1)
    await world.delete_all()
    live = world.files.open(min(world.f, world.e, world.d), write=False)
    for _ in range(6):
        await keeper._purge_due()
    assert [entry.attr.ino for entry in await world.trash.entries()] == [live.ino]
    world.files.close(live, write=False)
