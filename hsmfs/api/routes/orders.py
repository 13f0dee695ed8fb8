"""Orders about files: archive, recall, release, pin, cancel; and the queues they go to."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse

from ...catalog.queues import RecallClass
from ...engine import acts, overview
from ...engine.paths import resolve
from ...engine.service import Engine
from ...engine.views import Outcome, Progress, Queue
from ...types import Attr
from ..deps import EngineDep, Who
from ..models import ArchiveOrder, PathsOrder, PinOrder, RecallOrder, ReleaseOrder
from ..stream import line, lines, whole

router = APIRouter(tags=["orders"])


def roots(engine: Engine, order: PathsOrder) -> list[Attr]:
    """The inodes an order is about; none of it is done if one does not exist."""
    mountpoint = engine.config.daemon.mountpoint
    return [resolve(engine.catalog, path.raw(), mountpoint) for path in order.paths]


async def _as_lines(steps: AsyncIterator[Progress]) -> AsyncIterator[bytes]:
    async for step in steps:
        yield line(step)


@router.post("/archive")
async def archive(engine: EngineDep, order: ArchiveOrder, who: Who = "api") -> StreamingResponse:
    """Put files on discs. JSON lines of Progress; the last one has kind `end`."""
    return lines(
        _as_lines(
            acts.archive(
                engine,
                roots(engine, order),
                copies=order.copies,
                now=order.now,
                release=order.release,
                wait=order.wait,
                who=who,
            )
        )
    )


@router.post("/recall")
async def recall(engine: EngineDep, order: RecallOrder, who: Who = "api") -> StreamingResponse:
    """Bring files in from discs. JSON lines of Progress; the last one has kind `end`."""
    urgency = RecallClass[order.urgency.upper()]
    files = roots(engine, order)
    return lines(
        _as_lines(acts.recall(engine, files, urgency=urgency, wait=order.wait, who=who))
    )


@router.post("/release")
async def release(engine: EngineDep, order: ReleaseOrder, who: Who = "api") -> Outcome:
    """Give up the bytes on disk of files with enough proven copies."""
    return await acts.release(engine, roots(engine, order), who, even_open=order.even_open)


@router.post("/pin")
async def pin(engine: EngineDep, order: PinOrder) -> Outcome:
    """Keep files on disk whatever the policies say, or no longer."""
    return await acts.pin(engine, roots(engine, order), order.pinned)


@router.post("/cancel")
async def cancel(engine: EngineDep, order: PathsOrder) -> Outcome:
    """Take files out of the queues of recalls and migrations."""
    return await acts.cancel(engine, roots(engine, order))


@router.get("/queue", response_model=Queue)
async def queue(engine: EngineDep, limit: int = 1000) -> Response:
    """What waits for a disc, in either direction."""
    return await whole(await overview.queue(engine, limit))
