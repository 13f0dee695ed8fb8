"""Serves the API by hypercorn on the daemon's Unix socket, and over TCP with TLS if configured.

The Unix socket is made here with mode 0660 and the configured group, so that it never exists with
other permissions. Each connection's `Peer`, which the kernel or TLS vouches for, is put into the
state of its requests; that is why connections are accepted here and not by hypercorn's `serve`.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import cast

import trio
from fastapi import FastAPI
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import Framework, LifespanState
from hypercorn.utils import wrap_app
from starlette.types import Receive, Scope, Send

from .. import clock, logs
from ..engine.access import Peer
from ..engine.service import Engine
from .app import create_app
from .doors import Door, TlsDoor, UnixDoor
from .gate import ASGI, gate

log = logs.get(__name__)
_SLOW_IMPORT = "anyio._backends._trio"
"""Imported by the first request else, which would hold the loop for its time."""

GRACE_S = 2.0
"""Requests that are under way when the daemon stops may take this long to end."""


@asynccontextmanager
async def serving(engine: Engine) -> AsyncIterator[list[str]]:
    """The API answers inside the block, at these addresses. Raises ConfigError if it cannot."""
    config = engine.config
    await clock.blocking(lambda: importlib.import_module(_SLOW_IMPORT))
    app = await clock.blocking(lambda: create_app(engine))
    server = _Server(gate(_logged(app), engine.access))
    doors: list[Door] = [UnixDoor(config.daemon)]
    try:
        if config.access.listen is not None:
            doors.append(await clock.blocking(lambda: TlsDoor(config.access, engine.access.failed)))
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as listening:
                for door in doors:
                    listening.start_soon(server.accept, door, connections)
                    log.info("the API listens", address=door.address)
                try:
                    yield [door.address for door in doors]
                finally:
                    listening.cancel_scope.cancel()
            await server.end()
            connections.cancel_scope.deadline = trio.current_time() + GRACE_S
    finally:
        for door in doors:
            door.close()


class _Server:
    """hypercorn's handling of connections that we accepted."""

    def __init__(self, app: ASGI) -> None:
        self._settings = HypercornConfig()
        self._settings.accesslog = None
        self._settings.errorlog = _quiet()
        self._settings.include_server_header = False
        self._app = wrap_app(cast(Framework, app), self._settings.wsgi_max_body_size, "asgi")
        self._context = WorkerContext(None)

    async def accept(self, door: Door, connections: trio.Nursery) -> None:
        """Take connections at a door until cancelled."""
        await trio.serve_listeners(
            partial(self._connection, door), [door.listener], handler_nursery=connections
        )

    async def _connection(self, door: Door, stream: trio.SocketStream) -> None:
        try:
            async with door.entered(stream) as entered:
                if entered is not None:
                    await self._requests(*entered)
        except Exception as fault:
            log.exception("connection failed", fault, address=door.address)

    async def _requests(
        self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream], peer: Peer
    ) -> None:
        state = LifespanState({"peer": peer})
        # hypercorn gives it plain SocketStreams, too; its annotation says less.
        given = cast("trio.SSLStream[trio.SocketStream]", stream)
        await _Connection(self._app, self._settings, self._context, state, given)

    async def end(self) -> None:
        """Connections that are idle end now, the others after their answer."""
        await self._context.terminated.set()


class _Connection(TCPServer):
    """Ends when its client is gone: hypercorn's own would go on to count as open, and hold a
    descriptor, for the time that an idle connection is kept (0.18, trio/tcp_server.py)."""

    async def _read_data(self) -> None:
        await super()._read_data()
        await self.idle_task.stop()


def _logged(app: FastAPI) -> ASGI:
    """The app, with what it did not expect logged once; the client has got its answer by then."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except Exception as fault:
            log.exception("request failed", fault, path=scope.get("path"))

    return run


def _quiet() -> logging.Logger:
    """Hypercorn's own log: what it warns of, through our format."""
    logger = logging.getLogger("hsmfs.api.http")
    logger.setLevel(logging.WARNING)
    return logger
