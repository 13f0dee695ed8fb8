"""What happens, as it happens: JSON lines of events, the kept ones and then the new."""

from __future__ import annotations

from collections.abc import AsyncIterator

import trio
from fastapi.responses import StreamingResponse

from ...engine.access import Role
from ...engine.service import Engine
from ..deps import EngineDep
from ..router import Routes
from ..stream import line, lines

routes = Routes("events")


@routes.get("/events", Role.VIEWER)
async def events(
    engine: EngineDep, since: int | None = None, follow: bool = False
) -> StreamingResponse:
    """Events with a number greater than `since` (None: all kept, or with follow: from now on)."""
    return lines(_follow(engine, since) if follow else _kept(engine, since or 0))


async def _kept(engine: Engine, since: int) -> AsyncIterator[bytes]:
    for event in engine.events.since(since):
        yield line(event)
        await trio.lowlevel.checkpoint()


async def _follow(engine: Engine, since: int | None) -> AsyncIterator[bytes]:
    async for event in engine.events.follow(since):
        yield line(event)
