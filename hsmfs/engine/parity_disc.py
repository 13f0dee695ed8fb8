"""Parity discs: what they tell of their set, and how they are burned.

One way for both, a set that is being closed and a parity disc that is made anew.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from .. import clock
from ..catalog.catalog import Catalog
from ..catalog.sets import Sets, SpooledRow, VolumeSet
from ..catalog.volumes import Volumes
from ..disc import described
from ..disc.image import ImageResult, Progress
from ..disc.layout import VolumeLabel
from ..disc.parity_image import Member, ParityFacts, ParityRow, build_parity_image, parity_place
from ..states import VolumeState
from ..types import VolumeId
from .spooled import data_discs

Build = Callable[[Path, Progress], ImageResult]
"""Makes an image at that path; blocking."""
BurnImage = Callable[[VolumeId, VolumeLabel, Build], Awaitable[None]]
"""Burns an image on a blank disc and reads it back; raises HsmError."""


def facts_of(catalog: Catalog, group: VolumeSet) -> Callable[[int], ParityFacts]:
    """What the parity disc of a row tells of the set, whose rows are all computed."""
    rows = catalog.sets.parity(group.id)
    kept = tuple(ParityRow(n, rows[n].size, rows[n].sha256) for n in range(group.m))
    members = tuple(
        Member(v.set_index or 0, v.uuid or "", v.inside or v.barcode, v.used,
               v.image_sha256 or "", v.root_hash or "")
        for v in data_discs(catalog, group)
    )  # fmt: skip
    return lambda row: ParityFacts(row, kept, members)


def label_in(
    catalog: Catalog, group: VolumeSet, barcode: str, index: int, copy_no: int | None = None
) -> VolumeLabel:
    """What a new disc says of itself that gets a place in the set; index from 0."""
    return VolumeLabel(
        uuid=str(uuid.uuid4()), barcode=barcode, set_name=group.name, set_uuid=group.uuid,
        index=index + 1, k=group.k, m=group.m, created_ns=clock.now_ns(),
        previous_root=catalog.sets.last_root(), copy_no=copy_no, archive=catalog.sets.archive,
    )  # fmt: skip


class _Tables(Protocol):
    """A catalog, or one that is being made."""

    @property
    def sets(self) -> Sets: ...

    @property
    def volumes(self) -> Volumes: ...


def learn(
    catalog: _Tables, group: VolumeSet, facts: ParityFacts, *, ours: bool = False
) -> None:
    """Take over what a parity disc tells of the set; in a transaction.

    A catalog that was made from discs knows neither sizes nor checksums of images, and nothing of
    a member that nobody has seen: it gets a row, so that parity can make up for it. ours: rows of
    discs that are blank to the catalog are older than the parity.
    """
    now = clock.now_ns()
    discs = {
        disc.set_index: disc.id
        for disc in catalog.sets.discs(group.id)
        if disc.state not in (VolumeState.BLANK, VolumeState.BURNING)
    }
    for member in facts.members:
        number = discs.get(member.index)
        if number is None:
            number = catalog.sets.add_lost(
                group.id, member.index, member.uuid, member.barcode, member.size, now, ours=ours
            )
        catalog.volumes.set_image(number, member.size, member.sha256, member.root_hash)
    for row in facts.rows:
        catalog.sets.set_parity(group.id, SpooledRow(row.row, "", row.size, row.sha256, 0))
        if group.k + row.row not in discs:
            name = f"{group.name}-P{row.row + 1}"
            catalog.sets.add_lost(group.id, group.k + row.row, None, name, row.size, now)


async def burn_parity(
    catalog: Catalog,
    burn: BurnImage,
    blank: VolumeId,
    label: VolumeLabel,
    facts: ParityFacts,
    source: Path,
) -> None:
    """Burn the row that source holds, and note where on the disc it begins. Raises HsmError."""
    places: list[int] = []

    def build(dest: Path, progress: Progress) -> ImageResult:
        staging = dest.with_suffix(".staging")
        made = build_parity_image(source, facts, label, dest, staging=staging, progress=progress)
        with described.image(dest) as reader:
            places.append(parity_place(reader.iso))
        return made

    await burn(blank, label, build)
    # So that a recall needs no directory of the disc; it looks there if a crash comes first.
    async with catalog.write():
        catalog.volumes.set_parity_sector(blank, places[-1])
