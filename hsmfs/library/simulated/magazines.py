"""Where the magazines of a simulated library are that move whole, and what a robot refuses to do.

Each that is not in the rack has a symbolic link `elements/magazines/NUMBER` to the number of a unit
of drives, or to `gripper`; so one rename moves it, as one moves a disc.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from hsmfs import durable
from hsmfs.errors import ChangerError, VolumeMissing
from hsmfs.library.ports import Element, ElementKind
from hsmfs.library.simulated.layout import ELEMENTS, MAGAZINES

GRIPPER = "gripper"
Out = Mapping[int, int | None]
"""The magazines that are not in the rack: the unit of each, None for a gripper."""


def magazines_out(root: Path) -> dict[int, int | None]:
    """As the links say. Raises ChangerError if they do not read."""
    folder = root / ELEMENTS / MAGAZINES
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(".")]
        places = {int(name): os.readlink(folder / name) for name in names}
    except OSError as error:
        raise ChangerError(f"the rack does not answer: {error}") from error
    return {at: None if place == GRIPPER else int(place) for at, place in sorted(places.items())}


def note_magazine(root: Path, magazine: int, place: str | None) -> None:
    """Have the magazine in a unit or a gripper, or (None) in the rack; durably."""
    folder = root / ELEMENTS / MAGAZINES
    if place is None:
        (folder / str(magazine)).unlink(missing_ok=True)
    else:
        beside = folder / f".{magazine}"
        beside.unlink(missing_ok=True)
        os.symlink(place, beside)
        os.rename(beside, folder / str(magazine))
    durable.sync(folder)


def held(out: Out) -> list[int]:
    """The magazines in grippers."""
    return [magazine for magazine, unit in out.items() if unit is None]


def with_magazines(elements: Iterable[Element], out: Out) -> list[Element]:
    """The elements, and where their magazines are."""
    gripped = held(out)
    in_grippers = iter(gripped)

    def seen(element: Element) -> Element:
        if element.kind is ElementKind.TRANSPORT:
            return replace(element, magazine=next(in_grippers, None))
        if element.magazine is None or element.magazine not in out:
            return element
        reachable = element.accessible and element.magazine not in gripped
        return replace(element, unit=out[element.magazine], accessible=reachable)

    return [seen(element) for element in elements]


def check_move(src: Element, dst: Element, out: Out) -> None:
    """Raise ChangerError unless a unit can do it: between a drive and the magazine that it has."""
    slot, drive = (src, dst) if dst.kind is ElementKind.DRIVE else (dst, src)
    if slot.kind is not ElementKind.STORAGE or drive.kind is not ElementKind.DRIVE:
        raise ChangerError(f"magazines move whole: no disc goes from {src.place} to {dst.place}")
    assert slot.magazine is not None
    if out.get(slot.magazine) != drive.unit:
        raise ChangerError(f"magazine {slot.magazine} is not at {drive.place}")


def check_carry(elements: Iterable[Element], out: Out, magazine: int, unit: int | None) -> None:
    """Raise VolumeMissing or ChangerError if the magazine cannot be carried there."""
    elements = list(elements)
    drives = [e for e in elements if e.kind is ElementKind.DRIVE]
    gripped, at = held(out), out.get(magazine)
    if all(e.magazine != magazine for e in elements if e.kind is ElementKind.STORAGE):
        raise VolumeMissing(f"the library has no magazine {magazine}")
    if unit is not None and all(drive.unit != unit for drive in drives):
        raise ChangerError(f"the library has no unit {unit}")
    arms = sum(e.kind is ElementKind.TRANSPORT for e in elements)
    if magazine not in gripped and len(gripped) >= arms:
        raise ChangerError(f"the robot's gripper still holds magazine {gripped[0]}")
    if magazine not in gripped and at == unit:
        raise ChangerError(f"magazine {magazine} is in {place_of(unit)} already")
    if unit is not None and at is not None:
        raise ChangerError(f"magazine {magazine} is in unit {at}")
    if unit is not None and unit in out.values():
        raise ChangerError(f"unit {unit} is full")
    inside = next((d for d in drives if d.full and at is not None and d.unit == at), None)
    if inside is not None:
        raise ChangerError(
            f"magazine {magazine} cannot leave unit {at}: there is a disc in {inside.place}"
        )


def place_of(unit: int | None) -> str:
    """In an admin's words."""
    return "the rack" if unit is None else f"unit {unit}"
