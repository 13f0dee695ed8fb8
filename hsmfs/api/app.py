"""The HTTP API as one FastAPI application: what hsmctl, the web console and programs speak to.

Each group of routes is a file in routes/; all ask one Engine and know no SQL, no disc and no
FUSE. Every handler is a coroutine: nothing here may block the loop.
"""

from __future__ import annotations

from fastapi import Depends, FastAPI

from .. import __version__
from ..engine.service import Engine
from . import errors
from .deps import audited, permitted, settled
from .routes import ROUTERS

PREFIX = "/v1"
FIRST = (settled, permitted, audited)
"""What happens before each handler, in this order."""


def create_app(engine: Engine) -> FastAPI:
    """The application for one engine; blocking, some tenths of a second."""
    app = FastAPI(
        title="hsmfs",
        version=__version__,
        description="Sizes are bytes, times UTC nanoseconds; names that are not UTF-8 have "
        "`path` null and their bytes in `path_b64`.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.state.engine = engine
    errors.install(app)
    for router in ROUTERS:
        app.include_router(router, prefix=PREFIX, dependencies=[Depends(d) for d in FIRST])

    @app.get("/", include_in_schema=False)
    async def root() -> dict[str, str]:
        return {"name": "hsmfs", "version": __version__, "api": PREFIX}

    _build(app)
    return app


def _build(app: FastAPI) -> None:
    """Routes are compiled when they are first compared with a request: let that be now."""
    nowhere = {"type": "http", "method": "GET", "path": "/", "root_path": ""}
    for route in app.routes:
        route.matches(nowhere)
