"""A tree back to a time: deletions, renames, overwrites, what was made; nothing is destroyed."""

from __future__ import annotations

import json

import pytest

from hsmfs import clock
from hsmfs.engine.fsck import fsck
from hsmfs.engine.rollback import Report
from hsmfs.types import ROOT, Requester

KEEP = 10**15


class Tree:
    """What users do to the namespace, as the mount does it."""

    def __init__(self, world) -> None:
        self.world, self.engine = world, world.engine
        self.names = world.engine.catalog.names

    def at(self, path: str):
        return self.names.resolve(path.strip("/").encode())

    def _split(self, path: str):
        above, _, name = path.strip("/").rpartition("/")
        return self.at(above).ino if above else ROOT, name.encode()

    async def folder(self, path: str) -> None:
        async with self.engine.catalog.write():
            self.names.create(*self._split(path), 0o40755, 0, 0, clock.now_ns())

    async def file(self, path: str, data: bytes) -> int:
        engine = self.engine
        async with engine.catalog.write():
            pool = engine.pools.for_new().id
            now = clock.now_ns()
            ino = self.names.create(*self._split(path), 0o100640, 5, 6, now, pool=pool).ino
        await self.write(ino, data)
        return ino

    async def write(self, ino: int, data: bytes) -> None:
        files = self.engine.files
        live = files.open(ino, write=True)
        await files.truncate(live, 0)
        if data:
            await files.write(live, 0, data)
        files.close(live, write=True)
        await files.flush_closed()

    async def delete(self, path: str) -> None:
        async with self.engine.catalog.write():
            parent, name = self._split(path)
            take = self.names.rmdir if self.at(path).is_dir else self.names.unlink
            gone = take(parent, name, clock.now_ns())
            self.engine.files.touch_links(gone)
            if gone.nlink:
                self.engine.catalog.history.unlinked(gone.ino, (parent, name), clock.now_ns())
            else:
                self.engine.catalog.trash.put(gone.ino, parent, name, clock.now_ns(), KEEP)

    async def move(self, path: str, to: str) -> None:
        async with self.engine.catalog.write():
            old, new, now = self._split(path), self._split(to), clock.now_ns()
            moved, replaced = self.names.rename(*old, *new, now)
            self.engine.files.touch_links(moved)
            self.engine.catalog.history.moved(moved.ino, old, new, now)
            if replaced is not None and not replaced.nlink:
                self.engine.catalog.trash.put(replaced.ino, *new, now, KEEP)

    async def read(self, path: str) -> bytes:
        attr = self.at(path)
        live = self.engine.files.open(attr.ino, write=False)
        data = await self.engine.files.read(live, 0, attr.size, Requester())
        self.engine.files.close(live, write=False)
        return data

    def paths(self, folder: str = "") -> set[str]:
        rows = self.names.entries(self.at(folder).ino, 0, 1000)
        found = set()
        for _, name, attr in rows:
            path = f"{folder}/{name.decode()}"
            found |= {path} | (self.paths(path) if attr.is_dir else set())
        return found


@pytest.fixture
async def tree(world):
    tree = Tree(world)
    await tree.folder("/t")
    await tree.folder("/t/sub")
    await tree.folder("/t/none")
    yield tree
    await world.engine.files.flush_closed()
    report = await fsck(world.engine.catalog, world.engine.pools, files=world.engine.files)
    assert [f for f in report.findings if f.severity.name != "NOTE"] == []


async def archive(world) -> None:
    order = {"paths": [{"path": "/t"}], "now": True, "wait": True}
    answer = await world.post("/archive", order)
    assert json.loads(answer.text.splitlines()[-1])["failed"] == 0


async def rollback(world, to_ns: int, **more):
    answer = await world.post("/rollback", {"path": {"path": "/t"}, "to_ns": to_ns, **more})
    end = json.loads(answer.text.splitlines()[-1])
    assert end.pop("kind", "") == "end", end
    return end


async def test_everything_that_ransomware_does_is_undone(world, tree):
    old = {f"/t/sub/f{n}": bytes([n]) * 100_000 for n in range(6)}
    inos = {path: await tree.file(path, data) for path, data in old.items()}
    await tree.file("/t/sub/empty", b"")
    hollow = await tree.file("/t/sub/hollow", b"")
    mtime = world.engine.files.attr(hollow).mtime_ns
    await archive(world)
    before, then = tree.paths(), clock.now_ns()

    await tree.write(inos["/t/sub/f0"], b"encrypted")  # in place
    await tree.write(tree.at("/t/sub/hollow").ino, b"encrypted")
    await tree.write(inos["/t/sub/f1"], b"encrypted")  # and renamed
    await tree.move("/t/sub/f1", "/t/sub/f1.locked")
    await tree.file("/t/sub/f2.locked", b"encrypted")  # a copy, then deleted
    await tree.delete("/t/sub/f2")
    await tree.file("/t/sub/tmp", b"encrypted")  # a copy renamed over it
    await tree.move("/t/sub/tmp", "/t/sub/f3")
    await tree.write(inos["/t/sub/f4"], b"encrypted")  # overwritten, then deleted
    await tree.delete("/t/sub/f4")
    await tree.move("/t/sub/f5", "/t/f5")  # moved twice, to a new folder
    await tree.folder("/t/new")
    await tree.move("/t/f5", "/t/new/x")
    await tree.delete("/t/sub/empty")
    await tree.delete("/t/none")
    await tree.file("/t/README", b"pay")

    dry = await rollback(world, then, dry_run=True)
    assert dry["failures"] == 0 and "/t/README" in tree.paths()
    done = await rollback(world, then)
    assert (done["failures"], done["failed"]) == (0, [])
    assert tree.paths() == before
    assert (tree.at("/t/sub/hollow").size, tree.at("/t/sub/hollow").mtime_ns) == (0, mtime)
    for path, data in old.items():
        assert await tree.read(path) == data, path
        attr = tree.at(path)
        assert (attr.uid, attr.gid, attr.mode & 0o777) == (5, 6, 0o640)
    kept = {e.path for e in await world.engine.trash.entries()}
    assert {b"t/README", b"t/sub/f0", b"t/new"} <= kept
    records = [r for r in world.engine.trust.audit.log.after(0) if r.kind == "tree.rolled_back"]
    assert [(r.actor, r.object) for r in records] == [("root(0)", "/t")]


async def test_what_was_on_no_disc_is_named(world, tree):
    ino = await tree.file("/t/young", b"bytes")
    then = clock.now_ns()
    await tree.write(ino, b"encrypted")
    dry = await rollback(world, then, dry_run=True)
    done = await rollback(world, then)
    assert dry == done and dry["unkept"] == 1
    assert done["failures"] == 1 and "on no disc" in done["failed"][0]["error"]
    assert await tree.read("/t/young") == b"encrypted"


async def test_a_rollback_can_be_rolled_back(world, tree):
    ino = await tree.file("/t/a", b"a" * 50_000)
    await archive(world)
    then = clock.now_ns()
    await tree.write(ino, b"new")
    await tree.file("/t/b", b"b")
    await rollback(world, then)
    assert await tree.read("/t/a") == b"a" * 50_000
    trash = {e.path: e.attr.ino for e in await world.engine.trash.entries()}
    await tree.delete("/t/a")
    await world.engine.trash.restore(trash[b"t/a"])
    await world.engine.trash.restore(trash[b"t/b"])
    assert (await tree.read("/t/a"), await tree.read("/t/b")) == (b"new", b"b")


async def test_hard_links_records_and_other_trees(world, tree):
    ino = await tree.file("/t/a", b"a" * 1000)
    await tree.file("/other", b"o")
    await archive(world)
    async with world.engine.catalog.write():
        tree.names.link(ino, tree.at("/t/sub").ino, b"link", clock.now_ns())
    then = clock.now_ns()
    await tree.write(ino, b"bad")
    await tree.delete("/other")
    await tree.delete("/t/sub/link")
    await tree.file("/t/new", b"n")
    record = tree.at("/t/new").ino
    async with world.engine.catalog.write():
        world.engine.files.lock(record, 1)
    done = await rollback(world, then)
    assert [f["path"] for f in done["failed"]] == ["/t/new"]
    assert tree.at("/t/a").ino == tree.at("/t/sub/link").ino != ino
    assert tree.at("/t/a").nlink == 2 and tree.at("/other") is None
    assert await tree.read("/t/sub/link") == b"a" * 1000
    async with world.engine.catalog.write():
        world.engine.files.lock(record, 0)


@pytest.mark.expect_log("job failed")
async def test_a_time_before_the_trash_is_refused(world, tree):
    answer = await world.post("/rollback", {"path": {"path": "/t"}, "to_ns": 1})
    assert json.loads(answer.text.splitlines()[-1])["exit_code"] == 5


async def test_undelete_by_path_and_time(world, tree):
    await tree.file("/t/sub/a", b"1")
    await tree.file("/t/b", b"2")
    await tree.delete("/t/b")
    then = clock.now_ns()
    await tree.delete("/t/sub/a")
    await tree.delete("/t/sub")
    await tree.file("/t/b", b"3")
    order = {"paths": [{"path": "/t"}], "since_ns": then}
    dry = (await world.post("/undelete", order | {"dry_run": True})).json()
    assert {e["path"] for e in dry["restored"]} == {"/t/sub", "/t/sub/a"}
    assert (await world.post("/undelete", order)).json()["failed"] == []
    assert await tree.read("/t/sub/a") == b"1"
    found = (await world.post("/undelete", {"paths": [{"path": "/t/b"}]})).json()
    assert found["restored"] == [] and "exists" in found["failed"][0]["error"]


async def test_what_its_user_does_meanwhile_is_not_taken_for_the_past(world, tree, monkeypatch):
    catalog, then = world.engine.catalog, clock.now_ns()
    old = await tree.file("/t/a", b"old")
    await tree.move("/t/a", "/t/b")
    (move,) = await catalog.read(lambda r: r.history.moves_since(then, 2**62, 9))
    real = catalog.write

    class AfterTheUser:
        async def __aenter__(self):
            monkeypatch.undo()
            await tree.move("/t/b", "/t/c")
            await tree.file("/t/b", b"new")
            await real().__aenter__()

        async def __aexit__(self, *fault):
            await real().__aexit__(*fault)

    monkeypatch.setattr(catalog, "write", AfterTheUser)
    found = Report()
    await world.engine.rollback._undo_move(move, tree.at("/t").ino, found, False)
    assert found == Report()
    assert tree.at("/t/c").ino == old and tree.at("/t/a") is None
    assert await tree.read("/t/b") == b"new"


@pytest.mark.expect_log("very much was deleted")
async def test_a_burst_is_an_alarm_and_freezes_the_trash(world, tree):
    engine = world.engine
    engine.burst._config = engine.config.trash.model_copy(update={"alarm": 5, "freeze": True})
    ino = await tree.file("/t/a", b"a")
    await archive(world)
    for n in range(3):
        await tree.file(f"/t/{n}", b"")
        await tree.delete(f"/t/{n}")
    assert await engine.burst.look() == 3 and not engine.burst.frozen
    await tree.write(ino, b"b")
    await tree.file("/t/x", b"")
    await tree.delete("/t/x")
    await engine.burst.look()
    assert engine.burst.frozen
    assert [e.kind for e in engine.events.since(0)].count("burst") == 1
    gone = engine.catalog.trash.kept()[0].attr.ino
    async with engine.catalog.write():
        engine.catalog.trash.put(gone, tree.at("/t").ino, b"0", 1, 1)
    assert await engine.housekeeper._purge_due() == 0
    assert (await world.post("/trash/freeze", {"frozen": False})).json()["ok"]
    assert await engine.housekeeper._purge_due() == 1


async def test_retention_folders_stay_where_they_are(world, tree):
    then = clock.now_ns()
    await tree.move("/t/sub", "/t/moved")
    await tree.folder("/t/made")
    for path in ("/t/moved", "/t/made"):
        body = {"path": {"path": path}, "mode": "compliance", "default_s": 60}
        assert (await world.post("/retention/folders", body)).status_code == 200
    done = await rollback(world, then)
    assert sorted(f["path"] for f in done["failed"]) == ["/t/made", "/t/moved"]
    assert {"/t/moved", "/t/made"} <= tree.paths()


async def test_what_is_frozen_can_be_taken_back_to_for_as_long(world, tree, monkeypatch):
    then = clock.now_ns()
    await tree.file("/t/new", b"x")
    assert (await world.post("/trash/freeze", {"frozen": True})).json()["ok"]
    much = clock.now_ns() + 2 * int(world.engine.config.trash.keep * 1e9)
    monkeypatch.setattr(clock.WALL, "now_ns", lambda: much)
    await world.engine.burst.freeze(True, "again")  # and it stands since the first time
    assert (await rollback(world, then, dry_run=True))["set_aside"] == 1


async def test_a_file_that_was_touched_is_as_it_was(world, tree):
    ino = await tree.file("/t/a", b"bytes")
    tick = tree.engine.files.last_change_ns(tree.at("/t/a"))
    attr = world.engine.files.attr(ino)
    monday = tick + 10**12
    async with world.engine.catalog.write():
        await world.engine.files.setattr(ino, attr._replace(mtime_ns=monday + 1))
    found = Report()
    await world.engine.rollback._revert(tree.at("/t/a"), monday, found, dry_run=True)
    assert (found.failures, found.reverted) == (0, 0)
    await world.engine.rollback._revert(tree.at("/t/a"), tick - 1, found, dry_run=True)
    assert found.unkept == 1
