"""The compliance clock, autocommit and holds, in simulated time."""

from __future__ import annotations

import stat

import pytest
import trio

from hsmfs import clock
from hsmfs.catalog.catalog import Catalog
from hsmfs.catalog.retention import Folder
from hsmfs.engine.events import Events
from hsmfs.engine.files import Files
from hsmfs.engine.trash import TrashCan
from hsmfs.engine.trust import Trust
from hsmfs.engine.trust.holds import Scope
from hsmfs.errors import Conflict, Forbidden
from hsmfs.pool.pools import Pools
from hsmfs.pool.store import Pool
from hsmfs.states import Lock, RetentionMode
from hsmfs.types import ROOT

S = 10**9
START = 1_900_000_000 * S


class World:
    """A catalog and its trust on a machine whose clocks are simulated."""

    def __init__(self, path) -> None:
        self.path = path
        Pool.create(path / "pool")
        self.catalog = Catalog.create(path / "state")

    async def start(self) -> None:
        pool = Pool("p", self.path / "pool")
        async with self.catalog.write():
            pool.id = self.catalog.volumes.register_pool("p", "disk", Pool.uuid_at(pool.path))
        self.pool = pool
        self.files = Files(self.catalog, Pools([pool]))
        self.trust = Trust(self.catalog, self.files)
        await self.trust.begin()

    async def restart(self) -> None:
        self.catalog.close()
        self.catalog = Catalog.open(self.path / "state")
        await self.start()

    async def file(self, name: bytes, parent: int = ROOT) -> int:
        async with self.catalog.write():
            attr = self.catalog.names.create(
                parent, name, stat.S_IFREG | 0o644, 0, 0, clock.now_ns(), pool=self.pool.id
            )
            self.trust.retention.arrived(attr, parent)
        return attr.ino

    async def touch(self, ino: int) -> None:
        attr = self.files.attr(ino)
        async with self.catalog.write():
            await self.files.setattr(ino, attr._replace(ctime_ns=clock.now_ns()))

    def kinds(self) -> list[str]:
        return [record.kind for record in self.trust.audit.log.after(0)]


@pytest.fixture
async def world(tmp_path, autojump_clock):
    clock.WALL.set(START)
    clock.BOOT.simulate()
    made = World(tmp_path)
    await made.start()
    yield made
    made.catalog.close()
    clock.WALL.__init__()
    clock.BOOT.__init__()


async def folder(world, idle=None, default=100):
    async with world.catalog.write():
        ino = world.catalog.names.create(ROOT, b"r", stat.S_IFDIR | 0o755, 0, 0, 1).ino
    await world.trust.retention.set_folder(
        Folder(ino, RetentionMode.COMPLIANCE, 0, default * S, 1000 * S, idle and idle * S), "test"
    )
    return ino


async def test_the_clock_runs_through_restarts_and_not_while_it_is_off(autojump_clock, world):
    assert world.trust.clock.now_ns() == START
    await trio.sleep(50)
    await world.restart()
    assert world.trust.clock.now_ns() == START + 50 * S
    await trio.sleep(20)
    await world.trust.end()
    await trio.sleep(1000)  # the machine is off
    clock.BOOT.reboot()
    await world.restart()
    assert world.trust.clock.now_ns() == START + 70 * S
    await trio.sleep(5)
    assert world.trust.clock.now_ns() == START + 75 * S
    assert world.kinds().count("clock.off") == 1


@pytest.mark.parametrize("by", [-10**6, 10**6])
@pytest.mark.expect_log("the wall clock was set")
async def test_setting_the_wall_clock_does_nothing_and_is_on_record(autojump_clock, world, by):
    await trio.sleep(10)
    clock.WALL.set(clock.now_ns() + by * S)
    await world.trust.look()
    assert world.trust.clock.now_ns() == START + 10 * S
    (record,) = [r for r in world.trust.audit.log.after(0) if r.kind == "clock.jumped"]
    assert f'"by_ns":{by * S}' in record.detail
    await world.trust.look()
    assert world.kinds().count("clock.jumped") == 1


async def test_times_of_files_are_placed_on_it_across_jumps(autojump_clock, world):
    worm = world.trust.clock
    await trio.sleep(10)
    early = clock.now_ns()
    clock.WALL.set(clock.now_ns() - 5 * S)
    worm.look()
    await trio.sleep(20)
    late = clock.now_ns()
    assert worm.of_wall(early - 8 * S, 0) == START + 2 * S
    assert worm.of_wall(late, 0) == START + 30 * S
    assert worm.of_wall(late + 99 * S, 0) == START + 30 * S
    assert worm.of_wall(0, START) == START


@pytest.mark.expect_log("the wall clock was set")
async def test_autocommit_to_the_second(autojump_clock, world):
    r = await folder(world, idle=60)
    async with trio.open_nursery() as nursery:
        await nursery.start(world.trust.autocommit.run)
        ino = await world.file(b"a", r)
        await trio.sleep(30)
        await world.touch(ino)
        clock.WALL.set(START - 10**6 * S)
        await world.trust.look()
        await trio.sleep(59.9)
        assert not world.files.attr(ino).locked
        await trio.sleep(0.2)
        attr = world.files.attr(ino)
        assert attr.locked == Lock.RECORD and not attr.mode & 0o222
        record = world.trust.retention.tables.get(ino)
        assert record.committed_ns == START + 90 * S
        nursery.cancel_scope.cancel()
    assert record.until_ns == START + 190 * S


async def test_who_has_it_open_keeps_it_from_autocommit(autojump_clock, world):
    r = await folder(world, idle=60)
    ino = await world.file(b"a", r)
    live = world.files.open(ino, write=True)
    await trio.sleep(61)
    await world.trust.autocommit.look()
    assert not world.files.attr(ino).locked
    world.files.close(live, write=True)
    await trio.sleep(10)
    await world.trust.autocommit.look()
    assert world.files.attr(ino).locked == Lock.RECORD


async def test_expired_and_held(autojump_clock, world):
    r = await folder(world)
    ino = await world.file(b"a", r)
    async with world.catalog.write():
        attr = world.trust.retention.commit(world.files.attr(ino), "test")
    retention = world.trust.retention
    await trio.sleep(99)
    with pytest.raises(Forbidden, match="retained until 2030"):
        retention.may_lose_name(attr, "unlink")
    await trio.sleep(1)
    retention.may_lose_name(world.files.attr(ino), "unlink")
    async with world.catalog.write():
        hold = world.trust.holds.tables.place("h", "why", '{"inos":[],"searches":[]}', "me", 1)
        world.trust.holds.tables.add(hold, [ino])
        world.files.lock(ino, world.files.attr(ino).locked | Lock.HELD)
    with pytest.raises(Forbidden, match="held by h"):
        retention.may_lose_name(world.files.attr(ino), "unlink")


async def test_what_is_kept_is_not_purged(autojump_clock, world):
    r = await folder(world)
    ino = await world.file(b"a", r)
    async with world.catalog.write():
        world.trust.retention.commit(world.files.attr(ino), "test")
        world.catalog.names.unlink(r, b"a", 1)
        world.catalog.trash.put(ino, r, b"a", 1, 1)
    with pytest.raises(Conflict, match="retained"):
        await world.files.purge(ino)
    with pytest.raises(Exception, match="retained or held"):
        async with world.catalog.write():
            world.catalog.inodes.delete([ino])
    await trio.sleep(100)
    await world.files.purge(ino)
    assert world.files.attr(ino) is None
    assert world.kinds()[-1] == "file.purged"


async def test_a_hold_that_was_cut_off_in_its_release_ends_at_the_start(autojump_clock, world):
    ino = await world.file(b"a")
    async with world.catalog.write():
        tables = world.trust.holds.tables
        hold = tables.place("h", "why", '{"inos":[],"searches":[]}', "me", 1)
        tables.add(hold, [ino])
        world.files.lock(ino, Lock.HELD)
        tables.release(hold, "me", 2, "over")
    await world.restart()
    assert not world.files.attr(ino).locked


async def test_a_refusal_that_repeats_is_counted(autojump_clock, world):
    from hsmfs.types import Requester

    who = Requester(7, 1000, 1000, "rm")
    for _ in range(5):
        await world.trust.audit.refused("unlink", who, "/a", "retained")
    assert world.kinds().count("retention.refused") == 1
    await trio.sleep(11)
    await world.trust.audit.tell_repeated()
    last = list(world.trust.audit.log.after(0))[-1]
    assert (last.outcome, '"repeated":4' in last.detail) == ("refused", True)


async def test_what_comes_into_a_held_tree_is_held(autojump_clock, world):
    r = await folder(world)
    await world.trust.holds.place("case", "why", Scope((r,)), "me")
    ino = await world.file(b"later", r)
    async with trio.open_nursery() as nursery:
        await nursery.start(world.trust.run)
        with trio.fail_after(86_400):
            while not world.files.attr(ino).locked:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert world.files.attr(ino).locked == Lock.HELD
    assert world.trust.retention.why(world.files.attr(ino)) == "held by case"


async def test_new_files_are_watched_after_a_crash(autojump_clock, world):
    r = await folder(world, idle=60)
    ino = await world.file(b"a", r)  # noted in memory alone
    await world.restart()
    await trio.sleep(61)
    await world.trust.autocommit.look()
    assert world.files.attr(ino).locked == Lock.RECORD


async def test_a_start_looks_at_no_file_that_autocommit_need_not_see(autojump_clock, world):
    await world.file(b"elsewhere")
    await world.restart()
    r = await folder(world, idle=60)
    await world.trust.autocommit.watch(world.trust.retention.folders()[0])
    await world.file(b"also elsewhere")
    await world.trust.end()
    tables = world.trust.retention.tables
    assert tables.not_expected(0, 10) == []
    ino = await world.file(b"a", r)
    assert [found for _, found in tables.not_expected(0, 10)] == [ino]


async def test_a_crash_while_a_new_folder_is_looked_through_leaves_no_file_out(
    autojump_clock, world
):
    async with world.catalog.write():
        r = world.catalog.names.create(ROOT, b"r", stat.S_IFDIR | 0o755, 0, 0, 1).ino
    ino = await world.file(b"old", r)
    made = Folder(r, RetentionMode.COMPLIANCE, 0, 100 * S, 1000 * S, 60 * S)
    await world.trust.retention.set_folder(made, "test")
    await world.file(b"new", r)
    await world.trust.autocommit.flush()  # and the crash comes before the folder was gone through
    await world.restart()
    await trio.sleep(61)
    await world.trust.autocommit.look()
    assert world.files.attr(ino).locked == Lock.RECORD


async def test_a_folder_that_is_ordinary_again_leaves_no_file_closing(autojump_clock, world):
    r = await folder(world)
    ino = await world.file(b"a", r)
    async with world.catalog.write():
        world.trust.retention.commit(world.files.attr(ino), "test", writers=1)
    assert world.files.attr(ino).locked == Lock.CLOSING
    await world.trust.retention.drop_folder(r, "test")
    await world.trust.retention.finish_closing(ino, "test")
    assert not world.files.attr(ino).locked
    assert world.trust.retention.tables.get(ino) is None


async def delete(world, name, parent=ROOT):
    """To the trash, where its time is over at once."""
    async with world.catalog.write():
        is_dir = world.catalog.names.lookup(parent, name).is_dir
        names = world.catalog.names
        gone = (names.rmdir if is_dir else names.unlink)(parent, name, 1)
        world.files.touch_links(gone)
        world.catalog.trash.put(gone.ino, parent, name, 1, 1)


async def test_what_comes_out_of_the_trash_is_watched(autojump_clock, world):
    r = await folder(world, idle=60)
    ino = await world.file(b"a", r)
    await delete(world, b"a", r)
    await trio.sleep(61)
    await world.trust.autocommit.look()
    await TrashCan(world.catalog, world.files, Events()).restore(ino)
    await trio.sleep(61)
    await world.trust.autocommit.look()
    assert world.files.attr(ino).locked == Lock.RECORD


async def test_a_hold_on_a_tree_takes_what_was_deleted_from_it(autojump_clock, world):
    r = await folder(world)
    async with world.catalog.write():
        sub = world.catalog.names.create(r, b"sub", stat.S_IFDIR | 0o755, 0, 0, 1).ino
    inos = [await world.file(b"a", r), await world.file(b"b", sub), await world.file(b"c")]
    await world.trust.holds.place("case", "why", Scope((r,)), "me")
    for name, parent in ((b"a", r), (b"b", sub), (b"sub", r), (b"c", ROOT)):
        async with world.catalog.write():
            for ino in inos:
                world.files.lock(ino, 0)
        await delete(world, name, parent)
    async with world.catalog.write():
        world.catalog.db.execute("DELETE FROM held")  # as if they had come just before
    assert await world.trust.holds.apply("case", "me") == 2
    assert await world.files.purge_many(inos) == inos[:2]
    await world.trust.holds.release("case", "settled", "me")
    assert await world.files.purge_many(inos[:2]) == []
