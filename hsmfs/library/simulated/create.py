"""Building a simulated library on disk: its elements, and a blank disc in every slot.

A blank disc is an empty directory, so thousands take a fraction of a second. All is built beside
and put in place by one rename, so there is a whole library or none.
"""

from __future__ import annotations

import os
import shutil

from hsmfs import durable
from hsmfs.errors import ConfigError
from hsmfs.library.ports import ElementKind
from hsmfs.library.simulated.config import SimulatedConfig
from hsmfs.library.simulated.files import replace_text
from hsmfs.library.simulated.layout import (
    ELEMENTS,
    GEOMETRY_FILE,
    MAGAZINES,
    Geometry,
    blank_barcode,
)


def create(config: SimulatedConfig) -> None:
    """Build the library in config.path, which must not hold one; blocking, well under 2 seconds.

    Raises ConfigError if there is already one.
    """
    root = config.path
    if (root / ELEMENTS).exists():
        raise ConfigError(f"{root} already holds a library", next_step="choose another path")
    beside = root / f"{ELEMENTS}.new"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    geometry = Geometry.of(config)
    for element in geometry.elements():
        path = f"{beside}/{element.address:05d}"
        os.mkdir(path)
        if element.kind is ElementKind.STORAGE:
            assert element.magazine is not None
            assert element.slot is not None
            os.mkdir(f"{path}/{blank_barcode(element.magazine, element.slot)}")
    if geometry.drives_per_magazine:
        (beside / MAGAZINES).mkdir()
    replace_text(beside / GEOMETRY_FILE, geometry.text())
    os.rename(beside, root / ELEMENTS)
    durable.sync(root)
