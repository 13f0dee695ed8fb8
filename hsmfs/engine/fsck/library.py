"""Compares the catalog with the robot's inventory and with the spool."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from ... import clock
from ...catalog.catalog import Catalog
from ...catalog.check import Finding, Severity
from ...library.ports import Element
from ...states import VolumeState
from .pools import Problem

_AWAY = (VolumeState.EXPORTED, VolumeState.LOST, VolumeState.RETIRED)


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
        elif element is not None and volume.state in _AWAY:
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


async def spool(catalog: Catalog, folder: Path, running: bool) -> list[Problem]:
    """What lies in the spool and belongs to no burn on the list.

    Only images made from files that are still in the pools lie there, so they may be deleted; a
    running daemon tidies up itself.
    """
    names = await clock.blocking(
        lambda: sorted(item.name for item in folder.iterdir()) if folder.is_dir() else []
    )
    images = tuple(burn.image for burn in catalog.queues.burns() if burn.image)
    stems = tuple(Path(image).stem for image in images)
    problems = []
    for name in names:
        if name.startswith(images + stems):
            continue
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


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
