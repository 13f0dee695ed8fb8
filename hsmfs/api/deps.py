"""What handlers ask for: the engine, who calls, whether they may, and the inode behind a path."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Annotated

from fastapi import Depends, Query, Request

from ..engine.access import Identity
from ..engine.paths import resolve
from ..engine.service import Engine
from ..errors import NotFound
from ..types import Attr
from .router import declared

BODY_KEPT = 4096
"""Bytes of an order's body that its record holds; of a longer one the checksum tells."""


async def _engine(request: Request) -> Engine:
    engine = request.app.state.engine
    assert isinstance(engine, Engine)
    return engine


async def settled(request: Request) -> None:
    """The handler begins when no thread commits: its queries do not hold the loop up then."""
    await (await _engine(request)).catalog.settled()


async def identity(request: Request) -> Identity:
    """Who asks, as the gate found out."""
    who = request.state.who
    assert isinstance(who, Identity)
    return who


async def permitted(request: Request) -> None:
    """The caller's role covers the route's, and a second person has agreed if need be."""
    engine, who = await _engine(request), await identity(request)
    role, second = declared(request)
    path = f"{request.method} {request.url.path}"
    await engine.access.permit(who, role, path)
    if second:
        act = f"{path}?{request.url.query}" if request.url.query else path
        await engine.access.second.check(who, act, await request.body())


async def audited(request: Request) -> None:
    """An order is on record before it is carried out; questions are not."""
    if request.method in ("GET", "HEAD"):
        return
    body = await request.body()
    engine, who = await _engine(request), str(await identity(request))
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
Caller = Annotated[Identity, Depends(identity)]
"""Who asks."""


async def _name(caller: Caller) -> str:
    return str(caller)


Who = Annotated[str, Depends(_name)]
"""Who asks, in words, for records and lists."""


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
