"""The storm guard: its rules, its mode and its report."""

from __future__ import annotations

from typing import Any

from fastapi import Response

from ...engine.access import Role
from ...engine.guard import Mode, Outcome
from ...engine.guard.views import guard_view, met_view
from ...engine.views import Acted
from ..deps import EngineDep
from ..models import GuardModeOrder, GuardOutcomeOrder, GuardRulesOrder
from ..router import Routes
from ..stream import whole

routes = Routes("guard")


@routes.get("/guard", Role.VIEWER)
async def guard(engine: EngineDep) -> dict[str, Any]:
    """What is in force."""
    return guard_view(engine.guard)


@routes.get("/guard/report", Role.VIEWER, response_model=list[dict[str, Any]])
async def report(engine: EngineDep) -> Response:
    """Whom rules stopped, or in learning mode would have stopped; the most files first."""
    return await whole([met_view(met) for met in engine.guard.report()])


@routes.post("/guard/report/clear", Role.ADMIN)
async def clear(engine: EngineDep) -> Acted:
    """Begin a new report."""
    await engine.guard.clear()
    return Acted()


@routes.post("/guard/mode", Role.ADMIN)
async def mode(engine: EngineDep, order: GuardModeOrder) -> Acted:
    """Let the rules act, only report, or neither; also after a restart."""
    await engine.guard.set_mode(Mode(order.mode))
    return Acted(detail={"mode": order.mode})


@routes.post("/guard/rules", Role.ADMIN)
async def rules(engine: EngineDep, order: GuardRulesOrder) -> Acted:
    """Put rules in force, or those that come with hsmfs; also after a restart."""
    if order.rules is None:
        await engine.guard.reset()
    else:
        await engine.guard.set_rules(order.rules)
    return Acted(detail={"rules": len(engine.guard.file.rule)})


@routes.post("/guard/outcome", Role.ADMIN)
async def outcome(engine: EngineDep, order: GuardOutcomeOrder) -> Acted:
    """Change what one rule does."""
    await engine.guard.set_outcome(order.rule, Outcome(order.outcome))
    return Acted(detail={"rule": order.rule, "outcome": order.outcome})
