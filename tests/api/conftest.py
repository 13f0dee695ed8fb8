"""A whole engine on a temporary catalog, pool and simulated library, and a client of its API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from hsmfs.api.app import create_app
from hsmfs.api.gate import ASGI, gate
from hsmfs.catalog.catalog import Catalog
from hsmfs.config import Config, loads
from hsmfs.engine.access import Peer
from hsmfs.engine.service import Engine
from hsmfs.engine.setup import init, open_pools
from hsmfs.library import configured
from hsmfs.types import ROOT


class World:
    """An engine that runs, with a client and a quick way to make files.

    Attributes:
        peer: who the next requests come from; root on the Unix socket.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.peer = Peer(uid=0, user="root")
        self._app: ASGI = gate(create_app(engine), engine.access)
        transport = httpx.ASGITransport(self._from_peer, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://hsmfs")

    async def _from_peer(self, scope, receive, send) -> None:
        await self._app({**scope, "state": {"peer": self.peer}}, receive, send)

    async def file(self, name: bytes, data: bytes) -> int:
        """A file in the root folder, written through the engine."""
        engine = self.engine
        async with engine.catalog.write():
            pool = engine.pools.for_new().id
            attr = engine.catalog.names.create(ROOT, name, 0o100644, 0, 0, 1, pool=pool)
        live = engine.files.open(attr.ino, write=True)
        if data:
            await engine.files.write(live, 0, data)
        engine.files.close(live, write=True)
        await engine.files.flush_closed()
        return attr.ino

    async def get(self, path: str, /, **query: object) -> httpx.Response:
        return await self.client.get(f"/v1{path}", params=query)

    async def post(self, path: str, body: object = None) -> httpx.Response:
        return await self.client.post(f"/v1{path}", json=body, timeout=60)


@pytest.fixture
def config(config_file: Path) -> Config:
    return loads(config_file.read_text())


@pytest.fixture
async def world(config: Config) -> AsyncIterator[World]:
    await init(config)
    catalog = Catalog.open(config.daemon.state)
    pools = await open_pools(config.pool, catalog)
    library = configured.open_library(config.library)
    engine = Engine(config, catalog, pools, library)
    async with engine.running():
        world = World(engine)
        async with world.client:
            yield world
    await library.close()
    catalog.close()
