"""What of the spool belongs to sets: images that are not in parity yet, and parity rows.

Asked by whoever would tidy the spool up; all of it follows from the catalog.
"""

from __future__ import annotations

from pathlib import Path

from ..catalog.catalog import Catalog
from ..catalog.sets import SpooledRow, VolumeSet
from ..catalog.volumes import Volume
from ..disc.image import sha256_of
from ..types import VolumeId
from .spool import image_name


def data_discs(catalog: Catalog, group: VolumeSet) -> list[Volume]:
    """The set's data discs by index."""
    return [
        volume
        for volume in catalog.sets.discs(group.id)
        if volume.set_index is not None and volume.set_index < group.k
    ]


def pending(catalog: Catalog, group: VolumeSet) -> list[Volume]:
    """Verified data discs that are not in all parity rows yet."""
    if group.m == 0:
        return []
    rows = catalog.sets.parity(group.id)
    folded = ~0
    for row in range(group.m):
        folded &= rows[row].folded if row in rows else 0
    return [
        volume
        for volume in data_discs(catalog, group)
        if volume.image_sha256 is not None
        and volume.set_index is not None
        and not folded >> volume.set_index & 1
    ]


def unknown(catalog: Catalog, group: VolumeSet) -> list[Volume]:
    """Data discs of a set with parity whose images a catalog made from discs does not know."""
    return [
        volume
        for volume in data_discs(catalog, group)
        if group.m and volume.image_sha256 is None and volume.burned_ns is not None
    ]


def needed(catalog: Catalog) -> set[str]:
    """Names in the spool that must not be deleted, though no burn names them."""
    names = catalog.sets.spooled()
    for group in catalog.sets.unfinished():
        names |= {image_name(VolumeId(volume.id)) for volume in pending(catalog, group)}
    return names


def holds(folder: Path, row: SpooledRow) -> bool:
    """Whether the row's file is as it was written down. Blocking."""
    try:
        return sha256_of(folder / row.file).hex() == row.sha256
    except OSError:
        return False


def append(path: Path, data: bytes) -> None:
    """Blocking."""
    with path.open("ab") as file:
        file.write(data)
