"""Long answers as JSON lines: one object a line, an error as the last line if there is one.

Lines are made where the data is read (in threads, for many rows), so that the loop only passes
blocks of bytes on. A client that goes away ends the stream, not the work.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Response
from fastapi.responses import StreamingResponse

from .. import clock, logs
from ..errors import HsmError
from .errors import body_of

log = logs.get(__name__)
MEDIA_TYPE = "application/jsonl"


def line(item: Any) -> bytes:
    """A view or a plain value as a line of JSON."""
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        item = dataclasses.asdict(item)
    return json.dumps(item, separators=(",", ":")).encode() + b"\n"


async def whole(view: Any) -> Response:
    """A list of views, or a view with long lists, as JSON made in a thread row by row: all at once
    it would keep Python's lock, and so the loop, for as long as it takes.
    """
    return Response(await clock.blocking(lambda: _rows(view)), media_type="application/json")


def _rows(view: Any) -> bytes:
    if isinstance(view, list):
        return b"[" + b",".join([line(item)[:-1] for item in view]) + b"]"
    fields = {field.name: getattr(view, field.name) for field in dataclasses.fields(view)}
    pairs = (json.dumps(name).encode() + b":" + _rows(rows) for name, rows in fields.items())
    return b"{" + b",".join(pairs) + b"}"


def lines(blocks: AsyncIterator[bytes]) -> StreamingResponse:
    """An answer of such lines."""
    return StreamingResponse(_guarded(blocks), media_type=MEDIA_TYPE)


async def _guarded(blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The status line is out already, so an error must come as a line."""
    try:
        async for block in blocks:
            yield block
    except Exception as fault:
        if not isinstance(fault, HsmError):
            log.exception("stream failed", fault)
        yield line(body_of(fault))
