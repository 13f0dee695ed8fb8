"""Files by path: listing, everything known of one, why it waits, and the search for many."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query
from fastapi.responses import StreamingResponse

from ...catalog.reports import Query as Search
from ...engine import overview, search
from ...engine.access import Role
from ...engine.versions import VersionView
from ...engine.views import Acted, Info, Listing, b64, text
from ...errors import HsmError
from ...states import FileState
from ..deps import AttrDep, EngineDep, Who, path_bytes
from ..models import VersionOrder
from ..router import Routes
from ..stream import lines

routes = Routes("files")


@routes.get("/ls", Role.VIEWER)
async def ls(
    engine: EngineDep, attr: AttrDep, after: int = 0, limit: Annotated[int, Query(ge=1)] = 1000
) -> Listing:
    """A page of a folder; go on with `after` = `next` of the page before. A file lists itself."""
    return await overview.listing(engine, attr, after, limit)


@routes.get("/info", Role.VIEWER)
async def info(engine: EngineDep, attr: AttrDep) -> Info:
    """Everything known of one file or folder."""
    return overview.info(engine, attr)


@routes.get("/versions", Role.VIEWER)
async def versions(
    engine: EngineDep, path: str | None = None, path_b64: str | None = None
) -> list[VersionView]:
    """What a path was, the newest first: also one that was deleted or replaced."""
    return await engine.versions.of(path_bytes(path, path_b64), engine.config.daemon.mountpoint)


@routes.post("/versions/restore", Role.OPERATOR)
async def restore(engine: EngineDep, order: VersionOrder, who: Who) -> Acted:
    """Bring an older version back, in the file's place or under a new name."""
    to = order.to.raw() if order.to else None
    mountpoint = engine.config.daemon.mountpoint
    path = await engine.versions.restore(order.path.raw(), order.version, to, who, mountpoint)
    return Acted(detail={"path": text(path), "path_b64": b64(path)})


@routes.get("/why", Role.VIEWER)
async def why(engine: EngineDep, attr: AttrDep) -> dict[str, Any]:
    """What a reader of the file waits for: state, copies, volume, place in the queue, drive."""
    return engine.why(attr.ino)


@routes.get("/find", Role.VIEWER)
async def find(
    engine: EngineDep,
    state: Annotated[list[str] | None, Query()] = None,
    modified_before_ns: int | None = None,
    modified_after_ns: int | None = None,
    accessed_before_ns: int | None = None,
    min_size: int | None = None,
    max_size: int | None = None,
    uid: int | None = None,
    gid: int | None = None,
    volume: str | None = None,
    pinned: bool | None = None,
    name: Annotated[str | None, Query(description="pattern of the last component")] = None,
    limit: Annotated[int | None, Query(ge=1)] = None,
    paths: Annotated[bool, Query(description="only path_b64 and ino of each")] = False,
    lost: Annotated[bool, Query(description="bytes are on no disc that can be had")] = False,
) -> StreamingResponse:
    """Files that match, as JSON lines of Entry, by state and time of change."""
    query = Search(
        states=tuple(_state(word) for word in state or ()),
        modified_before_ns=modified_before_ns,
        modified_after_ns=modified_after_ns,
        accessed_before_ns=accessed_before_ns,
        min_size=min_size,
        max_size=max_size,
        uids=() if uid is None else (uid,),
        gids=() if gid is None else (gid,),
        volume=None if volume is None else overview.volume_named(engine, volume).id,
        pinned=pinned,
    )
    return lines(search.find(engine, query, name, limit, paths=paths, lost=lost))


def _state(word: str) -> FileState:
    try:
        return FileState[word.upper()]
    except KeyError:
        known = ", ".join(state.name.lower() for state in FileState)
        raise BadState(f"no state {word!r}", next_step=f"one of {known}") from None


class BadState(HsmError):
    """The word is none of the states of files."""

    status, exit_code = 400, 2
