"""What handlers ask for: the engine, who calls, and the inode behind a path."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

from fastapi import Depends, Header, Query, Request

from ..engine.paths import resolve
from ..engine.service import Engine
from ..errors import NotFound
from ..types import Attr


async def _engine(request: Request) -> Engine:
    engine = request.app.state.engine
    assert isinstance(engine, Engine)
    return engine


async def settled(request: Request) -> None:
    """The handler begins when no thread commits: its queries do not hold the loop up then."""
    await (await _engine(request)).catalog.settled()


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
