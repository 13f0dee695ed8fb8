"""Signed things on record: sealed packages, and who took discs; hsmctl makes and signs them."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import Field

from ...catalog.audit import Wanted
from ...engine.access import Role
from ...engine.views import Acted
from ...logs import printable
from ..deps import EngineDep, Who
from ..models import Body, PathRef
from ..router import Routes

routes = Routes("seals")
LISTED = 10_000
"""Packages that one answer lists."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class SealNote(Body):
    """A package was sealed, or signed by its receiver."""

    kind: Literal["made", "signed"] = "made"
    path: PathRef
    sha256: Sha256
    """Of its SHA256SUMS, which is what the signatures are of."""
    key_sha256: Sha256
    """Of the public key, as docs/sealing.md says."""
    name: str = Field(default="", max_length=1000)
    files: Annotated[int, Field(ge=0)] = 0
    bytes: Annotated[int, Field(ge=0)] = 0
    stamped: str | None = Field(default=None, max_length=100)
    reason: str = Field(default="", max_length=2000)


class CustodyNote(Body):
    """Discs were handed over against a signed paper."""

    to: str = Field(min_length=1, max_length=500)
    discs: Annotated[list[str], Field(min_length=1, max_length=10_000)]
    sha256: Sha256
    """Of the paper."""
    key_sha256: Sha256


@routes.post("/seals", Role.OPERATOR)
async def note(engine: EngineDep, order: SealNote, who: Who) -> Acted:
    """Put a package on record; durable when answered."""
    fields = order.model_dump(mode="json", exclude={"kind", "path"}, exclude_defaults=True)
    await engine.trust.audit.write(
        f"seal.{order.kind}", who, printable(order.path.raw()), **fields
    )
    await engine.catalog.sync()
    return Acted(detail={"sha256": order.sha256})


@routes.get("/seals", Role.VIEWER)
async def seals(engine: EngineDep) -> list[dict[str, Any]]:
    """Packages on record, the oldest first."""
    found = await engine.catalog.read(
        lambda reports: reports.audit.search(Wanted(kind="seal.*"), 0, LISTED)
    )
    return [
        {"seq": r.seq, "at_ns": r.at_ns, "kind": r.kind.removeprefix("seal."), "by": r.actor,
         "path": r.object, **json.loads(r.detail)}
        for r in found
    ]  # fmt: skip


@routes.get("/custody", Role.OPERATOR)
async def discs(engine: EngineDep, names: Annotated[list[str], Query()]) -> list[dict[str, Any]]:
    """Discs by sets or barcodes with their hashes, as a paper of a handover has them."""
    return [
        engine.vault.pick(v, v.location)
        | {"root_hash": v.root_hash, "image_sha256": v.image_sha256}
        for v in engine.vault.named(names)
    ]


@routes.post("/custody", Role.OPERATOR)
async def custody(engine: EngineDep, order: CustodyNote, who: Who) -> Acted:
    """Put on record who took which discs; durable when answered."""
    fields = order.model_dump(mode="json", exclude={"to"})
    await engine.trust.audit.write("custody.signed", who, order.to, **fields)
    await engine.catalog.sync()
    return Acted(detail={"sha256": order.sha256})
