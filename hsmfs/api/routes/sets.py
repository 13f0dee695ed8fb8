"""Sets of discs: what they are, closing one, and making a disc anew from the others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi.responses import StreamingResponse

from ...catalog.volumes import Volume
from ...engine import overview, set_views
from ...engine.access import Role
from ...engine.service import Engine
from ...engine.views import Acted
from ..deps import EngineDep
from ..router import Routes
from ..stream import line, lines

routes = Routes("sets")


@routes.get("/sets", Role.VIEWER)
async def sets(engine: EngineDep) -> list[dict[str, Any]]:
    """Every set, the oldest first."""
    return set_views.all_sets(engine)


@routes.get("/sets/{name}", Role.VIEWER)
async def one_set(engine: EngineDep, name: str) -> dict[str, Any]:
    """A set with its discs."""
    return set_views.whole(engine, set_views.named(engine, name))


@routes.post("/sets/{name}/close", Role.OPERATOR)
async def close(engine: EngineDep, name: str) -> Acted:
    """Burn the parity of a set with the discs that it has."""
    begun = await engine.migrator.sets.close(set_views.named(engine, name))
    return Acted(detail={"set": name, "begun": begun})


@routes.post("/volumes/{barcode}/rebuild", Role.OPERATOR)
async def rebuild(engine: EngineDep, barcode: str, wait: bool = False) -> StreamingResponse:
    """Make a disc anew from the others of its set. JSON lines; with wait until it is done."""
    volume = overview.volume_named(engine, barcode)
    await engine.renewer.ask(volume)
    return lines(_told(engine, volume, wait))


@routes.post("/volumes/{barcode}/rebuild/cancel", Role.OPERATOR)
async def cancel(engine: EngineDep, barcode: str) -> Acted:
    """Forget an order to make a disc anew that is not in hand."""
    await engine.renewer.cancel(overview.volume_named(engine, barcode))
    return Acted(detail={"disc": barcode})


async def _told(engine: Engine, volume: Volume, wait: bool) -> AsyncIterator[bytes]:
    if not wait:
        yield line({"kind": "end", "disc": volume.barcode, "asked": True})
        return
    async for item in set_views.until_rebuilt(engine, volume):
        yield line(item)
