"""Retention, holds and the audit log through the API."""

from __future__ import annotations

import json

import pytest

from hsmfs.types import InodeNo

DAY = 86_400


@pytest.fixture
async def folder(world):
    """A retention folder of enterprise mode; `await folder(**changes)` changes its settings."""
    async with world.engine.catalog.write():
        world.engine.catalog.names.create(InodeNo(1), b"r", 0o040755, 0, 0, 1)

    async def set_(**changes):
        body = {"path": {"path": "/r"}, "mode": "enterprise", "default_s": DAY} | changes
        return await world.post("/retention/folders", body)

    assert (await set_()).status_code == 200
    return set_


async def record(world, name=b"file"):
    """A record in /r."""
    engine = world.engine
    ino = await world.file(name, b"bytes")
    async with engine.catalog.write():
        names = engine.catalog.names
        names.rename(InodeNo(1), name, names.resolve(b"r").ino, name, 1)
        made = engine.trust.retention.commit(engine.files.attr(ino), "test")
        await engine.files.setattr(ino, made)
    return ino


async def kinds(world, **wanted):
    answer = await world.get("/audit", **wanted)
    return [json.loads(line)["kind"] for line in answer.text.splitlines()]


async def test_a_folder_and_its_records(world, folder):
    await record(world)
    found = (await world.get("/retention/folders")).json()["folders"]
    assert [(f["path"], f["mode"], f["records"], f["retained"]) for f in found] == [
        ("/r", "enterprise", 1, 1)
    ]
    file = (await world.get("/retention/file", path="/r/file")).json()
    assert (file["state"], file["mode"], file["folder"]) == ("retained", "enterprise", "/r")
    answer = await world.post("/retention/folders/unset", {"path": {"path": "/r"}})
    assert answer.status_code == 409


async def test_extended_but_not_shortened(world, folder):
    await record(world)
    before = (await world.get("/retention/file", path="/r/file")).json()["until_ns"]
    order = {"paths": [{"path": "/r/file"}], "until_ns": before + 10**9}
    assert (await world.post("/retention/extend", order)).json()["detail"]["until_ns"] == [
        before + 10**9
    ]
    answer = await world.post("/retention/extend", order | {"until_ns": before})
    assert (answer.status_code, answer.json()["exit_code"]) == (403, 20)


@pytest.mark.parametrize("mode", ["enterprise", "compliance"])
async def test_privileged_delete(mode, world, folder):
    await folder(mode=mode)
    ino = await record(world)
    answer = await world.post("/retention/delete", {"path": {"path": "/r/file"}, "reason": "why"})
    if mode == "compliance":
        assert answer.status_code == 403
        assert (await world.get("/info", path="/r/file")).status_code == 200
        return
    assert answer.status_code == 200
    assert (await world.get("/info", path="/r/file")).status_code == 404
    assert [item["ino"] for item in (await world.get("/trash")).json()] == [ino]
    assert "retention.privileged_delete" in await kinds(world)


async def test_compliance_mode_is_not_left_while_it_has_records(world, folder):
    await folder(mode="compliance")
    await record(world)
    assert (await folder(mode="enterprise")).status_code == 409
    assert (await folder(mode="compliance", default_s=2 * DAY)).status_code == 200


async def test_folders_do_not_nest(world, folder):
    answer = await world.post(
        "/retention/folders", {"path": {"path": "/"}, "mode": "enterprise", "default_s": 1}
    )
    assert answer.status_code == 409


async def test_holds(world):
    inos = [await world.file(name, b"x") for name in (b"a.txt", b"b.txt", b"c")]
    place = {"reason": "case", "paths": [{"path": "/a.txt"}]}
    assert (await world.post("/holds", place | {"name": "one"})).json()["detail"]["files"] == 1
    both = {"name": "two", "reason": "case", "search": {"name": "*.txt"}}
    assert (await world.post("/holds", both)).json()["detail"]["files"] == 2
    assert (await world.post("/holds", both)).status_code == 409

    file = (await world.get("/retention/file", path="/a.txt")).json()
    assert file["holds"] == ["one", "two"]
    locked = [bool(world.engine.files.attr(ino).locked) for ino in inos]
    assert locked == [True, True, False]

    await world.file(b"d.txt", b"x")
    assert (await world.post("/holds/two/apply")).json()["detail"]["files"] == 1
    release = {"reason": "settled"}
    assert (await world.post("/holds/two/release", release)).json()["detail"]["files"] == 3
    locked = [bool(world.engine.files.attr(ino).locked) for ino in inos]
    assert locked == [True, False, False]
    assert (await world.post("/holds/two/release", release)).status_code == 409
    assert [h["name"] for h in (await world.get("/holds")).json()] == ["one"]
    assert len((await world.get("/holds", everything=True)).json()) == 2
    assert await kinds(world, kind="hold.*") == [
        "hold.placed", "hold.added", "hold.placed", "hold.added", "hold.added", "hold.released",
    ]  # fmt: skip


async def test_a_hold_shows_what_is_in_the_trash_and_takes_no_link(world):
    engine = world.engine
    ino = await world.file(b"a", b"x")
    async with engine.catalog.write():
        names = engine.catalog.names
        names.create(InodeNo(1), b"link", 0o120777, 0, 0, 1, target=b"a")
        engine.files.touch_links(names.unlink(InodeNo(1), b"a", 5))
        engine.catalog.trash.put(ino, InodeNo(1), b"a", 5, 1 << 62)
    link = {"name": "case", "reason": "why", "paths": [{"path": "/link"}]}
    assert (await world.post("/holds", link)).status_code == 409
    assert (await world.post("/holds", link | {"paths": [{"path": "/"}]})).status_code == 200
    (held,) = (await world.get("/holds/case")).json()["held"]
    assert held == {"ino": ino, "path": "/a", "deleted": True}
    assert (await world.post("/trash/purge")).json()["detail"] == {"purged": 0, "kept": 1}
    assert (await world.post("/trash/restore", {"ino": ino})).status_code == 200
    assert engine.files.attr(ino).locked


async def test_an_order_is_on_record_also_if_it_fails(world):
    await world.post("/pin", {"paths": [{"path": "/nothing"}]})
    lines = [json.loads(line) for line in (await world.get("/audit")).text.splitlines()]
    order, failed = lines[-2:]
    assert (order["kind"], order["object"]) == ("admin.order", "/v1/pin")
    assert "/nothing" in json.loads(order["detail"])["body"]
    assert failed["kind"] == "admin.failed"
    assert json.loads(failed["detail"])["order"] == order["seq"]
    assert failed["prev"] == order["hash"]


async def test_a_changed_record_is_found(world):
    for _ in range(3):
        await world.post("/cancel", {"paths": [{"path": "/"}]})
    assert (await world.get("/audit/verify")).json()["breaks"] == []
    async with world.engine.catalog.write():
        world.engine.catalog.db.execute("DROP TRIGGER audit_is_not_changed")
        world.engine.catalog.db.execute("UPDATE audit SET actor = 'nobody' WHERE seq = 3")
    assert [b["seq"] for b in (await world.get("/audit/verify")).json()["breaks"]] == [3]


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        ("UPDATE retained SET until_ns = 1", "is kept until 1 by the catalog"),
        ("DELETE FROM retained", "is no record in the catalog"),
        ("UPDATE inodes SET locked = 0", "is no record in the catalog"),
        ("UPDATE retained SET mode = 3 - mode", "not in compliance mode"),
        ("UPDATE inodes SET locked = locked | 2 WHERE locked", "takes bytes at its end"),
    ],
)
async def test_retention_edited_in_the_catalog_is_told(world, folder, edit, told):
    await folder(mode="compliance")
    ino = await record(world)
    assert (await world.get("/audit/verify")).json()["breaks"] == []
    async with world.engine.catalog.write():
        world.engine.catalog.db.execute(edit)
    (one,) = (await world.get("/audit/verify")).json()["breaks"]
    committed = await world.get("/audit", kind="retention.committed")
    assert one["seq"] == json.loads(committed.text)["seq"]
    assert told in one["what"] and f"inode {ino}" in one["what"]


@pytest.mark.parametrize(
    ("edit", "kind", "told"),
    [
        ("DELETE FROM held", "hold.added", "held by case, is not held"),
        ("UPDATE inodes SET locked = 0", "hold.added", "held by case, is not held"),
        ("UPDATE holds SET released_ns = 1", "hold.placed", "case was released in"),
        ("DELETE FROM holds WHERE name = 'case'", "hold.placed", "case is gone from"),
        ("UPDATE holds SET scope = '{}'", "hold.widened", "case is applied to something else"),
        ("UPDATE retention_folders SET mode = 3 - mode", "retention.folder", "set otherwise"),
        ("DELETE FROM retention_folders", "retention.folder", "is none, or set otherwise"),
    ],
)
async def test_holds_and_folders_edited_in_the_catalog_are_told(world, folder, edit, kind, told):
    await folder(mode="compliance")
    await world.file(b"held", b"bytes")
    order = {"name": "case", "reason": "why", "paths": [{"path": "/held"}]}
    await world.post("/holds", order)
    if kind == "hold.widened":
        await world.post("/holds/case/add", {"paths": [{"path": "/r"}]})
    await world.post("/holds", order | {"name": "over"})
    await world.post("/holds/over/release", {"reason": "settled"})
    assert (await world.get("/audit/verify")).json()["breaks"] == []
    async with world.engine.catalog.write():
        world.engine.catalog.db.execute(edit)
    found = (await world.get("/audit/verify")).json()["breaks"]
    (one,) = [one for one in found if told in one["what"]]
    said = [json.loads(line) for line in (await world.get("/audit", kind=kind)).text.splitlines()]
    assert one["seq"] in [record["seq"] for record in said]
