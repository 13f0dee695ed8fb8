"""What people do to a library with their hands: take discs out, put them in, change their places.

The simulated library's directories are moved behind the robot's back, also by another process; the
robot finds out at its next inventory. Blocking calls.
"""

from __future__ import annotations

import os
from pathlib import Path

from hsmfs.errors import Conflict, NotFound
from hsmfs.library.simulated.layout import Geometry, disc_in, element_path
from hsmfs.types import Barcode, ElementAddress

SHELF = "shelf"
"""Directory beside the elements: discs that are outside the library."""


def place_of(root: Path, barcode: Barcode) -> ElementAddress:
    """The element that holds the disc. Raises NotFound."""
    for element in Geometry.read(root).elements():
        if (element_path(root, element.address) / barcode).is_dir():
            return element.address
    raise NotFound(f"disc {barcode} is in no element of {root}")


def take_out(root: Path, barcode: Barcode) -> None:
    """Put the disc onto the shelf. Raises NotFound."""
    source = element_path(root, place_of(root, barcode)) / barcode
    (root / SHELF).mkdir(exist_ok=True)
    os.rename(source, root / SHELF / barcode)


def put_in(root: Path, barcode: Barcode, address: ElementAddress) -> None:
    """Put the disc from the shelf into an empty element; a label new to the shelf is a blank disc.

    Raises Conflict if the element is full.
    """
    if disc_in(root, address) is not None:
        raise Conflict(f"element {address} is full")
    disc = root / SHELF / barcode
    disc.mkdir(parents=True, exist_ok=True)
    os.rename(disc, element_path(root, address) / barcode)


def swap(root: Path, one: Barcode, other: Barcode) -> None:
    """Change the places of two discs. Raises NotFound."""
    first, second = place_of(root, one), place_of(root, other)
    take_out(root, one)
    os.rename(element_path(root, second) / other, element_path(root, first) / other)
    put_in(root, one, second)
