"""Adopting a tree: nothing lost or doubled, whatever the step at which the process dies."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from hsmfs.catalog.catalog import Catalog
from hsmfs.catalog.retention import FOREVER, Folder, Retentions
from hsmfs.engine.adopt import Adopter
from hsmfs.engine.files import Files
from hsmfs.engine.fsck import fsck
from hsmfs.errors import Conflict, NotFound
from hsmfs.pool.pools import Pools
from hsmfs.pool.store import Pool
from hsmfs.states import FileState, RetentionMode
from hsmfs.types import ROOT, Requester

STEPS = [
    "adopt.begin.committed", "adopt.intent.committed", "adopt.intent.synced", "adopt.file.moved",
    "adopt.file.moved:3", "adopt.names.synced", "adopt.inode.committed", "adopt.rows.synced",
    "adopt.name.removed", "adopt.name.removed:2", "adopt.folders.removed",
]  # fmt: skip
UNDO_STEPS = [
    "unadopt.dressed", "unadopt.rows.committed", "unadopt.rows.synced", "unadopt.file.moved",
    "unadopt.file.moved:3", "unadopt.names.synced", "unadopt.folders.committed",
    "unadopt.end.committed",
]  # fmt: skip


class World:
    """A pool, a catalog and a tree beside them."""

    def __init__(self, path):
        self.path = path
        self.tree = path / "nas"
        self.uuid = Pool.create(path / "pool")
        self.catalog = None

    def open(self):
        state = self.path / "state"
        make = Catalog.open if state.exists() else Catalog.create
        self.catalog = make(state)
        self.pool = Pool("p", self.path / "pool")
        return self

    async def start(self):
        async with self.catalog.write():
            self.pool.id = self.catalog.volumes.register_pool("p", "disk", self.uuid)
        self.pools = Pools([self.pool])
        self.files = Files(self.catalog, self.pools)
        self.adopter = Adopter(self.catalog, self.pools, self.files)

    def close(self):
        self.catalog.close()

    @property
    def source(self):
        return os.fsencode(self.tree)

    async def bytes_of(self, path):
        attr = self.catalog.names.resolve(path)
        live = self.files.open(attr.ino, write=False)
        try:
            return await self.files.read(live, 0, attr.size + 1, Requester())
        finally:
            self.files.close(live, write=False)

    async def picture(self):
        """The namespace as path -> what matters of it; hard links share a number."""
        found, groups = {}, {}
        todo = [(b"", ROOT)]
        while todo:
            above, folder = todo.pop()
            for _, name, attr in self.catalog.names.entries(folder, 0, 10**6):
                path = os.path.join(above, name)
                group = groups.setdefault(attr.ino, path) if not attr.is_dir else path
                data = await self.bytes_of(path) if attr.is_file else None
                found[path] = (
                    attr.mode, attr.uid, attr.gid, attr.mtime_ns, group, data,
                    self.catalog.inodes.target(attr.ino),
                    tuple(sorted(self.catalog.xattrs.all(attr.ino).items())),
                )  # fmt: skip
                if attr.is_dir:
                    todo.append((path, attr.ino))
        return found

    def tree_picture(self):
        """The tree on disk, in the same terms."""
        found, groups = {}, {}
        for folder, folders, files in os.walk(self.source):
            for name in sorted(folders + files):
                full = os.path.join(folder, name)
                path = os.path.relpath(full, self.source)
                seen = os.lstat(full)
                is_dir, is_file = stat.S_ISDIR(seen.st_mode), stat.S_ISREG(seen.st_mode)
                link = stat.S_ISLNK(seen.st_mode)
                group = path if is_dir else groups.setdefault(seen.st_ino, path)
                found[path] = (
                    seen.st_mode, seen.st_uid, seen.st_gid, seen.st_mtime_ns, group,
                    Path(os.fsdecode(full)).read_bytes() if is_file else None,
                    os.readlink(full) if link else None,
                    tuple(sorted(
                        (os.fsencode(n), os.getxattr(full, n, follow_symlinks=False))
                        for n in os.listxattr(full, follow_symlinks=False)
                    )),
                )  # fmt: skip
        return {p: canonical(found, v) for p, v in found.items()}


def canonical(found, value):
    """Hard links: the smallest path of the group stands for it."""
    group = value[4]
    names = sorted(p for p, v in found.items() if v[4] == group)
    return (*value[:4], names[0], *value[5:])


def plant(tree):
    """A tree with everything that a NAS has."""
    (tree / "a" / "deep" / "er").mkdir(parents=True)
    (tree / "empty").mkdir()
    (tree / "a" / "one").write_bytes(b"one" * 1000)
    (tree / "a" / "deep" / "two").write_bytes(b"")
    (tree / "a" / "deep" / "er" / "中文 space").write_bytes(os.urandom(5000))
    raw = os.path.join(os.fsencode(tree), b"a", b"\xff\xfe\n")
    with open(raw, "wb") as out:
        out.write(b"raw")
    os.link(tree / "a" / "one", tree / "z-link")
    os.symlink("a/one", tree / "sym")
    os.symlink("nowhere", tree / "a" / "dangling")
    os.mkfifo(tree / "pipe")
    os.chmod(tree / "a" / "one", 0o640)
    os.chmod(tree / "a" / "deep", 0o2750)
    os.setxattr(tree / "a" / "one", "user.colour", b"blue")
    with open(tree / "a" / "sparse", "wb") as out:
        out.truncate(1 << 20)
    for folder, folders, files in os.walk(tree, topdown=False):
        for name in (*files, *folders):
            os.utime(os.path.join(folder, name), ns=(11**17, 12**16 + 7), follow_symlinks=False)


@pytest.fixture
async def world(tmp_path):
    world = World(tmp_path)
    plant(world.tree)
    world.open()
    await world.start()
    yield world
    world.close()


def same(picture):
    return {p: canonical(picture, v) for p, v in picture.items()}


async def clean(world):
    report = await fsck(world.catalog, world.pools, files=world.files, deep=True)
    assert report.findings == []


async def test_a_tree_goes_over_whole(world):
    before = world.tree_picture()
    seen = []
    report = await world.adopter.adopt(world.source, progress=lambda r: seen.append(r.entries))
    assert report.done
    assert report.entries == report.total == len(before)
    assert seen
    assert same(await world.picture()) == before
    assert os.listdir(world.source) == []
    one = world.catalog.names.resolve(b"a/one")
    assert one.nlink == 2
    assert one.state == FileState.RESIDENT
    assert world.catalog.names.resolve(b"").nlink == 4
    await clean(world)


async def test_undo_gives_all_back(world):
    before = world.tree_picture()
    await world.adopter.adopt(world.source, b"/site")
    report = await world.adopter.undo(world.source)
    assert report.done
    assert world.tree_picture() == before
    assert await world.picture() == {}
    assert world.adopter.adoptions() == []
    assert list(world.pool.inodes()) == []
    await clean(world)


async def test_undo_takes_changes_along_and_leaves_what_is_new(world):
    await world.adopter.adopt(world.source)
    one = world.catalog.names.resolve(b"a/one")
    live = world.files.open(one.ino, write=True)
    await world.files.write(live, 0, b"NEW")
    world.files.close(live, write=True)
    async with world.catalog.write():
        world.catalog.names.create(ROOT, b"mine", stat.S_IFDIR | 0o755, 0, 0, 1)
        two = world.catalog.names.resolve(b"a/deep")
        world.catalog.names.rename(two.ino, b"two", ROOT, b"renamed", 5)
    report = await world.adopter.undo(world.source)
    assert report.done
    assert (world.tree / "a" / "one").read_bytes().startswith(b"NEWone")
    assert (world.tree / "a" / "deep" / "two").exists()
    assert set(await world.picture()) == {b"mine"}
    await clean(world)


async def test_undo_leaves_retention_folders(world):
    await world.adopter.adopt(world.source)
    folder = world.catalog.names.resolve(b"a/deep")
    kept = Folder(folder.ino, RetentionMode.COMPLIANCE, 0, 1, FOREVER, None)
    async with world.catalog.write():
        Retentions(world.catalog.db).set_folder(kept)
    report = await world.adopter.undo(world.source)
    assert report.done
    assert b"a/deep" in report.kept
    assert world.catalog.names.resolve(b"a/deep") is not None


async def test_undo_is_refused_once_a_file_was_migrated(world):
    await world.adopter.adopt(world.source)
    async with world.catalog.write():
        one = world.catalog.names.resolve(b"a/one")
        world.catalog.inodes.set_state(one.ino, FileState.PREMIGRATED)
    with pytest.raises(Conflict, match="were migrated"):
        await world.adopter.undo(world.source)
    assert os.listdir(world.source) == []


@pytest.mark.expect_log("not given back")
async def test_undo_leaves_open_files_for_the_next_time(world):
    before = world.tree_picture()
    await world.adopter.adopt(world.source)
    live = world.files.open(world.catalog.names.resolve(b"a/one").ino, write=False)
    report = await world.adopter.undo(world.source)
    assert report.failed == [(b"a/one", "is in use")]
    world.files.close(live, write=False)
    assert (await world.adopter.undo(world.source)).done
    assert world.tree_picture() == before
    await clean(world)


async def test_by_link_the_tree_stays(world):
    before = world.tree_picture()
    await world.adopter.adopt(world.source, link=True)
    assert world.tree_picture() == before
    assert same(await world.picture()) == before
    (world.tree / "new").write_bytes(b"later")
    assert (await world.adopter.adopt(world.source, link=True)).files == 1
    (world.tree / "new").unlink()
    assert (await world.adopter.undo(world.source)).done
    assert (world.tree / "new").read_bytes() == b"later"
    await clean(world)


async def test_folders_are_merged_and_taken_names_refused(world):
    async with world.catalog.write():
        names = world.catalog.names
        a = names.create(ROOT, b"a", stat.S_IFDIR | 0o700, 0, 0, 1)
        names.create(a.ino, b"mine", stat.S_IFIFO | 0o600, 0, 0, 1)
        names.create(a.ino, b"one", stat.S_IFIFO | 0o600, 0, 0, 1)
    with pytest.raises(Conflict, match="'a/one'"):
        await world.adopter.adopt(world.source)
    assert world.adopter.adoptions() == []
    async with world.catalog.write():
        names.unlink(a.ino, b"one", 2)
    assert (await world.adopter.adopt(world.source)).done
    assert names.resolve(b"a").mode == stat.S_IFDIR | 0o700
    assert names.resolve(b"a/mine") and names.resolve(b"a/one")
    assert (await world.adopter.undo(world.source)).done
    assert set(await world.picture()) == {b"a", b"a/mine"}
    assert (world.tree / "a" / "one").exists()


async def test_refusals(world, tmp_path):
    with pytest.raises(Conflict, match="contains or lies in pool p"):
        await world.adopter.adopt(os.fsencode(tmp_path))
    with pytest.raises(Conflict, match="contains or lies in the state folder"):
        await world.adopter.adopt(os.fsencode(tmp_path / "state"))
    with pytest.raises(NotFound):
        await world.adopter.adopt(world.source + b"/none")
    with pytest.raises(Conflict, match="another filesystem"):
        await world.adopter.adopt(b"/proc/self/fdinfo")
    with pytest.raises(NotFound):
        await world.adopter.undo(world.source)
    assert world.adopter.adoptions() == []


@pytest.mark.expect_log("not adopted")
async def test_a_name_taken_meanwhile_stays_in_the_tree(world):
    take = world.catalog.adoptions.put
    done = []

    def put(adoption, path, *rest):
        take(adoption, path, *rest)
        if path == b"a/sparse" and not done:
            done.append(path)
            a = world.catalog.names.resolve(b"a")
            world.catalog.names.create(a.ino, b"sparse", stat.S_IFIFO | 0o600, 0, 0, 1)

    world.catalog.adoptions.put = put
    report = await world.adopter.adopt(world.source)
    assert (b"a/sparse", "the name is taken in the namespace") in report.failed
    assert (world.tree / "a" / "sparse").stat().st_size == 1 << 20
    world.catalog.adoptions.put = take
    async with world.catalog.write():
        world.catalog.names.unlink(world.catalog.names.resolve(b"a").ino, b"sparse", 2)
        for orphan in world.catalog.inodes.unlinked():
            world.catalog.inodes.delete([orphan.ino])
    assert (await world.adopter.adopt(world.source)).done
    assert await world.bytes_of(b"a/sparse") == bytes(1 << 20)
    await clean(world)


def run_child(path, what, step):
    home = str(Path(__file__).parents[2])
    child = subprocess.run(
        [sys.executable, __file__, str(path), what],
        env={**os.environ, "HSMFS_CRASH": step, "PYTHONPATH": home},
    )
    assert child.returncode == -signal.SIGKILL, step


async def child(path, what):
    world = World(path).open()
    await world.start()
    await getattr(world.adopter, what)(world.source)


@pytest.mark.parametrize("step", STEPS)
def test_killed_while_adopting(tmp_path, step):
    world = World(tmp_path)
    plant(world.tree)
    before = world.tree_picture()
    run_child(tmp_path, "adopt", step)

    async def rest():
        world.open()
        await world.start()
        half = await fsck(world.catalog, world.pools)
        assert half.clean
        assert {f.check for f in half.findings} <= {"adoptions_have_ended"}
        await world.adopter.resume()
        known = set(await world.picture())
        assert known | set(world.tree_picture()) == set(before)
        assert (await world.adopter.adopt(world.source)).done
        assert same(await world.picture()) == before
        assert os.listdir(world.source) == []
        await clean(world)
        world.close()

    trio.run(rest)


@pytest.mark.parametrize("step", UNDO_STEPS)
def test_killed_while_giving_back(tmp_path, step):
    world = World(tmp_path)
    plant(world.tree)
    before = world.tree_picture()

    async def first():
        world.open()
        await world.start()
        await world.adopter.adopt(world.source)
        world.close()

    async def rest():
        world.open()
        await world.start()
        assert (await fsck(world.catalog, world.pools)).clean
        if world.adopter.adoptions():
            assert (await world.adopter.undo(world.source)).done
        assert world.tree_picture() == before
        assert await world.picture() == {}
        await clean(world)
        world.close()

    trio.run(first)
    run_child(tmp_path, "undo", step)
    trio.run(rest)


if __name__ == "__main__":
    trio.run(child, Path(sys.argv[1]), sys.argv[2])
