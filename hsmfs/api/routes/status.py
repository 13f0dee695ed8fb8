"""The daemon itself: how it is, how full everything is, and the order to stop."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ...engine import overview, reload
from ...engine.access import Role
from ...engine.views import Acted, LoopView, Space, Status
from ..deps import EngineDep, Who
from ..router import Routes

routes = Routes("daemon")


@routes.get("/status", Role.VIEWER)
async def status(engine: EngineDep) -> Status:
    """The daemon at a glance."""
    return await overview.status(engine)


@routes.get("/loop", Role.VIEWER)
async def loop(engine: EngineDep) -> LoopView:
    """How long the event loop's steps take, and those that took too long."""
    return overview.loop(engine)


@routes.get("/df", Role.VIEWER)
async def df(engine: EngineDep) -> Space:
    """Bytes in pools, by state of files and by state of discs."""
    return await overview.space(engine)


@routes.post("/config/reload", Role.ADMIN)
async def reload_config(engine: EngineDep, who: Who) -> dict[str, Any]:
    """Read the configuration again: keys that count at once, and those that need a restart."""
    return asdict(await reload.reload(engine, who))


@routes.post("/stop", Role.ADMIN)
async def stop(engine: EngineDep) -> Acted:
    """Stop cleanly: answered at once; the daemon has ended when its process has."""
    engine.stop_asked.set()
    return Acted(detail={"pid": engine.pid})
