"""Serves the API on the daemon's Unix socket by hypercorn's trio worker.

Who may write to the socket administers hsmfs: its mode is 0660 and its group the configured one.
The socket is made here and handed over, so that it never exists with other permissions.
"""

from __future__ import annotations

import contextlib
import grp
import importlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import trio
from fastapi import FastAPI
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio import serve
from hypercorn.typing import Framework
from starlette.types import Receive, Scope, Send

from .. import clock, logs
from ..config import DaemonConfig
from ..engine.service import Engine
from ..errors import ConfigError
from .app import create_app

log = logs.get(__name__)
ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]
_SLOW_IMPORT = "anyio._backends._trio"
"""Imported by the first request else, which would hold the loop for its time."""

BACKLOG = 128
GRACE_S = 2.0
"""Requests that are under way when the daemon stops may take this long to end."""


@asynccontextmanager
async def serving(engine: Engine) -> AsyncIterator[None]:
    """The API answers inside the block. Raises ConfigError if the socket cannot be made."""
    daemon = engine.config.daemon
    settings = HypercornConfig()
    settings.bind = [f"fd://{_listen(daemon)}"]
    settings.accesslog = None
    settings.errorlog = _quiet()
    settings.graceful_timeout = GRACE_S
    settings.include_server_header = False
    stop = trio.Event()
    await clock.blocking(lambda: importlib.import_module(_SLOW_IMPORT))
    app = cast(Framework, _logged(await clock.blocking(lambda: create_app(engine))))
    try:
        async with trio.open_nursery() as nursery:

            async def run(task_status: trio.TaskStatus[list[str]]) -> None:
                await serve(app, settings, shutdown_trigger=stop.wait, task_status=task_status)

            await nursery.start(run)
            try:
                yield
            finally:
                stop.set()
    finally:
        daemon.socket.unlink(missing_ok=True)


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


def _listen(daemon: DaemonConfig) -> int:
    """A listening socket at its path; the descriptor is the caller's."""
    path = daemon.socket
    group = _group(daemon)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        mask = os.umask(0o777)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        if group is not None:
            os.chown(path, -1, group)
        path.chmod(0o660)
        listener.listen(BACKLOG)
    except OSError as fault:
        raise ConfigError(
            f"socket {path}: {fault.strerror or fault}", next_step="correct [daemon] socket"
        ) from fault
    return listener.detach()


def _remove_stale(path: Path) -> None:
    """A socket that a killed daemon left; the catalog's lock says that there is no other one."""
    with contextlib.suppress(FileNotFoundError):
        if path.is_socket():
            path.unlink()


def _group(daemon: DaemonConfig) -> int | None:
    if daemon.socket_group is None:
        return None
    try:
        return grp.getgrnam(daemon.socket_group).gr_gid
    except KeyError:
        raise ConfigError(f"[daemon] socket_group: no group {daemon.socket_group!r}") from None
