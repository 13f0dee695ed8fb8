"""Sets of discs as the API shows them: which discs, what is missing, and what that still bears."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import trio

from ..catalog.sets import SpooledRow, VolumeSet
from ..catalog.volumes import Volume
from ..errors import HsmError, NotFound
from ..states import SetState, VolumeState
from .overview import place_of
from .views import word

if TYPE_CHECKING:
    from .service import Engine

LOOK_EVERY_S = 0.5
_GONE = (VolumeState.DAMAGED, VolumeState.LOST, VolumeState.RETIRED)


def named(engine: Engine, name: str) -> VolumeSet:
    """The set of that name. Raises NotFound."""
    group = engine.catalog.sets.named(name)
    if group is None:
        raise NotFound(f"no set {name}", next_step="see 'hsmctl volume set ls'")
    return group


def all_sets(engine: Engine) -> list[dict[str, Any]]:
    """Every set, the oldest first, without its discs."""
    return [brief(engine, group) for group in engine.catalog.sets.all()]


def brief(engine: Engine, group: VolumeSet) -> dict[str, Any]:
    """A set in one line.

    `missing`: discs that are gone or bad. `away`: those that were taken out of the library, and can
    be fetched. `spare`: how many more discs may be lost without a loss of data. A set whose files
    are on other discs, all of its own being retired, is `retired`: nothing of it is missing.
    """
    discs = engine.catalog.sets.discs(group.id)
    retired = bool(discs) and all(disc.state is VolumeState.RETIRED for disc in discs)
    missing = [disc for disc in discs if disc.state in _GONE and not retired]
    closed = group.state is SetState.CLOSED and not retired
    lost_parity = closed and group.m - sum(1 for d in discs if (d.set_index or 0) >= group.k)
    return {
        "set": group.name,
        "uuid": group.uuid,
        "state": word(VolumeState.RETIRED if retired else group.state),
        "k": group.k,
        "m": group.m,
        "copy": group.copy_no,
        "vault": group.vault,
        "magazine": group.magazine,
        "data_discs": sum(1 for disc in discs if (disc.set_index or 0) < group.k),
        "parity_discs": sum(1 for disc in discs if (disc.set_index or 0) >= group.k),
        "used": sum(disc.used for disc in discs if (disc.set_index or 0) < group.k),
        "missing": len(missing) + lost_parity,
        "away": sum(1 for disc in discs if disc.state is VolumeState.EXPORTED),
        "spare": max(0, group.m - len(missing) - lost_parity) if closed else 0,
        "created_ns": group.created_ns,
        "closed_ns": group.closed_ns,
        "root_hash": group.root_hash,
    }


def whole(engine: Engine, group: VolumeSet) -> dict[str, Any]:
    """A set with its discs."""
    rows = engine.catalog.sets.parity(group.id)
    return brief(engine, group) | {
        "discs": [
            {
                "disc": disc.barcode,
                "index": (disc.set_index or 0) + 1,
                "role": "data" if (disc.set_index or 0) < group.k else "parity",
                "state": word(disc.state),
                "reason": disc.reason,
                "place": place_of(engine.robot, disc),
                "used": disc.used,
                "image_sha256": disc.image_sha256,
                "inside": disc.inside,
                "in_parity": group.state is SetState.CLOSED or _folded(rows.values(), disc),
            }
            for disc in engine.catalog.sets.discs(group.id)
        ],
        "rebuilds": rebuilds(engine),
    }


def _folded(rows: Collection[SpooledRow], disc: Volume) -> bool:
    """Whether the parity that is not on a disc yet has the disc in it."""
    return bool(rows) and all(row.folded >> (disc.set_index or 0) & 1 for row in rows)


def rebuilds(engine: Engine) -> list[dict[str, Any]]:
    """Discs that are being made anew."""
    shown = []
    for order in engine.catalog.sets.rebuilds():
        volume = engine.catalog.volumes.get(order.volume)
        now = engine.renewer.progress.get(order.volume)
        shown.append(
            {
                "disc": volume.barcode if volume else str(order.volume),
                "started_ns": order.started_ns,
                "error": order.error,
                **(asdict(now) if now else {"phase": "waiting", "done": 0, "size": 0}),
            }
        )
    return shown


async def until_rebuilt(engine: Engine, volume: Volume) -> AsyncIterator[dict[str, Any]]:
    """How the making of a disc goes, until it is done. Raises HsmError when it is put off."""
    asked_ns = 0
    while True:
        order = engine.catalog.sets.rebuild(volume.id)
        if order is None:
            break
        asked_ns = asked_ns or order.started_ns
        if order.error and volume.id not in engine.renewer.progress:
            raise HsmError(
                f"disc {volume.barcode}: {order.error}",
                next_step="it is tried again by itself; see 'hsmctl volume set info'",
            )
        now = engine.renewer.progress.get(volume.id)
        yield {"kind": "progress"} | (asdict(now) if now else {"phase": "waiting"})
        await trio.sleep(LOOK_EVERY_S)
    made = engine.catalog.volumes.get(volume.id)
    if made is not None and made.barcode == volume.barcode and volume.set_id is not None:
        # A parity disc: another row of the catalog took its place in the set.
        discs = engine.catalog.sets.discs(volume.set_id)
        made = next((disc for disc in discs if disc.set_index == volume.set_index), None)
    if made is None or made.barcode == volume.barcode:
        raise HsmError(f"disc {volume.barcode} was not rebuilt", next_step="see the log of hsmfsd")
    yield {"kind": "end", "disc": made.barcode, "was": volume.barcode}
