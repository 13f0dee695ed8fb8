"""The daemon itself: how it is, how full everything is, and the order to stop."""

from __future__ import annotations

from fastapi import APIRouter

from ...engine import overview
from ...engine.views import Acted, LoopView, Space, Status
from ..deps import EngineDep

router = APIRouter(tags=["daemon"])


@router.get("/status")
async def status(engine: EngineDep) -> Status:
    """The daemon at a glance."""
    return await overview.status(engine)


@router.get("/loop")
async def loop(engine: EngineDep) -> LoopView:
    """How long the event loop's steps take, and those that took too long."""
    return overview.loop(engine)


@router.get("/df")
async def df(engine: EngineDep) -> Space:
    """Bytes in pools, by state of files and by state of discs."""
    return await overview.space(engine)


@router.post("/stop")
async def stop(engine: EngineDep) -> Acted:
    """Stop cleanly: answered at once; the daemon has ended when its process has."""
    engine.stop_asked.set()
    return Acted(detail={"pid": engine.pid})
