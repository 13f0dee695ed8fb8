"""What handlers ask for: the engine, who calls, and the inode behind a path."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Annotated

from fastapi import Depends, Header, Query, Request

from ..engine.paths import resolve
from ..engine.service import Engine
from ..errors import NotFound
from ..types import Attr

BODY_KEPT = 4096
"""Bytes of an order's body that its record holds; of a longer one the checksum tells."""


async def _engine(request: Request) -> Engine:
    engine = request.app.state.engine
    assert isinstance(engine, Engine)
    return engine


async def settled(request: Request) -> None:
    """The handler begins when no thread commits: its queries do not hold the loop up then."""
    await (await _engine(request)).catalog.settled()


async def audited(
    request: Request, who: Annotated[str, Header(alias="X-Hsmfs-Who", max_length=200)] = "api"
) -> None:
    """An order is on record before it is carried out; questions are not."""
    if request.method in ("GET", "HEAD"):
        return
    body = await request.body()
    engine = await _engine(request)
    head = await engine.trust.audit.write(
        "admin.order", who, request.url.path, method=request.method, query=request.url.query,
        body=body[:BODY_KEPT].decode("utf-8", "backslashreplace"), bytes=len(body),
        sha256=hashlib.sha256(body).hexdigest(),
    )  # fmt: skip
    request.state.order = who, head.seq


async def order_failed(request: Request, cause: str) -> None:
    """What `audited` put on record was refused or failed."""
    who, seq = getattr(request.state, "order", ("", 0))
    if seq:
        engine = await _engine(request)
        await engine.trust.audit.write(
            "admin.failed", who, request.url.path, outcome="failed", order=seq, cause=cause
        )


EngineDep = Annotated[Engine, Depends(_engine)]
"""The engine of this app."""
Who = Annotated[str, Header(alias="X-Hsmfs-Who", max_length=200)]
"""Who asks, for the log; the socket's permissions are what protects."""


def path_bytes(path: str | None, path_b64: str | None) -> bytes:
    """A namespace path as bytes, from either form. Raises NotFound if it is neither."""
    if path_b64 is not None:
        try:
            return base64.b64decode(path_b64, validate=True)
        except binascii.Error as fault:
            raise NotFound(f"path_b64 is not base64: {fault}") from fault
    if path is None:
        raise NotFound("no path given", next_step="give path or path_b64")
    return path.encode("utf-8", "surrogateescape")


async def _attr(
    engine: EngineDep,
    path: Annotated[str | None, Query(description="path from the namespace's root")] = None,
    path_b64: Annotated[str | None, Query(description="the same as base64 of its bytes")] = None,
) -> Attr:
    return resolve(engine.catalog, path_bytes(path, path_b64), engine.config.daemon.mountpoint)


AttrDep = Annotated[Attr, Depends(_attr)]
"""The inode that the query's path names."""
