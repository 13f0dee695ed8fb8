"""Legal holds: place, widen, apply again, list, release."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import Field

from ...catalog.holds import Hold
from ...engine.access import Role
from ...engine.paths import resolve
from ...engine.service import Engine
from ...engine.trust.holds import Scope
from ...engine.trust.words import path_of
from ...engine.views import Acted
from ...errors import Conflict
from ...logs import printable
from ...types import InodeNo
from ..deps import EngineDep, Who
from ..models import Body, PathRef
from ..router import Routes

routes = Routes("holds")
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
Reason = Annotated[str, Field(min_length=1, max_length=2000)]


class SearchOrder(Body):
    """A search whose files are held; at least one condition."""

    name: str | None = None
    states: tuple[Literal["resident", "premigrated", "partial", "migrated"], ...] = ()
    uids: tuple[int, ...] = ()
    gids: tuple[int, ...] = ()
    min_size: int | None = None
    max_size: int | None = None
    modified_before_ns: int | None = None
    modified_after_ns: int | None = None


class ScopeOrder(Body):
    """What is held: files, trees, and what a search finds."""

    paths: tuple[PathRef, ...] = ()
    search: SearchOrder | None = None

    def scope(self, engine: Engine) -> Scope:
        """With paths resolved. Raises NotFound; Conflict for what is neither file nor folder."""
        mountpoint = engine.config.daemon.mountpoint
        found = [resolve(engine.catalog, path.raw(), mountpoint) for path in self.paths]
        for attr in found:
            if not (attr.is_file or attr.is_dir):
                raise Conflict(
                    f"{path_of(engine.catalog, attr.ino)} is neither a file nor a folder",
                    next_step="name what is to be held, not a link to it",
                )
        scope = Scope(tuple(InodeNo(attr.ino) for attr in found))
        if self.search is not None:
            fields = self.search.model_dump(mode="json", exclude_defaults=True)
            scope = Scope(scope.inos, (fields,))
        return scope


class PlaceOrder(ScopeOrder):
    """A new hold."""

    name: Name
    reason: Reason


class ReleaseOrder(Body):
    """The end of a hold."""

    reason: Reason


def _view(engine: Engine, hold: Hold) -> dict[str, Any]:
    scope = Scope.load(hold.scope)
    return {
        "name": hold.name, "reason": hold.reason, "placed_by": hold.placed_by,
        "placed_ns": hold.placed_ns, "stands": hold.stands, "released_by": hold.released_by,
        "released_ns": hold.released_ns, "release_reason": hold.release_reason,
        "files": engine.trust.holds.tables.count(hold.id),
        "paths": [path_of(engine.catalog, ino) for ino in scope.inos],
        "searches": list(scope.searches),
    }  # fmt: skip


@routes.get("/holds", Role.AUDITOR)
async def holds(engine: EngineDep, everything: bool = False) -> list[dict[str, Any]]:
    """Holds that stand, with `everything` released ones too."""
    found = engine.trust.holds.tables.all()
    return [_view(engine, hold) for hold in found if everything or hold.stands]


@routes.get("/holds/{name}", Role.AUDITOR)
async def one(
    engine: EngineDep, name: str, after: int = 0, limit: Annotated[int, Query(ge=1, le=1000)] = 1000
) -> dict[str, Any]:
    """A hold with a page of its files, in the order of inode numbers after `after`."""
    hold = engine.trust.holds.known(name)
    inos = engine.trust.holds.tables.files(hold.id, after, limit)
    return _view(engine, hold) | {"held": [_held(engine, ino) for ino in inos]}


def _held(engine: Engine, ino: InodeNo) -> dict[str, Any]:
    """A file with its path; of one in the trash, the path that it had."""
    path, deleted = path_of(engine.catalog, ino), engine.catalog.trash.get(ino) is not None
    if deleted and (was := engine.trash.get(ino).path) is not None:
        path = printable(b"/" + was)
    return {"ino": ino, "path": path, "deleted": deleted}


@routes.post("/holds", Role.ADMIN)
async def place(engine: EngineDep, order: PlaceOrder, who: Who) -> Acted:
    """Place a hold; answered when every file that it names is held."""
    scope = order.scope(engine)
    files = await engine.trust.holds.place(order.name, order.reason, scope, who)
    return Acted(detail={"hold": order.name, "files": files})


@routes.post("/holds/{name}/add", Role.ADMIN)
async def add(engine: EngineDep, name: str, order: ScopeOrder, who: Who) -> Acted:
    """Widen a hold."""
    files = await engine.trust.holds.add(name, order.scope(engine), who)
    return Acted(detail={"hold": name, "files": files})


@routes.post("/holds/{name}/apply", Role.ADMIN)
async def apply(engine: EngineDep, name: str, who: Who) -> Acted:
    """Hold what came into its trees and searches since."""
    return Acted(detail={"hold": name, "files": await engine.trust.holds.apply(name, who)})


@routes.post("/holds/{name}/release", Role.ADMIN, second=True)
async def release(engine: EngineDep, name: str, order: ReleaseOrder, who: Who) -> Acted:
    """End a hold."""
    files = await engine.trust.holds.release(name, order.reason, who)
    return Acted(detail={"hold": name, "files": files})

