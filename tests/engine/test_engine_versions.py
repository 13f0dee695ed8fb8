"""Older versions of a path: listed, and brought back without destroying anything."""

from __future__ import annotations

import pytest

from hsmfs.errors import Conflict, NotFound
from hsmfs.states import Lock, VolumeState
from hsmfs.types import ROOT

pytestmark = pytest.mark.slow


async def write(lab, ino, data):
    live = lab.engine.files.open(ino, write=True)
    await lab.engine.files.truncate(live, 0)
    await lab.engine.files.write(live, 0, data)
    lab.engine.files.close(live, write=True)
    await lab.engine.files.flush_closed()


async def views(lab, path=b"/a"):
    return [(v.id, v.where, v.size) for v in await lab.engine.versions.of(path, None)]


async def restore(lab, version, to=None):
    await lab.engine.versions.restore(b"/a", version, to, "test", None)
    return await lab.read(lab.engine.catalog.names.resolve((to or b"/a")[1:]).ino)


async def test_versions_of_one_file_and_of_its_name(lab):
    names, catalog = lab.engine.catalog.names, lab.engine.catalog
    ino = await lab.file(b"a", b"one")
    await lab.archive(ino)
    await write(lab, ino, b"second")
    await lab.archive(ino)
    await write(lab, ino, b"never on a disc")
    assert await views(lab) == [
        (f"{ino}.3", "now", 15), (f"{ino}.2", "discs", 6), (f"{ino}.1", "discs", 3)
    ]  # fmt: skip
    assert await restore(lab, f"{ino}.2", b"/b") == b"second"
    assert await lab.read(ino) == b"never on a disc"
    with pytest.raises(Conflict, match="exists"):
        await restore(lab, f"{ino}.1", b"/b")
    # In its place: what was there goes to the trash, with all its versions.
    assert await restore(lab, f"{ino}.1") == b"one"
    new = names.resolve(b"a").ino
    assert await views(lab) == [
        (f"{new}.1", "now", 3), (f"{ino}.3", "trash", 15), (f"{ino}.2", "discs", 6),
        (f"{ino}.1", "discs", 3),
    ]  # fmt: skip
    assert await restore(lab, f"{ino}.3") == b"never on a disc"
    assert names.resolve(b"a").ino == ino
    with pytest.raises(Conflict, match="there now"):
        await restore(lab, f"{ino}.3")
    kinds = [record.kind for record in lab.engine.trust.audit.log.after(0)]
    assert kinds.count("file.restored") == 3
    async with catalog.write():
        lab.engine.files.lock(ino, Lock.HELD)
    with pytest.raises(Conflict, match="held"):
        await restore(lab, f"{ino}.2")


@pytest.mark.expect_log("order|retired|replac")
async def test_a_disc_with_a_version_that_is_kept_is_not_retired(lab):
    ino = await lab.file(b"a", b"one")
    await lab.archive(ino)
    disc, _ = lab.disc(ino)
    await write(lab, ino, b"second")
    await lab.archive(ino)
    catalog, refresher = lab.engine.catalog, lab.engine.refresher
    await refresher.ask([disc], "refresh", "test")
    await lab.until(lambda: "1 older versions" in catalog.refreshes.get(disc.id).error)
    assert catalog.volumes.get(disc.id).state is VolumeState.FULL
    assert await restore(lab, f"{ino}.1", b"/b") == b"one"
    async with catalog.write():  # a long time later
        catalog.db.execute("UPDATE versions SET ended_ns = 1")
        catalog.names.unlink(ROOT, b"b", 1)
    kept = catalog.refreshes.kept_versions
    assert (kept(disc.id, 2, 0), kept(disc.id, 2, 1), kept(disc.id, 0, 0)) == (0, 1, 1)


async def test_what_cannot_be_had_is_said(lab):
    ino = await lab.file(b"a", b"one")
    await lab.archive(ino)
    await write(lab, ino, b"second")
    async with lab.engine.catalog.write():
        lab.engine.catalog.db.execute("UPDATE copies SET state = 3 WHERE ino = ?", (ino,))
    assert await views(lab) == [(f"{ino}.2", "now", 6), (f"{ino}.1", "lost", 3)]
    with pytest.raises(Conflict, match="no disc"):
        await restore(lab, f"{ino}.1")
    assert lab.engine.catalog.names.lookup(ROOT, b"a").ino == ino
    with pytest.raises(NotFound):
        await restore(lab, "999.1")
    with pytest.raises(NotFound):
        await views(lab, b"/nothing")
