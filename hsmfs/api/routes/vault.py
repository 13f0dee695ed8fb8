"""Discs out of the library and in again, and what operators are asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

from fastapi.responses import StreamingResponse
from pydantic import Field, model_validator

from ...engine.access import Role
from ...engine.paths import resolve
from ...engine.service import Engine
from ...engine.views import Acted
from ...types import Attr
from ..deps import EngineDep
from ..models import Body, PathRef
from ..router import Routes
from ..stream import line, lines

routes = Routes("vault")


class ExportOrder(Body):
    """Discs, by sets or barcodes, and where they are to go."""

    names: list[str] = Field(min_length=1, max_length=10_000)
    destination: str | None = Field(default=None, min_length=1, max_length=500)
    """None: where the policies want each."""
    dry_run: bool = False


class Names(Body):
    """Sets or barcodes; for an import none means whatever lies in the mail slots."""

    names: list[str] = Field(default_factory=list, max_length=10_000)


class Refusal(Body):
    """Why a disc is not brought."""

    reason: str = Field(default="", max_length=500)


class DiscAdoption(Body):
    """Discs that another catalog wrote, and the folder that their files are put below."""

    images: list[Annotated[str, Field(min_length=1, max_length=4096)]] = Field(default_factory=list)
    """Images, or folders of them, on the daemon's machine."""
    discs: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(default_factory=list)
    """Barcodes of discs in the library."""
    into: PathRef

    @model_validator(mode="after")
    def _some(self) -> DiscAdoption:
        if not self.images and not self.discs:
            raise ValueError("images or discs are needed")
        return self


@routes.post("/volumes/adopt", Role.ADMIN)
async def adopt(engine: EngineDep, order: DiscAdoption) -> StreamingResponse:
    """Bring their files under a folder as stubs. JSON lines."""
    into = resolve(engine.catalog, order.into.raw(), engine.config.daemon.mountpoint)
    return lines(_adopted(engine, order, into))


async def _adopted(engine: Engine, order: DiscAdoption, into: Attr) -> AsyncIterator[bytes]:
    images = [Path(name) for name in order.images]
    async with aclosing(engine.disc_adopter.adopt(images, order.discs, into)) as steps:
        async for step in steps:
            yield line(step)


@routes.post("/export", Role.OPERATOR)
async def export(engine: EngineDep, order: ExportOrder) -> dict[str, Any]:
    """Order discs out of the library; the answer is the pick list."""
    return await engine.vault.export(order.names, order.destination, dry_run=order.dry_run)


@routes.get("/export", Role.VIEWER)
async def leaving(engine: EngineDep) -> list[dict[str, Any]]:
    """Discs that were ordered out and lie in the library still."""
    return engine.vault.leaving()


@routes.post("/export/cancel", Role.OPERATOR)
async def cancel(engine: EngineDep, order: Names) -> Acted:
    """Discs that were ordered out and are here still stay."""
    return Acted(detail={"discs": await engine.vault.cancel(order.names)})


@routes.post("/labels", Role.VIEWER)
async def labels(engine: EngineDep, order: Names) -> list[dict[str, Any]]:
    """What is to be printed on the labels of discs."""
    return [engine.vault.pick(v, v.location) for v in engine.vault.named(order.names)]


@routes.post("/import", Role.OPERATOR)
async def import_(engine: EngineDep, order: Names) -> dict[str, Any]:
    """Take discs from the mail slots into the library."""
    return await engine.vault.bring_in(order.names)


@routes.get("/requests", Role.VIEWER)
async def requests(engine: EngineDep) -> list[dict[str, Any]]:
    """Discs that operators are asked to bring, then those to take out; the oldest first."""
    return engine.vault.requests()


@routes.post("/requests/{barcode}/done", Role.OPERATOR)
async def done(engine: EngineDep, barcode: str) -> dict[str, Any]:
    """The disc was put into the library."""
    return await engine.vault.done(barcode)


@routes.post("/requests/{name}/refuse", Role.OPERATOR)
async def refuse(engine: EngineDep, name: str, order: Refusal) -> Acted:
    """The disc will not be brought; its readers are told. Or discs are not taken out: they stay."""
    return Acted(detail={"recalls": await engine.vault.refuse(name, order.reason)})
