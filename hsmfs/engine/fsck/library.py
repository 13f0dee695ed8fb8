"""Compares the catalog with the robot's inventory and with the spool."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from ... import clock
from ...catalog.catalog import Catalog
from ...catalog.check import Finding, Severity
from ...library.ports import Element, ElementKind
from ...states import VolumeState
from ..spool import IMAGE_SUFFIX
from ..spooled import needed
from .pools import Problem

Kept = Callable[[str], bool]
"""Whether something of that name in the spool is right though no burn on the list names it."""
_OUTSIDE = (VolumeState.EXPORTED, VolumeState.LOST)
_AWAY = (*_OUTSIDE, VolumeState.RETIRED)
"""Need not be there; a retired one may lie there until somebody takes it out."""


def volumes(catalog: Catalog, elements: Sequence[Element]) -> list[Problem]:
    """Discs that should be in the library and are not, or the other way round."""
    name = "volumes_are_where_they_should_be"
    there = {element.barcode: element for element in elements if element.barcode is not None}
    found: list[Finding] = []
    for volume in catalog.volumes.all():
        element = there.pop(volume.barcode, None)
        subject = f"volume {volume.barcode}"
        if element is None and volume.state not in _AWAY and volume.location == "library":
            found.append(Finding(
                name, Severity.ERROR, subject,
                "should be in the library, but the robot does not see it: look for the disc and"
                " run 'hsmctl library inventory'",
            ))  # fmt: skip
        elif (
            element is not None
            and volume.state in _OUTSIDE
            and element.kind is not ElementKind.IMPORT_EXPORT
            and not catalog.vault.is_leaving(volume.id)
        ):
            state = volume.state.name.lower()
            found.append(Finding(
                name, Severity.NOTE, subject, f"is {state}, but the robot sees it in"
                f" {element.place}: run 'hsmctl library inventory'",
            ))  # fmt: skip
    found += [
        Finding(
            name, Severity.NOTE, f"disc {barcode}",
            f"is in {element.place}, but not in the catalog: run 'hsmctl library inventory'",
        )
        for barcode, element in there.items()
    ]  # fmt: skip
    return [Problem(finding, None) for finding in found]


async def spool(catalog: Catalog, folder: Path, kept: Kept, running: bool) -> list[Problem]:
    """What lies in the spool, belongs to no burn on the list and is not `kept` either.

    Only images made from files that are still in the pools lie there, so they may be deleted; a
    running daemon tidies up itself, and something counts only if it is seen twice.
    """
    names = await _strangers(catalog, folder, kept)
    if running and names:
        names &= await _strangers(catalog, folder, kept)
    problems = []
    for name in sorted(names):
        path = folder / name

        async def mend(path: Path = path) -> None:
            await clock.blocking(lambda: _delete(path))

        problems.append(Problem(
            Finding(
                "spool_holds_only_burns", Severity.NOTE, f"spool file {name}",
                "belongs to no burn", None if running else "delete it",
            ),
            None if running else mend,
        ))  # fmt: skip
    return problems


async def _strangers(catalog: Catalog, folder: Path, kept: Kept) -> set[str]:
    """Names there that nobody knows; those of an image's staging folder are the image's."""
    found = await clock.blocking(lambda: set(os.listdir(folder)) if folder.is_dir() else set())
    images = {burn.image for burn in catalog.queues.burns() if burn.image} | needed(catalog)
    return {
        name
        for name in found
        for image in [str(Path(name).with_suffix(IMAGE_SUFFIX))]
        if not images & {name, image} and not kept(name) and not kept(image)
    }


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
