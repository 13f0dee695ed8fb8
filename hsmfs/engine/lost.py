"""Which files have bytes that nothing brings back: no disc, here or outside, and no parity.

As far as the catalog knows: a disc that nobody has tested since it went bad still counts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..catalog.copies import READABLE
from ..catalog.reports import Reports
from ..states import STUBS, CopyState, SetState
from ..types import Attr, InodeNo, Range, SetId, VolumeId
from .ranges import subtract


@dataclass(frozen=True, slots=True)
class Reach:
    """What can be had of discs.

    Attributes:
        discs: those that can be read, or that parity makes up for.
        by_parity: those of them that parity makes up for if they do not read.
    """

    discs: Collection[VolumeId]
    by_parity: Collection[VolumeId]


def reach(reports: Reports) -> Reach:
    """What can be had of all discs."""
    readable, members = set[VolumeId](), dict[SetId, list[tuple[VolumeId, int]]]()
    for volume in reports.volumes.all():
        if volume.state in READABLE:
            readable.add(volume.id)
        if volume.set_id is not None and volume.set_index is not None:
            members.setdefault(volume.set_id, []).append((volume.id, volume.set_index))
    covered = set[VolumeId]()
    for group in reports.sets.all():
        if group.state is not SetState.CLOSED:
            continue
        discs = members.get(group.id, [])
        lost = sum(disc not in readable for disc, index in discs if index < group.k)
        rows = sum(disc in readable for disc, index in discs if index >= group.k)
        # One more may fail somewhere only if parity is left for it.
        covered |= {disc for disc, index in discs
                    if index < group.k and lost + (disc in readable) <= rows}  # fmt: skip
    return Reach(readable | covered, covered)


def out_of(reports: Reports, attrs: Sequence[Attr], reach: Reach) -> set[InodeNo]:
    """Those of the files of which bytes are neither on disk nor to be had from discs."""
    inos = [attr.ino for attr in attrs if attr.state in STUBS]
    absent, standing = reports.inodes.absent_of(inos), reports.copies.standing(inos)
    found = set[InodeNo]()
    for ino, missing in absent.items():
        for copy in standing.get(ino, ()):
            where = copy.where
            which = reach.discs if copy.state is CopyState.VALID else reach.by_parity
            if where.volume in which:
                missing = subtract(missing, Range(where.offset, where.offset + where.length))
        if missing:
            found.add(ino)
    return found
