"""Keeping discs alive: scrubs, the health of discs and drives, replacing discs, the forecast."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from fastapi import Query

from ... import clock
from ...catalog.volumes import Volume
from ...engine import forecast as forecasts
from ...engine import health_views, overview
from ...engine.access import Role
from ...engine.refresh import REFRESH
from ...engine.service import Engine
from ...engine.views import Acted
from ...errors import NotFound
from ...states import VolumeState
from ..deps import EngineDep, Who
from ..models import DiscsOrder, QuarantineOrder, ReplaceOrder, ScrubOrder
from ..router import Routes

routes = Routes("media")


@routes.get("/scrub", Role.VIEWER)
async def scrub_status(engine: EngineDep) -> dict[str, Any]:
    """What is being tested, what waits, and which disc is due next."""
    return health_views.scrubs(engine)


@routes.post("/scrub", Role.OPERATOR)
async def scrub(engine: EngineDep, order: ScrubOrder, who: Who) -> Acted:
    """Test discs now; without names all that hold something."""
    named = _named(engine, order.discs)
    volumes = named or [
        volume
        for state in (VolumeState.FULL, VolumeState.SUSPECT)
        for volume in engine.catalog.volumes.all(state)
        if volume.element is not None
    ]
    new = await engine.scrubber.ask(volumes, who, order.share)
    return Acted(detail={"discs": [v.barcode for v in volumes], "new": new})


@routes.post("/scrub/{act}", Role.OPERATOR)
async def scrub_act(
    engine: EngineDep, act: Literal["pause", "resume"], order: DiscsOrder
) -> Acted:
    """Let the tests of these discs wait, or go on where they were; without names all."""
    volumes = _named(engine, order.discs)
    await (engine.scrubber.pause if act == "pause" else engine.scrubber.resume)(volumes)
    return Acted(detail={"act": act, "discs": order.discs})


@routes.post("/quarantine", Role.OPERATOR)
async def quarantine(engine: EngineDep, order: QuarantineOrder) -> Acted:
    """Put discs under quarantine, or lift it."""
    volumes = _named(engine, order.discs)
    for volume in volumes:
        await engine.mounts.ledger.quarantine(volume, order.reason)
    await engine.catalog.sync()
    return Acted(detail={"discs": [v.barcode for v in volumes], "reason": order.reason})


@routes.get("/volumes/{barcode}/health", Role.VIEWER)
async def volume_health(engine: EngineDep, barcode: str) -> dict[str, Any]:
    """A disc's ledger: tests, faults with their sectors, drives, when it is due."""
    return health_views.of_volume(engine, overview.volume_named(engine, barcode))


@routes.get("/drives/{name}/health", Role.VIEWER)
async def drive_health(engine: EngineDep, name: str) -> dict[str, Any]:
    """A drive's ledger: faults, speed, discs that it wrote and that failed in it."""
    return health_views.of_drive(engine, overview.drive_named(engine, name))


@routes.get("/replacements", Role.VIEWER)
async def replacements(engine: EngineDep) -> list[dict[str, Any]]:
    """Discs that are being replaced, and those that were, with their certificates."""
    return health_views.replacements(engine)


@routes.post("/replacements", Role.OPERATOR)
async def replace(engine: EngineDep, order: ReplaceOrder, who: Who) -> Acted:
    """Put the live files of discs on others, then retire the discs.

    refresh makes a bad disc anew from its set's parity if that can be done, unless `files`.
    """
    volumes = _named(engine, order.discs)
    done: dict[str, str] = {}
    if order.kind == REFRESH and not order.files:
        for volume in volumes:
            done[volume.barcode] = await engine.replace_disc(volume, who)
    else:
        asked = await engine.refresher.ask(volumes, order.kind, who)
        done = {volume.barcode: order.kind for volume in asked}
    return Acted(detail={"discs": done})


@routes.post("/replacements/cancel", Role.OPERATOR)
async def cancel(engine: EngineDep, order: DiscsOrder) -> Acted:
    """Forget orders whose discs are not retired yet."""
    for volume in _named(engine, order.discs):
        await engine.refresher.cancel(volume)
    return Acted(detail={"discs": order.discs})


@routes.get("/replacements/{barcode}/certificate", Role.VIEWER)
async def certificate(engine: EngineDep, barcode: str) -> dict[str, Any]:
    """The destruction certificate of a retired disc: its text, and the same as `facts`."""
    row = engine.catalog.refreshes.get(overview.volume_named(engine, barcode).id)
    if row is None or not row.certificate:
        why = "it was not replaced" if row is None else "it is being replaced still"
        raise NotFound(
            f"disc {barcode} has no certificate: {why}",
            next_step="see 'hsmctl volume replacements'",
        )
    path = engine.refresher.certificates / row.certificate
    try:
        text = await clock.blocking(path.with_suffix(".txt").read_text, clock.DISK)
        body = await clock.blocking(path.with_suffix(".json").read_bytes, clock.DISK)
    except FileNotFoundError as fault:
        raise NotFound(f"{fault.filename} is gone", next_step="restore it from a backup") from fault
    return {
        "name": row.certificate,
        "sha256": hashlib.sha256(body).hexdigest(),
        "text": text,
        "facts": json.loads(body),
    }


@routes.get("/media/forecast", Role.VIEWER)
async def forecast(
    engine: EngineDep, growth: Annotated[int | None, Query(ge=0)] = None
) -> dict[str, Any]:
    """Blank discs that a year needs, and what was assumed. growth: bytes a year, if known."""
    now = clock.now_ns()
    return await engine.catalog.read(
        lambda reports: forecasts.forecast(reports, engine.config, now, growth)
    )


def _named(engine: Engine, names: list[str]) -> list[Volume]:
    """The discs of those barcodes, and all discs of sets of that name."""
    found: list[Volume] = []
    for name in names:
        group = engine.catalog.sets.named(name)
        if group is not None:
            found += engine.catalog.sets.discs(group.id)
        else:
            found.append(overview.volume_named(engine, name))
    return found
