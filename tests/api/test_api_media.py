"""Scrubs, health, replacements and the forecast over the API."""

from __future__ import annotations

import trio


async def burned(world) -> str:
    await world.file(b"one", b"x" * 100_000)
    await world.post("/archive", {"paths": [{"path": "/one"}], "now": True, "wait": True})
    (disc,) = (await world.get("/volumes", state="full")).json()
    return disc["barcode"]


async def test_scrub_is_asked_paused_and_seen(world):
    disc = await burned(world)
    assert (await world.post("/scrub/pause", {})).json()["ok"]
    assert (await world.post("/scrub", {})).json()["detail"] == {"discs": [disc], "new": 1}
    status = (await world.get("/scrub")).json()
    assert status["paused"] and status["queue"][0]["disc"] == disc
    assert (await world.post("/scrub/resume", {})).json()["ok"]
    with trio.fail_after(20):
        while (await world.get("/scrub")).json()["queue"]:  # noqa: ASYNC110
            await trio.sleep(0.01)
    health = (await world.get(f"/volumes/{disc}/health")).json()
    assert health["entries"][0]["kind"] == "test passed" and not health["overdue"]
    (drive,) = [d["drive"] for d in health["drives"] if d["read_bytes"]]
    assert (await world.get(f"/drives/{drive}/health")).json()["errors"] == 0
    assert (await world.post("/scrub/pause", {"discs": [disc]})).status_code == 404


async def test_replacement_and_its_certificate(world, monkeypatch):
    monkeypatch.setattr("hsmfs.engine.refresh.LOOK", 0.1)
    disc = await burned(world)
    assert (await world.get(f"/replacements/{disc}/certificate")).status_code == 404
    done = (await world.post("/replacements", {"kind": "repack", "discs": [disc]})).json()
    assert done["detail"]["discs"] == {disc: "repack"}
    with trio.fail_after(30):
        while (await world.get("/replacements")).json()[0]["state"] != "done":
            await world.engine.migrator.flush()
            await trio.sleep(0.02)
    paper = (await world.get(f"/replacements/{disc}/certificate")).json()
    assert paper["sha256"] in paper["text"] and paper["facts"]["files"][0]["path"] == "/one"
    assert (await world.get(f"/volumes/{disc}")).json()["state"] == "retired"


async def test_forecast(world):
    found = (await world.get("/media/forecast", growth=0)).json()
    assert found["discs_a_year"] == 0 and found["assumed"]


async def test_quarantine_is_seen_where_discs_are_shown_and_lifted(world):
    disc = await burned(world)
    order = {"discs": [disc], "reason": "fell down"}
    assert (await world.post("/quarantine", order)).json()["detail"] == order
    assert (await world.get(f"/volumes/{disc}")).json()["quarantine"] == "fell down"
    health = (await world.get(f"/volumes/{disc}/health")).json()
    assert health["verdict"] == "under quarantine: fell down"
    refused = (await world.post("/release", {"paths": [{"path": "/one"}]})).json()
    assert refused["failed"] == 1 and "0 verified copies" in refused["failures"][0]["error"]
    assert (await world.post("/quarantine", {"discs": [disc]})).json()["ok"]
    assert (await world.get(f"/volumes/{disc}")).json()["quarantine"] == ""
