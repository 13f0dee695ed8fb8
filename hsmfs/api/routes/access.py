"""Who may come in: one's own identity, tokens, and orders that wait for a second person."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from ...catalog.access import Approval, Token
from ...engine.access import Role
from ...engine.views import Acted
from ..deps import Caller, EngineDep
from ..models import Body
from ..router import Routes

routes = Routes("access")
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@-]{0,62}$")]


class TokenOrder(Body):
    """A new token."""

    name: Name
    role: Role
    lasts_s: Annotated[float, Field(gt=0)] | None
    """None: until it is revoked."""


class RevokeOrder(Body):
    """The end of a token."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    """Its name or id."""


class Decision(Body):
    """What the second person says."""

    approved: bool


@routes.get("/whoami", Role.VIEWER)
async def whoami(caller: Caller) -> dict[str, str]:
    """Who the caller is to the daemon, and the role."""
    return {"name": caller.name, "role": caller.role.value, "address": caller.address}


@routes.get("/tokens", Role.AUDITOR)
async def tokens(engine: EngineDep, everything: bool = False) -> list[dict[str, Any]]:
    """Tokens that were not revoked, with `everything` those too; never their secrets."""
    found = engine.access.tokens.all()
    return [_token(token) for token in found if everything or token.revoked_ns is None]


@routes.post("/tokens", Role.ADMIN, second=True)
async def create(engine: EngineDep, order: TokenOrder, caller: Caller) -> dict[str, str]:
    """Make a token. The answer is the only place where its secret ever is."""
    made = await engine.access.tokens.create(order.name, order.role, str(caller), order.lasts_s)
    return {"name": order.name, "role": order.role.value, "token": made}


@routes.post("/tokens/revoke", Role.ADMIN)
async def revoke(engine: EngineDep, order: RevokeOrder, caller: Caller) -> Acted:
    """From now on the token opens nothing."""
    count = await engine.access.tokens.revoke(order.name, str(caller))
    return Acted(detail={"revoked": count})


@routes.get("/approvals", Role.AUDITOR)
async def approvals(engine: EngineDep) -> list[dict[str, Any]]:
    """Destructive orders that wait for a second person, or were approved and not given again."""
    return [_approval(one) for one in engine.access.second.waiting()]


@routes.post("/approvals/{number}", Role.ADMIN)
async def decide(
    engine: EngineDep, number: int, order: Decision, caller: Caller
) -> dict[str, Any]:
    """Approve somebody else's order, or refuse it."""
    return _approval(await engine.access.second.decide(number, caller, approved=order.approved))


def _token(token: Token) -> dict[str, Any]:
    return {
        "id": token.id, "name": token.name, "role": token.role, "created_by": token.created_by,
        "created_ns": token.created_ns, "expires_ns": token.expires_ns, "used_ns": token.used_ns,
        "revoked_by": token.revoked_by, "revoked_ns": token.revoked_ns,
    }  # fmt: skip


def _approval(one: Approval) -> dict[str, Any]:
    return {
        "id": one.id, "act": one.act, "body": one.body, "sha256": one.digest.hex(),
        "state": one.state, "asked_by": one.asked_by, "asked_ns": one.asked_ns,
        "until_ns": one.until_ns, "decided_by": one.decided_by, "decided_ns": one.decided_ns,
    }  # fmt: skip
