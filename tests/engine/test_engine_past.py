"""The namespace as it was at a time: names, attributes, and bytes that are on discs only."""

from __future__ import annotations

import stat

import pytest
import trio

from hsmfs import clock
from hsmfs.catalog.past import BEGINS, MOVED
from hsmfs.engine import batches, passing
from hsmfs.engine.past import Past
from hsmfs.engine.stubs import Unkept
from hsmfs.errors import Conflict
from hsmfs.types import ROOT
from tests.engine.conftest import READER

pytestmark = pytest.mark.slow
KEEP_NS = 10**15


@pytest.fixture
async def past(lab):
    lab.past = Past(lab.engine.catalog, lab.engine.files, 10**6)
    return lab.past


async def write(lab, ino, data, at=0, cut=True):
    live = lab.engine.files.open(ino, write=True)
    if cut:
        await lab.engine.files.truncate(live, 0)
    await lab.engine.files.write(live, at, data)
    lab.engine.files.close(live, write=True)
    await lab.engine.files.flush_closed()


async def folder(lab, name, parent=ROOT):
    async with lab.engine.catalog.write():
        made = lab.engine.catalog.names.create(
            parent, name, stat.S_IFDIR | 0o755, 0, 0, clock.now_ns()
        )
    return made.ino


async def move(lab, old, new):
    """As the mount renames, with what it replaces."""
    catalog, now = lab.engine.catalog, clock.now_ns()
    async with catalog.write():
        moved, replaced = catalog.names.rename(*old, *new, now)
        catalog.history.moved(moved.ino, old, new, now)
        if replaced is not None:
            catalog.trash.put(replaced.ino, *new, now, KEEP_NS)


async def unlink(lab, parent, name):
    catalog, now = lab.engine.catalog, clock.now_ns()
    async with catalog.write():
        gone = catalog.names.unlink(parent, name, now)
        if gone.nlink:
            catalog.history.unlinked(gone.ino, (parent, name), now)
        else:
            catalog.trash.put(gone.ino, parent, name, now, KEEP_NS)


async def link(lab, ino, parent, name):
    catalog, now = lab.engine.catalog, clock.now_ns()
    async with catalog.write():
        catalog.names.link(ino, parent, name, now)
        catalog.history.linked(ino, (parent, name), now)


async def listed(past, where, then, limit=2):
    """Names and inodes by pages, which must agree with single lookups."""
    found, after = {}, 0
    while after is not None:
        page = await past.page(where, then, after, limit)
        assert len(page.names) <= limit
        for cookie, name, attr in page.names:
            assert cookie > after
            assert name not in found
            found[name] = attr.ino
        assert page.after is None or page.after > after
        after = page.after
    for name, ino in found.items():
        assert (await past.lookup(where, name, then)).ino == ino
    return found


async def read(lab, ino, then):
    live = await lab.past.open(ino, then)
    try:
        return await lab.engine.files.read(live, 0, 1 << 20, READER)
    finally:
        lab.engine.files.close(live, write=False)


async def swept(past, left):
    """Until so many stubs are left: the recaller may hold one for a moment."""
    with trio.fail_after(30):
        while len(past.stubs) > left:
            await past.stubs.sweep()
            await trio.sleep(0.01)
    assert len(past.stubs) == left


async def test_names_as_they_were(lab, past):
    top, other = await folder(lab, b"top"), await folder(lab, b"other")
    inos = {}
    for name in (b"stays", b"deleted", b"moved", b"replaced", b"two", b"swapped"):
        inos[name] = await lab.file(name, name)
        await move(lab, (ROOT, name), (top, name))
    await link(lab, inos[b"two"], top, b"second")
    then = clock.now_ns()
    before = inos | {b"second": inos[b"two"]}
    assert await listed(past, top, then) == before

    await unlink(lab, top, b"deleted")
    await move(lab, (top, b"moved"), (other, b"elsewhere"))
    new = await lab.file(b"new", b"new")
    async with lab.engine.catalog.write():  # `Lab.file` bears everything at the beginning of time
        lab.engine.catalog.db.execute(
            "UPDATE inodes SET btime_ns = ? WHERE ino = ?", (clock.now_ns(), new)
        )
    await move(lab, (ROOT, b"new"), (top, b"replaced"))
    await unlink(lab, top, b"second")
    await link(lab, inos[b"stays"], top, b"third")
    await move(lab, (top, b"swapped"), (top, b"moved"))  # into a name that was free by then
    now = clock.now_ns()
    assert await listed(past, top, then) == before
    assert await listed(past, other, then) == {}
    for name in (b"third", b"nothing"):
        assert await past.lookup(top, name, then) is None
    assert await listed(past, other, now) == {b"elsewhere": inos[b"moved"]}
    assert await listed(past, top, now) == {
        b"stays": inos[b"stays"], b"third": inos[b"stays"], b"two": inos[b"two"],
        b"replaced": new, b"moved": inos[b"swapped"],
    }  # fmt: skip

    # And a name that comes, goes and comes again is whose it was each time.
    await move(lab, (top, b"moved"), (top, b"swapped"))
    await unlink(lab, top, b"stays")
    assert await listed(past, top, then) == before
    assert (await listed(past, top, now))[b"moved"] == inos[b"swapped"]


async def test_folders_that_moved_and_went(lab, past):
    one, two = await folder(lab, b"one"), await folder(lab, b"two")
    inner = await folder(lab, b"inner", one)
    ino = await lab.file(b"f", b"bytes")
    await move(lab, (ROOT, b"f"), (inner, b"f"))
    then = clock.now_ns()
    await move(lab, (one, b"inner"), (two, b"inner"))
    await unlink(lab, inner, b"f")
    catalog, now = lab.engine.catalog, clock.now_ns()
    async with catalog.write():
        catalog.names.rmdir(two, b"inner", now)
        catalog.trash.put(inner, two, b"inner", now, KEEP_NS)
    assert await listed(past, one, then) == {b"inner": inner}
    assert await listed(past, two, then) == {}
    assert await listed(past, inner, then) == {b"f": ino}
    assert past.parent(inner, then) == one
    assert await read(lab, ino, then) == b"bytes"
    assert past.attr(inner, clock.now_ns()) is None
    assert past.attr(inner, then).mtime_ns <= then


async def test_bytes_as_they_were(lab, past, monkeypatch):
    ino = await lab.file(b"a", b"first")
    await lab.archive(ino)
    first = clock.now_ns()
    await write(lab, ino, b"the second")
    await lab.archive(ino, release=True)
    second = clock.now_ns()
    await write(lab, ino, b"third, on no disc")
    third = clock.now_ns()
    for then, data in ((first, b"first"), (second, b"the second"), (third, b"third, on no disc")):
        was = past.attr(ino, then)
        assert (was.size, was.ino) == (len(data), ino)
        assert was.mtime_ns <= then
        assert await read(lab, ino, then) == data
    assert len(past.stubs) == 2

    # What was read goes again, and leaves nothing behind; the file's own copies are alive.
    monkeypatch.setattr(passing, "IDLE_SECONDS", 0.0)
    held = await past.open(ino, first)
    await swept(past, 1)
    lab.engine.files.close(held, write=False)
    await swept(past, 0)
    catalog = lab.engine.catalog
    assert catalog.inodes.unlinked() == []
    assert {copy.ino for copy in catalog.copies.all_of(ino)} == {ino}
    assert catalog.db.execute("SELECT count(*) FROM copies WHERE ino != ?", (ino,)).get == 0
    assert await read(lab, ino, first) == b"first"


async def test_bytes_that_nobody_kept_are_said_to_be_lost(lab, past):
    ino = await lab.file(b"a", b"first")
    then = clock.now_ns()
    await write(lab, ino, b"second")
    was = past.attr(ino, then)
    assert (was.size, was.state, was.ino) == (0, None, ino)
    with pytest.raises(Unkept):
        await past.open(ino, then)
    await lab.archive(ino)
    then = clock.now_ns()
    await write(lab, ino, b"third")
    async with lab.engine.catalog.write():
        lab.engine.catalog.db.execute("UPDATE copies SET state = 3 WHERE ino = ?", (ino,))
    with pytest.raises(Conflict, match="no disc"):
        await past.open(ino, then)
    assert await lab.read(ino) == b"third"


async def test_an_mtime_ahead_of_its_time_is_none_of_a_change(lab, past):
    """A client with a fast clock: what is on a disc since is known to be the same."""
    ino = await lab.file(b"a", b"first")
    live = lab.engine.files.hold(ino)
    ahead = clock.now_ns() + 10**15
    await lab.engine.files.setattr(ino, live.attr._replace(mtime_ns=ahead))
    lab.engine.files.drop(live)
    await lab.archive(ino)
    then = clock.now_ns()
    assert await read(lab, ino, then) == b"first"


async def test_how_far_it_reaches(lab):
    past = Past(lab.engine.catalog, lab.engine.files, 100.0)
    now = clock.now_ns()
    assert past.reaches(now)
    assert not past.reaches(now + 10**11)
    assert not past.reaches(now - 101 * 10**9)
    assert MOVED > 2**59
    async with lab.engine.catalog.write():
        lab.engine.catalog.db.execute("INSERT INTO meta VALUES (?, ?)", (BEGINS, now))
    assert past.reaches(now)
    assert not past.reaches(now - 1)


async def test_others_get_their_turn_while_many_names_are_listed(lab, past, monkeypatch):
    where = await folder(lab, b"many")
    for number in range(20):
        await folder(lab, b"%d" % number, where)
    then = clock.now_ns()
    await past.page(where, then, 0, 1)  # what changed is known from here on
    monkeypatch.setattr(batches, "BATCH_SECONDS", 0)
    turns = 0
    async with trio.open_nursery() as nursery:

        async def others():
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        nursery.start_soon(others)
        page = await past.page(where, then, 0, 100)
        nursery.cancel_scope.cancel()
    assert len(page.names) == 20
    assert turns >= 10


async def test_a_file_that_was_touched_is_read_as_it_was(lab, past):
    ino = await lab.file(b"a", b"first")
    then = past._files.last_change_ns(past._files.attr(ino))
    attr = past._files.attr(ino)._replace(mtime_ns=then + 10**12)
    await past._files.setattr(ino, attr)
    assert await read(lab, ino, then) == b"first"
    with pytest.raises(Unkept):
        await past.open(ino, then - 1)


async def test_it_reaches_as_far_as_when_the_trash_was_frozen(lab):
    past, now = Past(lab.engine.catalog, lab.engine.files, 100.0), clock.now_ns()
    async with lab.engine.catalog.write():
        lab.engine.catalog.trash.freeze(now - 50 * 10**9)
        lab.engine.catalog.db.execute("UPDATE inodes SET btime_ns = 1 WHERE ino = ?", (ROOT,))
    assert past.reaches(now - 149 * 10**9)
    assert not past.reaches(now - 151 * 10**9)
    async with lab.engine.catalog.write():
        lab.engine.catalog.trash.thaw()
    assert not past.reaches(now - 149 * 10**9)
