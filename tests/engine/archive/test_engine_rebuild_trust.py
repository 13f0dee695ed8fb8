"""Retention, holds and the audit log of a lost catalog come back from its discs."""

from __future__ import annotations

import shutil

import pytest

from hsmfs.catalog.catalog import Catalog
from hsmfs.catalog.retention import FOREVER, Folder
from hsmfs.engine.rebuild.run import Rebuild
from hsmfs.engine.rebuild.sources import Robot
from hsmfs.engine.trust.holds import Scope
from hsmfs.engine.trust.verify import verify
from hsmfs.states import Lock, RetentionMode

DAY = 86_400 * 10**9


async def commit(site, ino):
    async with site.catalog.write():
        attr = site.trust.retention.commit(site.files.attr(ino), "test")
        await site.files.setattr(ino, attr._replace(mode=attr.mode & ~0o222))


async def rebuilt(site):
    await site.library.close()
    site.catalog.close()
    shutil.rmtree(site.root / "state")
    work = Rebuild(site.config, Robot(site.config.library), lambda p: None, new_pools=False)
    report = await work.run()
    site.catalog = Catalog.open(site.root / "state")
    await site.start()
    return report


def kept(site, *inos):
    return [(site.trust.described(ino), bool(site.files.attr(ino).locked)) for ino in inos]


@pytest.mark.expect_log("too large for a disc")
@pytest.mark.parametrize("snapshots", [True, False])
async def test_all_of_it(snapshots, make_site, monkeypatch):
    site = await make_site()
    if not snapshots:
        monkeypatch.setattr("hsmfs.engine.backups.SNAPSHOT_SHARE", 10**6)
    r, wider = await site.folder(b"r"), await site.folder(b"wider")
    await site.trust.retention.set_folder(
        Folder(r, RetentionMode.ENTERPRISE, 0, DAY, 9 * DAY, 3 * DAY), "test"
    )
    early, late, deleted = [await site.file(name, 500, r) for name in (b"e", b"l", b"d")]
    held, free = await site.file(b"held", 500), await site.file(b"free", 500)
    async with site.running():
        await commit(site, early)
        await commit(site, deleted)
        await site.trust.holds.place("early", "manifest", Scope((early,)), "test")
        await site.archive(early, late, deleted, held, free)
        await commit(site, late)
        until = site.trust.clock.now_ns() + 5 * DAY
        await site.trust.retention.extend(site.files.attr(early), until, "test")
        await site.trust.holds.place("one", "case", Scope((held, free)), "test")
        await site.trust.holds.place("two", "case", Scope((held,)), "test")
        await site.trust.holds.add("two", Scope((wider,)), "test")
        await site.trust.holds.release("one", "settled", "test")
        await site.trust.retention.privileged_delete(site.files.attr(deleted), "test", "x", DAY)
        # What was done since the first disc lies on the next one.
        await site.archive(await site.file(b"other", 100))
    before = kept(site, early, late, held, free, deleted)
    folders, clock = site.trust.retention.folders(), site.trust.clock.now_ns()

    report = await rebuilt(site)
    assert "audit" not in report.lost
    assert kept(site, early, late, held, free, deleted) == before
    assert before[0][0]["until_ns"] == until
    assert site.files.attr(late).locked == Lock.RECORD
    assert site.trust.retention.folders() == folders
    assert site.trust.clock.now_ns() <= clock + DAY
    holds = {hold.name: (hold.reason, hold.stands) for hold in site.trust.holds.tables.all()}
    assert holds == {
        "early": ("manifest", True), "one": ("case", False), "two": ("case", True)
    }  # fmt: skip
    assert Scope.load(site.trust.holds.known("two").scope).inos == (held, wider)
    verdict = await verify(site.catalog)
    assert (verdict.breaks, verdict.anchors) == ((), 2)
    assert "rebuild.done" in [record.kind for record in site.trust.audit.log.after(0)]


@pytest.mark.expect_log("too large for a disc")
async def test_a_manifest_alone_says_it(site, monkeypatch):
    """No snapshot, and no part of the audit log can be read: the file's own line says it."""
    monkeypatch.setattr("hsmfs.engine.backups.SNAPSHOT_SHARE", 10**6)
    monkeypatch.setattr("hsmfs.engine.rebuild.harvest.Harvest.audit", lambda self: [])
    r = await site.folder(b"r")
    await site.trust.retention.set_folder(
        Folder(r, RetentionMode.COMPLIANCE, 0, DAY, FOREVER, None), "test"
    )
    ino = await site.file(b"f", 500, r)
    async with site.running():
        await commit(site, ino)
        await site.trust.holds.place("one", "case", Scope((ino,)), "test")
        await site.archive(ino)
    before, folders = kept(site, ino), site.trust.retention.folders()
    await rebuilt(site)
    assert kept(site, ino) == before
    assert site.trust.retention.folders() == folders
