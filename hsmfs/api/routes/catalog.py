"""The catalog itself: backups, and a rehearsal of its rebuild from discs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from fastapi.responses import StreamingResponse

from ...engine.access import Role
from ...engine.jobs import Job
from ...engine.rebuild import sample
from ...errors import ConfigError
from ..deps import EngineDep
from ..models import BackupOrder, SampleOrder
from ..router import Routes
from ..stream import line, lines

routes = Routes("catalog")


async def _told(job: Job) -> AsyncIterator[bytes]:
    async for item in job.lines():
        yield line(item)


@routes.post("/catalog/backup", Role.ADMIN)
async def backup(engine: EngineDep, order: BackupOrder) -> StreamingResponse:
    """Back the catalog up now. JSON lines; the last one says what was written."""
    dest = Path(order.path) if order.path else engine.config.catalog.backup
    if dest is None or not dest.is_absolute() or (order.file and not order.path):
        raise ConfigError(
            "where to? no absolute path was given, and [catalog] backup is not set",
            next_step="name a folder or file",
        )
    job = engine.backups.order(
        engine.jobs, dest, order.keep, file=order.file, new=order.new_folder
    )
    return lines(_told(job))


@routes.post("/rebuild/sample", Role.OPERATOR)
async def rehearse(engine: EngineDep, order: SampleOrder) -> StreamingResponse:
    """Compare some discs with the catalog, changing nothing. JSON lines; the last is the report."""
    return lines(_told(sample.order(engine, order.discs)))
