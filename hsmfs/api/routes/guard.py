"""The storm guard: its rules, its mode and its report."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from ...engine.guard import Mode, Outcome
from ...engine.guard.views import guard_view, met_view
from ...engine.views import Acted
from ..deps import EngineDep
from ..models import GuardModeOrder, GuardOutcomeOrder, GuardRulesOrder
from ..stream import whole

router = APIRouter(tags=["guard"])


@router.get("/guard")
async def guard(engine: EngineDep) -> dict[str, Any]:
    """What is in force."""
    return guard_view(engine.guard)


@router.get("/guard/report", response_model=list[dict[str, Any]])
async def report(engine: EngineDep) -> Response:
    """Whom rules stopped, or in learning mode would have stopped; the most files first."""
    return await whole([met_view(met) for met in engine.guard.report()])


@router.post("/guard/report/clear")
async def clear(engine: EngineDep) -> Acted:
    """Begin a new report."""
    await engine.guard.clear()
    return Acted()


@router.post("/guard/mode")
async def mode(engine: EngineDep, order: GuardModeOrder) -> Acted:
    """Let the rules act, only report, or neither; also after a restart."""
    await engine.guard.set_mode(Mode(order.mode))
    return Acted(detail={"mode": order.mode})


@router.post("/guard/rules")
async def rules(engine: EngineDep, order: GuardRulesOrder) -> Acted:
    """Put rules in force, or those that come with hsmfs; also after a restart."""
    if order.rules is None:
        await engine.guard.reset()
    else:
        await engine.guard.set_rules(order.rules)
    return Acted(detail={"rules": len(engine.guard.file.rule)})


@router.post("/guard/outcome")
async def outcome(engine: EngineDep, order: GuardOutcomeOrder) -> Acted:
    """Change what one rule does."""
    await engine.guard.set_outcome(order.rule, Outcome(order.outcome))
    return Acted(detail={"rule": order.rule, "outcome": order.outcome})
