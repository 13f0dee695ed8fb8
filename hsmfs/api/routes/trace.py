"""Recording what is asked of the discs, for hsmctl simulate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...engine.access import Role
from ...engine.recorder import view
from ..deps import EngineDep
from ..models import TraceOrder
from ..router import Routes

routes = Routes("trace")


@routes.get("/trace", Role.VIEWER)
async def trace(engine: EngineDep) -> dict[str, Any]:
    """The recording that goes on; null if there is none."""
    return view(engine.recorder.now)


@routes.post("/trace/start", Role.ADMIN)
async def start(engine: EngineDep, order: TraceOrder) -> dict[str, Any]:
    """Record to a file of this machine from now on."""
    given = engine.config.trace.file or engine.config.daemon.state / "trace.jsonl"
    return view(await engine.recorder.start(given if order.file is None else Path(order.file)))


@routes.post("/trace/stop", Role.ADMIN)
async def stop(engine: EngineDep) -> dict[str, Any]:
    """End the recording; what it came to."""
    return view(await engine.recorder.stop())
