"""The robot, its drives and its discs."""

from __future__ import annotations

from typing import Any

from fastapi import Response

from ...engine import overview
from ...engine.access import Role
from ...engine.batches import at_leisure
from ...engine.views import Acted, DriveView, ElementView, VolumeView
from ...types import Barcode, ElementAddress
from ..deps import EngineDep
from ..models import DriveOrder, MoveOrder
from ..router import Routes
from ..stream import whole

routes = Routes("library")


@routes.get("/library", Role.VIEWER, response_model=list[ElementView])
async def elements(engine: EngineDep) -> Response:
    """Every place in the library and what was last known to be in it."""
    return await whole(overview.elements(engine))


@routes.post("/library/inventory", Role.OPERATOR)
async def inventory(engine: EngineDep, rescan: bool = False) -> list[dict[str, Any]]:
    """Ask the robot for everything, and say what was not as the catalog had it."""
    found = await engine.mounts.look(rescan=rescan)
    return [
        {"kind": d.kind.value, "barcode": d.barcode, "meaning": d.meaning} for d in found
    ]


@routes.post("/library/move", Role.OPERATOR)
async def move(engine: EngineDep, order: MoveOrder) -> Acted:
    """Move a disc that is in no drive to an element."""
    await engine.mounts.move(Barcode(order.barcode), ElementAddress(order.address))
    return Acted(detail={"barcode": order.barcode, "address": order.address})


@routes.get("/volumes", Role.VIEWER, response_model=list[VolumeView])
async def volumes(engine: EngineDep, state: str | None = None) -> Response:
    """Discs by barcode, all or those in one state."""
    found = await engine.catalog.read(lambda reports: reports.volumes.all())
    shown = await at_leisure(
        engine.catalog, found, lambda volume: overview.volume_view(engine, volume)
    )
    return await whole([view for view in shown if state is None or view.state == state])


@routes.get("/volumes/{barcode}", Role.VIEWER)
async def volume(engine: EngineDep, barcode: str) -> VolumeView:
    """One disc."""
    return overview.volume_view(engine, overview.volume_named(engine, barcode))


@routes.get("/drives", Role.VIEWER)
async def drives(engine: EngineDep) -> list[DriveView]:
    """The drives and their ledgers."""
    return overview.drives(engine)


@routes.post("/drives/{name}", Role.OPERATOR)
async def drive(engine: EngineDep, name: str, order: DriveOrder) -> Acted:
    """Take a drive up or down, by its name or serial number."""
    serial = overview.drive_named(engine, name)
    if order.state == "up":
        await engine.mounts.drive_up(serial)
    else:
        await engine.mounts.drive_down(serial, order.reason)
    return Acted(detail={"drive": name, "state": order.state})
