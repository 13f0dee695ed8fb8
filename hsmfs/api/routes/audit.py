"""The audit log: search, export as lines that verify, and judging the whole chain."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

from fastapi import Query
from fastapi.responses import StreamingResponse

from ...catalog.audit import Record, Wanted
from ...catalog.reports import Reports
from ...engine.access import Role
from ...engine.service import Engine
from ...engine.trust.verify import verify as judge
from ..deps import EngineDep
from ..router import Routes
from ..stream import lines

routes = Routes("audit")
PAGE = 2000
"""Records read in one step."""


@routes.get("/audit", Role.AUDITOR)
async def search(
    engine: EngineDep,
    kind: Annotated[str, Query(description="kind, or a pattern such as retention.*")] = "",
    actor: str = "",
    object: Annotated[str, Query(description="pattern of the object")] = "",
    outcome: str = "",
    text: Annotated[str, Query(description="anywhere in actor, object or detail")] = "",
    since_ns: int | None = None,
    until_ns: int | None = None,
    after: Annotated[int, Query(ge=0, description="records behind this number")] = 0,
    limit: Annotated[int | None, Query(ge=1)] = None,
) -> StreamingResponse:
    """Records that match, in order, as JSON lines of AUDIT.jsonl (docs/audit.md)."""
    wanted = Wanted(kind, actor, object, outcome, text, since_ns, until_ns)
    return lines(_found(engine, wanted, after, limit))


async def _found(
    engine: Engine, wanted: Wanted, after: int, limit: int | None
) -> AsyncIterator[bytes]:
    left = limit
    while left is None or left > 0:
        count = PAGE if left is None else min(PAGE, left)
        block, found, after = await engine.catalog.read(
            partial(_page, wanted=wanted, after=after, count=count)
        )
        if block:
            yield block
        if found < count:
            return
        left = None if left is None else left - found


def _page(reports: Reports, wanted: Wanted, after: int, count: int) -> tuple[bytes, int, int]:
    """Lines, how many, and the number of the last record."""
    found = reports.audit.search(wanted, after, count)
    block = b"".join(record.line(_before(reports, record)) for record in found)
    return block, len(found), found[-1].seq if found else after


def _before(reports: Reports, record: Record) -> bytes:
    """The hash before a record; empty if that one is gone."""
    return reports.audit.hash_of(record.seq - 1) or b""


@routes.get("/audit/verify", Role.AUDITOR)
async def verify(engine: EngineDep) -> dict[str, Any]:
    """Follow the whole chain and compare it with the heads that discs bear."""
    return asdict(await judge(engine.catalog))
