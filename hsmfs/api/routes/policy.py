"""Policies: what they would do, what they say of a file, and running them now."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ...engine.access import Role
from ...engine.paths import path_of
from ...engine.views import Acted
from ..deps import AttrDep, EngineDep
from ..models import PolicyOrder
from ..router import Routes

routes = Routes("policies")


@routes.get("/policy/explain", Role.VIEWER)
async def explain(engine: EngineDep, attr: AttrDep) -> list[dict[str, Any]]:
    """For each rule, in order, whether it holds for a file, and if not, why."""
    attr = engine.files.overlay(attr)
    path = path_of(engine.catalog, attr.ino)
    return [asdict(verdict) for verdict in engine.policies.explain(attr, path)]


@routes.post("/policy/run", Role.OPERATOR)
async def run(engine: EngineDep, order: PolicyOrder) -> list[dict[str, Any]]:
    """Run rules now, whatever their triggers say; with dry_run only count files and bytes."""
    await engine.write_sizes_down()
    policies = engine.policies
    act = policies.dry_run if order.dry_run else policies.run_now
    return [asdict(outcome) for outcome in await act(order.name)]


@routes.post("/policy/load", Role.ADMIN)
async def load(engine: EngineDep) -> Acted:
    """Read the policy file again; if it is wrong, the rules before stay in force."""
    return Acted(detail={"rules": await engine.policies.load()})
