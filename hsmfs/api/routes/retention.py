"""Retention: folders in which files become records, and the records themselves."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ...catalog.retention import FOREVER, Folder
from ...engine.access import Role
from ...engine.paths import resolve
from ...engine.service import Engine
from ...engine.trust.retention import period_ns
from ...engine.trust.words import path_of
from ...engine.views import Acted, b64, text
from ...errors import Conflict
from ...states import RetentionMode
from ...types import Attr, InodeNo
from ..deps import AttrDep, EngineDep, Who
from ..models import Body, PathRef, PathsOrder
from ..router import Routes

routes = Routes("retention")
Period = Annotated[float, Field(ge=0)]
"""Seconds; null is for ever."""


class FolderOrder(Body):
    """A retention folder and its settings."""

    path: PathRef
    mode: Literal["compliance", "enterprise"]
    min_s: Period = 0.0
    default_s: Period | None
    max_s: Period | None = None
    autocommit_s: Annotated[float, Field(ge=1)] | None = None
    """Commit files by themselves after so long without a change; null: never."""


class PathOrder(Body):
    """An order about one path."""

    path: PathRef


class ExtendOrder(PathsOrder):
    """Keep records longer."""

    until_ns: Annotated[int, Field(gt=0, le=FOREVER)]


class DeleteOrder(PathOrder):
    """Delete a record of enterprise mode before its time."""

    reason: str = Field(min_length=1, max_length=2000)


def _attr(engine: Engine, path: PathRef) -> Attr:
    return resolve(engine.catalog, path.raw(), engine.config.daemon.mountpoint)


def _folder(engine: Engine, folder: Folder) -> dict[str, Any]:
    """A retention folder as the API shows it; null periods are for ever."""
    path = b"/" + (engine.catalog.names.paths(folder.ino, 1) or [b""])[0]
    records, kept = engine.trust.retention.tables.count(folder.ino, engine.trust.clock.now_ns())
    return {
        "ino": folder.ino, "path": text(path), "path_b64": b64(path),
        "mode": folder.mode.name.lower(), "min_s": _seconds(folder.min_ns),
        "default_s": _seconds(folder.default_ns), "max_s": _seconds(folder.max_ns),
        "autocommit_s": None if folder.autocommit_ns is None else _seconds(folder.autocommit_ns),
        "records": records, "retained": kept,
    }  # fmt: skip


def _seconds(period_ns: int) -> float | None:
    return None if period_ns >= FOREVER else period_ns / 1e9


def _ns(seconds: float | None) -> int:
    return FOREVER if seconds is None else period_ns(seconds)


@routes.get("/retention/folders", Role.VIEWER)
async def folders(engine: EngineDep) -> dict[str, Any]:
    """All retention folders, and the compliance clock that everything is judged by."""
    found = [_folder(engine, folder) for folder in engine.trust.retention.folders()]
    return {"clock_ns": engine.trust.clock.now_ns(), "folders": found}


@routes.post("/retention/folders", Role.ADMIN)
async def set_folder(engine: EngineDep, order: FolderOrder, who: Who) -> dict[str, Any]:
    """Make a folder a retention folder, or change its settings for what is committed later."""
    made = Folder(
        InodeNo(_attr(engine, order.path).ino), RetentionMode[order.mode.upper()],
        _ns(order.min_s), _ns(order.default_s), _ns(order.max_s),
        None if order.autocommit_s is None else _ns(order.autocommit_s),
    )  # fmt: skip
    if not made.min_ns <= made.default_ns <= made.max_ns:
        raise Conflict(
            "the default must lie between minimum and maximum", next_step="correct the periods"
        )
    await engine.trust.retention.set_folder(made, who)
    await engine.trust.autocommit.watch(made)
    return _folder(engine, made)


@routes.post("/retention/folders/unset", Role.ADMIN, second=True)
async def unset_folder(engine: EngineDep, order: PathOrder, who: Who) -> Acted:
    """Make it an ordinary folder; refused while records must be kept in it."""
    attr = _attr(engine, order.path)
    await engine.trust.retention.drop_folder(attr.ino, who)
    return Acted(detail={"ino": attr.ino})


@routes.get("/retention/file", Role.VIEWER)
async def file(engine: EngineDep, attr: AttrDep) -> dict[str, Any]:
    """Until when a file is kept, and by which holds."""
    path = b"/" + (engine.catalog.names.paths(attr.ino, 1) or [b""])[0]
    folder = engine.trust.retention.of_file(attr.ino)
    return {
        **engine.trust.described(attr.ino), "path": text(path), "path_b64": b64(path),
        "ino": attr.ino, "clock_ns": engine.trust.clock.now_ns(),
        "folder": path_of(engine.catalog, folder.ino) if folder else None,
    }  # fmt: skip


@routes.post("/retention/extend", Role.ADMIN)
async def extend(engine: EngineDep, order: ExtendOrder, who: Who) -> Acted:
    """Keep records until a time, within the folder's maximum; never less long than before."""
    until = [
        await engine.trust.retention.extend(_attr(engine, path), order.until_ns, who)
        for path in order.paths
    ]
    return Acted(detail={"until_ns": until})


@routes.post("/retention/delete", Role.ADMIN, second=True)
async def delete(engine: EngineDep, order: DeleteOrder, who: Who) -> Acted:
    """Delete a record of enterprise mode early. It goes to the trash, and on record."""
    attr = _attr(engine, order.path)
    keep_ns = int(engine.config.trash.keep * 1e9)
    await engine.trust.retention.privileged_delete(attr, who, order.reason, keep_ns)
    return Acted(detail={"ino": attr.ino})
