"""The API as its clients see it, on a whole engine."""

import base64
import json

import pytest
import trio

from hsmfs.types import Requester


def lines(answer):
    return [json.loads(line) for line in answer.text.splitlines()]


def b64(name):
    return base64.b64encode(name).decode()


async def test_status_names_pools_drives_and_workers(world):
    status = (await world.get("/status")).json()
    assert [p["name"] for p in status["pools"]] == ["pool"]
    assert [d["state"] for d in status["drives"]] == ["up", "up"]
    assert {w["name"] for w in status["workers"] if w["running"]} >= {"mounts", "recaller"}


async def test_a_file_goes_to_disc_and_comes_back(world):
    data = bytes(range(256)) * 4000
    ino = await world.file(b"one", data)
    order = {"paths": [{"path": "/one"}], "now": True, "wait": True, "release": True}
    steps = lines(await world.post("/archive", order))
    assert steps[-1]["kind"] == "end"
    assert steps[-1]["failed"] == 0
    info = (await world.get("/info", path="/one")).json()
    assert info["entry"]["state"] == "migrated"
    assert info["proven_copies"] == 1
    assert (await world.get("/why", path="/one")).json()["answer"].startswith("nobody reads it")
    order = {"paths": [{"path": "/"}], "wait": True}
    cost = (await world.post("/recall/estimate", order)).json()
    absent = len(data) - world.engine.config.fs.head
    assert (cost["files"], cost["bytes"], cost["discs"], cost["over"]) == (1, absent, 1, "")
    _budget(world, budget_bytes=absent - 1)
    refused = await world.post("/recall", order)
    assert refused.status_code == 409 and "budget_bytes" in refused.text
    steps = lines(await world.post("/recall", order | {"over_budget": True}))
    assert steps[-1]["files_done"] == 1
    live = world.engine.files.open(ino, write=False)
    assert await world.engine.files.read(live, 0, len(data), Requester()) == data
    world.engine.files.close(live, write=False)


async def test_what_waits_is_burned_without_naming_it(world):
    for order in ({}, {"now": True, "wait": True}):
        assert (await world.post("/archive", order)).status_code == 422
    ino = await world.file(b"one", b"x" * 5000)
    await world.post("/archive", {"paths": [{"path": "/one"}]})
    assert lines(await world.post("/archive", {"now": True}))[-1]["kind"] == "end"
    with trio.fail_after(30):
        await world.engine.migrator.settled()
    assert world.engine.catalog.copies.proven(ino, 1) == 1


def _budget(world, **keys):
    config = world.engine.config
    recall = config.recall.model_copy(update=keys)
    world.engine.config = config.model_copy(update={"recall": recall})


async def test_release_without_a_copy_is_refused_by_file(world):
    await world.file(b"one", b"x" * 100_000)
    outcome = (await world.post("/release", {"paths": [{"path": "/"}]})).json()
    assert (outcome["files"], outcome["failed"]) == (0, 1)
    assert outcome["failures"][0]["path"] == "/one"
    assert outcome["failures"][0]["exit_code"] == 5


async def test_names_that_are_no_text_come_as_base64(world):
    await world.file(b"bad\xff", b"1")
    (entry,) = (await world.get("/ls", path="/")).json()["entries"]
    assert (entry["path"], entry["path_b64"]) == (None, b64(b"bad\xff"))
    info = (await world.get("/info", path_b64=b64(b"/bad\xff"))).json()
    assert info["entry"]["size"] == 1


async def test_errors_tell_cause_and_next_step(world):
    answer = await world.get("/info", path="/nope")
    assert answer.status_code == 404
    assert answer.json() == {
        "error": "NotFound",
        "cause": "no file /nope in the namespace",
        "next_step": "check the name",
        "exit_code": 4,
    }
    assert (await world.get("/nothing")).status_code == 404
    assert (await world.post("/pin", {"paths": []})).status_code == 422
    assert (await world.get("/find", state="odd")).json()["exit_code"] == 2


@pytest.mark.expect_log("request failed")
async def test_an_unexpected_fault_is_called_a_fault(world, monkeypatch):
    async def broken(reports):
        raise RuntimeError("boom")

    monkeypatch.setattr(world.engine.catalog, "read", broken)
    answer = await world.get("/df")
    assert answer.status_code == 500
    assert "boom" in answer.json()["cause"]


async def test_find_by_state_size_and_name_in_pages(world, monkeypatch):
    monkeypatch.setattr("hsmfs.engine.search.PAGE", 3)
    for n in range(10):
        await world.file(b"f%d" % n, b"x" * n)
    found = lines(await world.get("/find", state="resident"))
    assert sorted(e["path"] for e in found) == [f"/f{n}" for n in range(10)]
    found = lines(await world.get("/find", min_size=4, max_size=6))
    assert {e["size"] for e in found} == {4, 5, 6}
    assert [e["path"] for e in lines(await world.get("/find", name="f[78]"))] == ["/f7", "/f8"]
    assert len(lines(await world.get("/find", limit=4))) == 4
    assert not lines(await world.get("/find", state="migrated"))
    assert not lines(await world.get("/find", lost=True))


async def test_listing_goes_on_after_a_page(world):
    for n in range(5):
        await world.file(b"f%d" % n, b"")
    page = (await world.get("/ls", path="/", limit=3)).json()
    rest = (await world.get("/ls", path="/", limit=3, after=page["next"])).json()
    assert [e["path"] for e in page["entries"] + rest["entries"]] == [f"f{n}" for n in range(5)]
    assert rest["next"] is None


async def test_symbolic_links_in_the_middle_are_followed(world):
    async with world.engine.catalog.write():
        names = world.engine.catalog.names
        folder = names.create(1, b"real", 0o40755, 0, 0, 1)
        names.create(folder.ino, b"f", 0o100644, 0, 0, 1)
        names.create(1, b"link", 0o120777, 0, 0, 1, target=b"./real")
        names.create(1, b"loop", 0o120777, 0, 0, 1, target=b"loop")
    assert (await world.get("/info", path="/link/f")).json()["paths"] == ["/real/f"]
    assert (await world.get("/info", path="/link/../real/f")).status_code == 200
    assert (await world.get("/info", path="/link")).json()["target"] == "./real"
    assert (await world.get("/info", path="/loop/f")).status_code == 404


async def test_an_open_file_is_released_only_if_that_is_said(world):
    data = b"open" * 50_000
    ino = await world.file(b"one", data)
    order = {"paths": [{"path": "/one"}]}
    await world.post("/archive", {**order, "now": True, "wait": True})
    live = world.engine.files.open(ino, write=True)
    refused = (await world.post("/release", order)).json()
    assert [f["error"] for f in refused["failures"]] == [f"inode {ino} is open"]
    freed = (await world.post("/release", {**order, "even_open": True})).json()
    assert freed["bytes"] > 100_000
    assert live.absent
    await world.engine.files.write(live, 150_000, b"new")
    assert await world.engine.files.read(live, 0, len(data), Requester()) == (
        data[:150_000] + b"new" + data[150_003:]
    )
    world.engine.files.close(live, write=True)


async def test_pin_lasts_and_forbids_release(world):
    await world.file(b"one", b"x" * 100_000)
    order = {"paths": [{"path": "/one"}]}
    await world.post("/archive", {**order, "now": True, "wait": True})
    await world.post("/pin", order)
    assert (await world.get("/info", path="/one")).json()["entry"]["pinned"] is True
    assert (await world.post("/release", order)).json()["failed"] == 1
    await world.post("/pin", {**order, "pinned": False})
    assert (await world.post("/release", order)).json()["failed"] == 0


async def test_cancel_takes_out_of_the_queue(world):
    await world.file(b"one", b"x")
    order = {"paths": [{"path": "/one"}]}
    await world.post("/archive", order)
    assert len((await world.get("/queue")).json()["migrations"]) == 1
    await world.post("/cancel", order)
    assert not (await world.get("/queue")).json()["migrations"]


async def test_drives_go_down_and_up(world, expect_log):
    expect_log("drive down")
    await world.post("/drives/d1", {"state": "down", "reason": "test"})
    drives = {d["name"]: d for d in (await world.get("/drives")).json()}
    assert (drives["d1"]["state"], drives["d1"]["reason"]) == ("down", "test")
    await world.post("/drives/d1", {"state": "up"})
    assert (await world.post("/drives/d9", {"state": "up"})).status_code == 404


async def test_inventory_and_volumes(world):
    assert (await world.post("/library/inventory")).json() == []
    volumes = (await world.get("/volumes", state="blank")).json()
    assert len(volumes) == 4
    one = (await world.get(f"/volumes/{volumes[0]['barcode']}")).json()
    assert one["place"] == "magazine 1 slot 1"
    assert len([e for e in (await world.get("/library")).json() if e["full"]]) == 4


async def test_events_are_kept_and_followed(world):
    await world.file(b"one", b"x")
    await world.post("/archive", {"paths": [{"path": "/one"}], "now": True, "wait": True})
    kinds = [e["kind"] for e in lines(await world.get("/events"))]
    assert "archived" in kinds


async def test_fsck_reports_clean(world):
    await world.file(b"one", b"x")
    report = lines(await world.post("/fsck", {"repair": False}))[-1]
    assert report["clean"] is True
    assert report["findings"] == []


async def test_adopt_and_undo(world, tmp_path):
    tree = tmp_path / "nas/deep"
    tree.mkdir(parents=True)
    (tree / "f").write_text("hello")
    source = {"path": str(tmp_path / "nas")}
    report = lines(await world.post("/adopt", {"source": source, "target": {"path": "/nas"}}))[-1]
    assert (report["kind"], report["files"], report["failed"]) == ("end", 1, [])
    assert (await world.get("/info", path="/nas/deep/f")).json()["entry"]["size"] == 5
    assert (await world.get("/adoptions")).json()[0]["state"] == "done"
    await world.post("/adopt", {"source": source, "undo": True})
    assert (tree / "f").read_text() == "hello"


async def test_no_policies_in_force(world):
    await world.file(b"one", b"x")
    assert (await world.get("/policy/explain", path="/one")).json() == []
    assert (await world.post("/policy/run", {"dry_run": True})).json() == []
    assert (await world.post("/policy/run", {"name": "odd"})).status_code == 404


async def test_waiters_none_to_fail(world):
    assert (await world.get("/waiters")).json() == []
    answer = await world.post("/waiters/fail", {"everyone": True})
    assert answer.json()["detail"] == {"ended": 0}
    assert (await world.post("/waiters/fail", {})).status_code == 422


async def test_stop_is_asked(world):
    with trio.fail_after(5):
        await world.post("/stop")
        await world.engine.stop_asked.wait()


async def test_openapi_describes_every_route(world):
    document = (await world.client.get("/openapi.json")).json()
    assert {"/v1/status", "/v1/archive", "/v1/find", "/v1/fsck"} <= set(document["paths"])
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation.get("description"), f"{method} {path} says nothing"
