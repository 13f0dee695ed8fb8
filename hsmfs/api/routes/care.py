"""Care for the whole: fsck, adopting trees, the trash, and readers that wait."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Response
from fastapi.responses import StreamingResponse

from ...engine import care
from ...engine.access import Role
from ...engine.jobs import Job
from ...engine.paths import resolve
from ...engine.views import Acted, TrashView, b64, text
from ...types import InodeNo
from ..deps import EngineDep, Who
from ..models import (
    AdoptOrder,
    FailOrder,
    FreezeOrder,
    FsckOrder,
    RestoreOrder,
    RollbackOrder,
    UndeleteOrder,
)
from ..router import Routes
from ..stream import line, lines, whole

routes = Routes("care")


async def _told(job: Job) -> AsyncIterator[bytes]:
    async for item in job.lines():
        yield line(item)


@routes.post("/fsck", Role.ADMIN)
async def fsck(engine: EngineDep, order: FsckOrder) -> StreamingResponse:
    """Compare catalog, pools, discs and queues. JSON lines; the last one is the report."""
    return lines(_told(care.fsck(engine, repair=order.repair, deep=order.deep)))


@routes.get("/adoptions", Role.VIEWER)
async def adoptions(engine: EngineDep) -> list[dict[str, Any]]:
    """Trees that were taken in and not given back."""
    return [care.adoption_view(engine, adoption) for adoption in engine.adopter.adoptions()]


@routes.post("/adopt", Role.ADMIN)
async def adopt(engine: EngineDep, order: AdoptOrder) -> StreamingResponse:
    """Take a tree in without copying it, or give it back. JSON lines; the last is the report."""
    source = order.source.raw()
    if order.undo:
        return lines(_told(care.unadopt(engine, source)))
    target = order.target.raw() if order.target else b"/"
    return lines(
        _told(care.adopt(engine, source, target, link=order.link, pool=order.pool))
    )


@routes.get("/trash", Role.VIEWER, response_model=list[TrashView])
async def trash(engine: EngineDep, after: int = 0, limit: int = 1000) -> Response:
    """What was deleted and can be had back, in the order of inode numbers after `after`."""
    return await whole(await care.trash(engine, after, max(1, min(limit, 1000))))


@routes.post("/trash/restore", Role.OPERATOR)
async def restore(engine: EngineDep, order: RestoreOrder) -> Acted:
    """Bring something back, to where it was or to a path."""
    to = order.path.raw() if order.path else None
    path = await engine.trash.restore(InodeNo(order.ino), to, recursive=order.recursive)
    return Acted(detail={"path": text(b"/" + path), "path_b64": b64(b"/" + path)})


@routes.post("/trash/purge", Role.ADMIN, second=True)
async def purge(engine: EngineDep, ino: int | None = None) -> Acted:
    """Delete one of it, or all of it, for good now."""
    if ino is not None:
        await engine.trash.purge(InodeNo(ino))
        return Acted(detail={"purged": 1, "kept": 0})
    done, kept = await engine.trash.purge_all()
    return Acted(detail={"purged": done, "kept": kept})


@routes.post("/trash/freeze", Role.ADMIN)
async def freeze(engine: EngineDep, order: FreezeOrder, who: Who) -> Acted:
    """Delete nothing for good because its time is over, or go on doing so."""
    await engine.burst.freeze(order.frozen, who)
    return Acted(detail={"frozen": order.frozen})


@routes.post("/undelete", Role.OPERATOR)
async def undelete(engine: EngineDep, order: UndeleteOrder) -> dict[str, Any]:
    """Bring back what was deleted at or below paths, to where it was; of one name the newest."""
    paths = [path.raw() for path in order.paths]
    return await care.undelete(engine, paths, order.since_ns, dry_run=order.dry_run)


@routes.post("/rollback", Role.ADMIN, second=True)
async def rollback(engine: EngineDep, order: RollbackOrder, who: Who) -> StreamingResponse:
    """Take a tree back to how it was at a time. JSON lines; the last one is the report."""
    tree = resolve(engine.catalog, order.path.raw(), engine.config.daemon.mountpoint)
    return lines(_told(care.rollback(engine, tree, order.to_ns, who, dry_run=order.dry_run)))


@routes.get("/waiters", Role.VIEWER, response_model=list[dict[str, Any]])
async def waiters(engine: EngineDep) -> Response:
    """Readers that wait for a disc, the oldest first."""
    return await whole(care.waiters(engine))


@routes.post("/waiters/fail", Role.OPERATOR)
async def fail(engine: EngineDep, order: FailOrder) -> Acted:
    """End waits with an errno; recalls that nobody else waits for end too."""
    whose = care.Whose(
        order.ino, order.volume, order.pid, order.uid, order.process, order.client
    )
    ended = care.fail_waiters(engine, whose, getattr(errno, order.error))
    return Acted(detail={"ended": ended})
