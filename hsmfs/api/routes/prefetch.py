"""Bringing files in before they are read."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ...engine.access import Role
from ...engine.worklist import Wishes
from ..deps import EngineDep, Who
from ..models import PathsOrder, PrefetchOrder
from ..router import Routes
from .orders import roots

routes = Routes("prefetch")


@routes.post("/prefetch", Role.OPERATOR)
async def prefetch(engine: EngineDep, order: PrefetchOrder, who: Who) -> dict[str, Any]:
    """Bring in the files of patients, studies and paths, as far as there is room for them."""
    wishes = Wishes(order.patients, order.studies, order.paths)
    return asdict(await engine.prefetcher.fetch(wishes, f"prefetch by {who}"))


@routes.post("/prefetch/index", Role.OPERATOR)
async def index(engine: EngineDep, order: PathsOrder) -> dict[str, Any]:
    """Learn patients and studies from the DICOM headers that are on disk."""
    known, looked = await engine.prefetcher.index(roots(engine, order))
    return {"dicom": known, "files": looked}


@routes.get("/prefetch", Role.VIEWER)
async def status(engine: EngineDep) -> dict[str, Any]:
    """Bounds, and what is held for nobody yet."""
    return await engine.prefetcher.status()
