"""Files compared with the checksums of their ingest, and the signed report of it on record."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated

from fastapi.responses import StreamingResponse
from pydantic import Field

from ...engine import care
from ...engine.access import Role
from ...engine.jobs import Job
from ...engine.views import Acted
from ..deps import EngineDep, Who
from ..models import Body, VerifyOrder
from ..router import Routes
from ..stream import line, lines
from .orders import roots
from .seals import Sha256

routes = Routes("verify")


class ReportNote(Body):
    """A report was signed."""

    path: Annotated[str, Field(max_length=4096)]
    """What was verified, as the report has it."""
    record: Annotated[str, Field(pattern=r"^\d+:[0-9a-f]{64}$")]
    """The record of the audit log that the report names."""
    sha256: Sha256
    """Of the report."""
    key_sha256: Sha256
    """Of the public key, as docs/sealing.md says."""


async def _told(job: Job) -> AsyncIterator[bytes]:
    async with aclosing(job.lines(own=True)) as steps:
        async for step in steps:
            yield line(step)


@routes.post("/verify", Role.OPERATOR)
async def verify(engine: EngineDep, order: VerifyOrder, who: Who) -> StreamingResponse:
    """Compare files. JSON lines; the last one is the report. It stops when the caller leaves, or
    the daemon ends, and goes on when the same order is given again.
    """
    below = roots(engine, order)
    return lines(_told(care.verify(engine, below, who, deep=order.deep, anew=order.anew)))


@routes.post("/verify/reports", Role.OPERATOR)
async def signed(engine: EngineDep, order: ReportNote, who: Who) -> Acted:
    """Put a signed report on record; durable when answered."""
    fields = order.model_dump(exclude={"path"})
    await engine.trust.audit.write("integrity.signed", who, order.path, **fields)
    await engine.catalog.sync()
    return Acted(detail={"sha256": order.sha256})
