"""Who may ask the API for what: roles, tokens, rates, the second person, and what is on record."""

from __future__ import annotations

import json
import os
import re

import pytest
from fastapi.routing import APIRoute

from hsmfs import clock
from hsmfs.api.app import FIRST
from hsmfs.api.deps import permitted
from hsmfs.api.router import ROLE, SECOND
from hsmfs.api.routes import ROUTERS
from hsmfs.config import loads
from hsmfs.engine.access import Peer, Role
from hsmfs.engine.access.rates import Rates

HERE, THERE = Peer(address="192.0.2.7"), Peer(address="192.0.2.8")
ROUTES = [route for router in ROUTERS for route in router.routes]
LEAST = {role: [r for r in ROUTES if r.openapi_extra[ROLE] == role] for role in Role}


@pytest.fixture
def config(config_file):
    return loads(
        config_file.read_text()
        + '[access]\nfailures = 3\nclient_ca = "/ca"\ncertificates = { "pacs" = "operator" }\n'
    )


def concrete(route) -> str:
    """A path of the route about things that do not exist."""
    path = route.path.replace("{act}", "pause").replace("{number}", "99")
    return path.replace("{name}", "none").replace("{barcode}", "NONE")


async def ask(world, route):
    verb = "GET" if "GET" in route.methods else "POST"
    return await world.client.request(verb, f"/v1{concrete(route)}")


async def token(world, name: str, role: Role, **more) -> str:
    """A token made by root, as a header's value."""
    world.peer = Peer(uid=0, user="root")
    made = await world.post("/tokens", {"name": name, "role": role, "lasts_s": None} | more)
    assert made.status_code == 200, made.text
    return made.json()["token"]


def use(world, given: str | None, peer: Peer = HERE) -> None:
    """The next requests come from there, with a token."""
    world.peer = peer
    world.client.headers.pop("authorization", None)
    if given is not None:
        world.client.headers["authorization"] = f"Bearer {given}"


def records(world, kind: str):
    found = [r for r in world.engine.trust.audit.log.after(0) if r.kind == kind]
    return [(r.actor, r.object, r.outcome, json.loads(r.detail)) for r in found]


def test_every_route_names_its_role():
    assert permitted in FIRST
    for route in ROUTES:
        assert isinstance(route, APIRoute)
        assert (route.openapi_extra or {}).get(ROLE) in set(Role), route.path
    assert all(LEAST[role] for role in Role)


def test_only_admins_and_auditors_see_the_log_and_no_auditor_changes_anything():
    for route in ROUTES:
        role = Role(route.openapi_extra[ROLE])
        if "POST" in route.methods and route.path not in ("/labels", "/recall/estimate"):
            assert not Role.AUDITOR.covers(role), route.path
        if route.path.startswith(("/audit", "/holds", "/approvals", "/tokens")):
            assert not Role.OPERATOR.covers(role), route.path
        if route.path.startswith("/retention") and "POST" in route.methods:
            assert role is Role.ADMIN, route.path


@pytest.mark.parametrize("role", list(Role))
async def test_a_role_gets_what_it_may_and_nothing_else(world, role):
    use(world, await token(world, "t", role))
    for route in ROUTES:
        if route.path in ("/stop", "/events"):
            continue  # the one works, the other answers for ever if it is allowed
        allowed = role.covers(Role(route.openapi_extra[ROLE]))
        world.engine.access._rates._buckets.clear()
        answer = await ask(world, route)
        refused = answer.status_code == 403 and answer.json()["error"] == "Denied"
        assert refused is not allowed, (route.path, answer.text)
    denied = records(world, "access.denied")
    wanted = [Role(r.openapi_extra[ROLE]) for r in ROUTES if r.path != "/stop"]
    assert len(denied) == sum(not role.covers(least) for least in wanted)
    assert all(actor == "token t at 192.0.2.7" for actor, *_ in denied)


def test_the_docs_name_what_needs_a_second_person(repo):
    page = (repo / "docs/access.md").read_text()
    table = page.partition("## The second person")[2].partition("```")[0]
    named = set(re.findall(r"^\| `(/[^`]+)` \|", table, re.MULTILINE))
    assert named == {route.path for route in ROUTES if route.openapi_extra.get(SECOND)}


async def test_a_route_without_a_role_is_refused_to_all(world):
    route = LEAST[Role.VIEWER][0]
    kept, route.openapi_extra = route.openapi_extra, None
    try:
        assert (await ask(world, route)).status_code == 403
    finally:
        route.openapi_extra = kept


async def test_without_a_token_nothing_is_told(world):
    world.peer = HERE
    for path in ("/v1/status", "/", "/openapi.json", "/v1/nothing"):
        answer = await world.client.get(path)
        world.engine.access._failures._buckets.clear()
        assert (answer.status_code, answer.json()["error"]) == (401, "Unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_root_is_admin_and_the_group_has_its_role(world):
    assert (await world.get("/whoami")).json() == {
        "name": "root(0)", "role": "admin", "address": "",
    }  # fmt: skip
    world.peer = Peer(uid=4242, user="olga")
    world.engine.access._socket_role = Role.VIEWER
    assert (await world.get("/whoami")).json()["role"] == "viewer"
    assert (await world.post("/stop")).status_code == 403
    assert records(world, "access.denied")[0][0] == "olga(4242)"
    world.peer = Peer(uid=os.geteuid(), user="me")
    assert (await world.get("/whoami")).json()["role"] == "admin"


async def test_certificates_have_the_role_of_their_name(world):
    world.peer = Peer(address="192.0.2.9", certificate="pacs")
    assert (await world.get("/whoami")).json()["name"] == "certificate pacs"
    assert (await world.get("/audit")).status_code == 403
    world.peer = Peer(address="192.0.2.9", certificate="other")
    assert (await world.get("/whoami")).status_code == 401
    assert "'other' has no role" in records(world, "access.failed")[0][3]["reason"]
    logins = records(world, "access.login")
    assert [(who, at) for who, at, *_ in logins] == [("certificate pacs", "192.0.2.9")]


async def test_a_token_is_kept_as_a_hash_and_ends_when_it_is_revoked(world):
    given = await token(world, "t", Role.VIEWER)
    again = await world.post("/tokens", {"name": "t", "role": "viewer", "lasts_s": 1})
    assert again.status_code == 409
    use(world, given)
    assert (await world.get("/whoami")).json()["name"] == "token t"
    world.engine.access.tokens.load()  # as after a restart
    assert (await world.get("/whoami")).status_code == 200
    use(world, None, Peer(uid=0, user="root"))
    (shown,) = (await world.get("/tokens")).json()
    assert shown["used_ns"] and given.split("_", 2)[2] not in json.dumps(shown)
    assert (await world.post("/tokens/revoke", {"name": "t"})).json()["detail"] == {"revoked": 1}
    assert (await world.post("/tokens/revoke", {"name": "t"})).status_code == 404
    use(world, given)
    assert (await world.get("/whoami")).status_code == 401
    world.engine.access.tokens.load()
    assert (await world.get("/whoami")).status_code == 401
    assert "was revoked" in records(world, "access.failed")[0][3]["reason"]


async def test_a_token_ends_with_its_time(world):
    given = await token(world, "t", Role.VIEWER, lasts_s=1e-6)
    use(world, given)
    assert "expired" in (await world.get("/whoami")).json()["cause"]
    await token(world, "t", Role.VIEWER)  # the name is free again


async def test_a_clock_that_is_turned_back_revives_no_token(world, monkeypatch):
    given = await token(world, "t", Role.VIEWER, lasts_s=3600)
    use(world, given)
    assert (await world.get("/whoami")).status_code == 200
    real, on, hour = clock.BOOT.now_ns, 0, 3601 * 10**9
    monkeypatch.setattr(clock.BOOT, "now_ns", lambda: real() + on)
    on = hour  # and the wall clock is where it was: somebody holds it back
    assert "expired" in (await world.get("/whoami")).json()["cause"]
    on = 0
    now = clock.WALL.now_ns
    monkeypatch.setattr(clock.WALL, "now_ns", lambda: now() + hour)
    assert "expired" in (await world.get("/whoami")).json()["cause"]


async def test_failed_logins_are_counted_and_bring_a_pause_to_their_place_only(world):
    good = await token(world, "t", Role.VIEWER)
    wrong = good[:-4] + ("AAAA" if good[-4:] != "AAAA" else "BBBB")
    use(world, wrong)
    codes = [(await world.get("/whoami")).status_code for _ in range(5)]
    assert codes == [401, 401, 401, 429, 429]
    use(world, wrong, THERE)
    assert (await world.get("/whoami")).status_code == 401
    use(world, good, THERE)
    assert (await world.get("/whoami")).status_code == 200
    use(world, good)  # verified before: who fails beside it does not lock it out
    assert (await world.get("/whoami")).status_code == 200
    await world.engine.trust.audit.tell_repeated(all_=True)
    failed = records(world, "access.failed")
    assert [(at, more.get("repeated")) for _, at, _, more in failed] == [
        ("192.0.2.7", None), ("192.0.2.8", None), ("192.0.2.7", 2),
    ]  # fmt: skip
    assert failed[0][2] == "refused" and failed[0][3]["reason"] == "wrong secret for token t"


async def test_who_asks_too_often_is_told_to_wait(world):
    use(world, await token(world, "t", Role.VIEWER))
    world.engine.access._rates = Rates(1e-9, 3)
    codes = [(await world.get("/whoami")).status_code for _ in range(4)]
    assert codes == [200, 200, 200, 429]
    use(world, None, Peer(uid=0, user="root"))
    assert (await world.get("/whoami")).status_code == 200


async def test_an_order_of_a_stranger_is_not_even_read(world):
    world.peer = HERE

    async def body():
        raise AssertionError("read")
        yield b""

    answer = await world.client.post("/v1/archive", content=body())
    assert answer.status_code == 401


async def test_orders_are_recorded_with_who_the_connection_says(world):
    use(world, await token(world, "t", Role.OPERATOR))
    world.client.headers["x-hsmfs-who"] = "somebody else"
    await world.file(b"one", b"x")
    await world.post("/pin", {"paths": [{"path": "/one"}]})
    assert records(world, "admin.order")[-1][:2] == ("token t at 192.0.2.7", "/v1/pin")


async def test_a_second_person_approves_what_cannot_be_undone(world):
    first = await token(world, "first", Role.ADMIN)
    second = await token(world, "second", Role.ADMIN)
    world.engine.access.second.on = True
    use(world, first)
    refused = await world.post("/trash/purge")
    assert (refused.status_code, refused.json()["exit_code"]) == (409, 23)
    assert (await world.post("/trash/purge?ino=7")).json()["error"] == "NeedsApproval"
    assert [r["act"] for r in (await world.get("/approvals")).json()] == [
        "POST /v1/trash/purge", "POST /v1/trash/purge?ino=7",
    ]  # fmt: skip
    own = await world.post("/approvals/1", {"approved": True})
    assert (own.status_code, own.json()["error"]) == (403, "Denied")
    use(world, second)
    assert (await world.post("/trash/purge")).status_code == 409  # request 3: one's own
    assert (await world.post("/approvals/1", {"approved": True})).json()["state"] == "approved"
    assert (await world.post("/approvals/1", {"approved": True})).status_code == 409
    assert (await world.post("/approvals/2", {"approved": False})).json()["state"] == "refused"
    use(world, first)
    assert (await world.post("/trash/purge")).json()["detail"]["purged"] == 0
    assert (await world.post("/trash/purge")).status_code == 409  # it was for once
    assert "refused by token second" in (await world.post("/trash/purge?ino=7")).json()["cause"]
    assert [d["by"] for *_, d in records(world, "access.second_person")] == ["token second"]
    kinds = [r.kind for r in world.engine.trust.audit.log.after(0)]
    assert kinds.count("access.asked") == 4 and kinds.count("access.decided") == 2
    # Of what waited for approval only the one that got it is an order.
    assert [o for _, o, *_ in records(world, "admin.order") if "purge" in o] == ["/v1/trash/purge"]


@pytest.mark.parametrize("turned", ["BOOT", "WALL"])
@pytest.mark.parametrize("approved", [True, False])
async def test_a_clock_that_is_turned_back_revives_no_approval(
    world, monkeypatch, turned, approved
):
    """Either clock ends a request, whatever the other says: the wall clock can be held back."""
    first = await token(world, "first", Role.ADMIN)
    second = await token(world, "second", Role.ADMIN)
    world.engine.access.second.on = True
    use(world, first)
    await world.post("/trash/purge")
    use(world, second)
    if approved:
        assert (await world.post("/approvals/1", {"approved": True})).status_code == 200
    there, on = getattr(clock, turned), int(world.engine.config.access.approval_time * 1e9)
    real = there.now_ns
    monkeypatch.setattr(there, "now_ns", lambda: real() + on)
    assert (await world.get("/approvals")).json() == []
    if not approved:
        late = await world.post("/approvals/1", {"approved": True})
        assert "its time is over" in late.json()["cause"]
    use(world, first)
    assert (await world.post("/trash/purge")).status_code == 409
    assert [r["id"] for r in (await world.get("/approvals")).json()] == [2]


async def test_a_token_needs_the_second_person_too(world):
    world.engine.access.second.on = True
    made = await world.post("/tokens", {"name": "t", "role": "admin", "lasts_s": None})
    assert made.status_code == 409
    assert (await world.get("/tokens")).json() == []
