"""Orders about files: archive, recall, release, pin, cancel; and the queues they go to."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import Response
from fastapi.responses import StreamingResponse

from ...catalog.queues import RecallClass
from ...engine import acts, overview
from ...engine.access import Role
from ...engine.paths import resolve
from ...engine.preview import Preview, check_budget, preview
from ...engine.service import Engine
from ...engine.views import Outcome, Progress, Queue
from ...types import Attr
from ..deps import EngineDep, Who
from ..models import ArchiveOrder, PathsOrder, PinOrder, RecallOrder, ReleaseOrder
from ..router import Routes
from ..stream import line, lines, whole

routes = Routes("orders")


def roots(engine: Engine, order: PathsOrder) -> list[Attr]:
    """The inodes an order is about; none of it is done if one does not exist."""
    mountpoint = engine.config.daemon.mountpoint
    return [resolve(engine.catalog, path.raw(), mountpoint) for path in order.paths]


async def _as_lines(steps: AsyncIterator[Progress]) -> AsyncIterator[bytes]:
    async for step in steps:
        yield line(step)


@routes.post("/archive", Role.OPERATOR)
async def archive(engine: EngineDep, order: ArchiveOrder, who: Who) -> StreamingResponse:
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
                vault=order.vault,
                accept=order.accept,
                who=who,
            )
        )
    )


@routes.post("/recall", Role.OPERATOR)
async def recall(engine: EngineDep, order: RecallOrder, who: Who) -> StreamingResponse:
    """Bring files in from discs. JSON lines of Progress; the last one has kind `end`."""
    urgency = RecallClass[order.urgency.upper()]
    files = roots(engine, order)
    if not order.over_budget:
        await check_budget(engine, files, urgency)
    return lines(
        _as_lines(acts.recall(engine, files, urgency=urgency, wait=order.wait, who=who))
    )


@routes.post("/recall/estimate", Role.VIEWER)
async def estimate(engine: EngineDep, order: RecallOrder) -> Preview:
    """What the same order to /recall would cost now: discs, exchanges, bytes and time."""
    return await preview(engine, roots(engine, order), RecallClass[order.urgency.upper()])


@routes.post("/release", Role.OPERATOR)
async def release(engine: EngineDep, order: ReleaseOrder, who: Who) -> Outcome:
    """Give up the bytes on disk of files with enough proven copies."""
    return await acts.release(engine, roots(engine, order), who, even_open=order.even_open)


@routes.post("/pin", Role.OPERATOR)
async def pin(engine: EngineDep, order: PinOrder) -> Outcome:
    """Keep files on disk whatever the policies say, or no longer."""
    return await acts.pin(engine, roots(engine, order), order.pinned)


@routes.post("/cancel", Role.OPERATOR)
async def cancel(engine: EngineDep, order: PathsOrder) -> Outcome:
    """Take files out of the queues of recalls and migrations."""
    return await acts.cancel(engine, roots(engine, order))


@routes.get("/queue", Role.VIEWER, response_model=Queue)
async def queue(engine: EngineDep, limit: int = 1000) -> Response:
    """What waits for a disc, in either direction."""
    return await whole(await overview.queue(engine, limit))
