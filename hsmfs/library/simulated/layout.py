"""Where things are in a simulated library's directory: the truth that its robot reports.

    elements/library.json   the geometry
    elements/01024/         one directory an element, by address
    elements/01024/S0001D01/  the disc in it; its name is what its label says
    elements/magazines/     where magazines are that move whole (magazines.py)
    faults.json             faults to act out (faults.py)

A disc is in the element whose directory holds it, so one rename moves it and a crash cannot
double it. Moving a disc's directory by hand is what a person's hand in the library does.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from hsmfs.errors import ChangerError, ConfigError
from hsmfs.library.ports import Element, ElementKind
from hsmfs.library.simulated.config import SimulatedConfig
from hsmfs.types import SECTOR, Barcode, ElementAddress

FIRST_TRANSPORT = 1
FIRST_IMPORT_EXPORT = 16
FIRST_DRIVE = 256
FIRST_STORAGE = 1024

ELEMENTS = "elements"
GEOMETRY_FILE = "library.json"
MAGAZINES = "magazines"
SOURCE_LINK = "source"
"""In a disc's directory: a symbolic link to the address of the slot it left last."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """What was built; it does not change with the settings."""

    drives: int
    magazines: int
    slots_per_magazine: int
    import_export: int
    disc_bytes: int
    drives_per_magazine: int = 0
    arms: int = 1

    @classmethod
    def of(cls, config: SimulatedConfig) -> Geometry:
        return cls(
            config.drives,
            config.magazines,
            config.slots_per_magazine,
            config.import_export,
            config.disc_bytes // SECTOR * SECTOR,
            config.drives_per_magazine,
            config.arms,
        )

    @classmethod
    def read(cls, root: Path) -> Geometry:
        """The geometry of the library in root. Raises ConfigError if there is none."""
        path = root / ELEMENTS / GEOMETRY_FILE
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            raise ConfigError(
                f"{root} holds no simulated library", next_step="create it with 'hsmctl init'"
            ) from None
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"{path} does not read: {error}") from error

    def text(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    def elements(self) -> list[Element]:
        """Every element, empty, by address."""
        places = [
            Element(
                ElementAddress(FIRST_TRANSPORT + i), ElementKind.TRANSPORT,
                slot=i + 1 if self.arms > 1 else None,
            )
            for i in range(self.arms)
        ]  # fmt: skip
        places += [
            Element(ElementAddress(FIRST_IMPORT_EXPORT + i), ElementKind.IMPORT_EXPORT, slot=i + 1)
            for i in range(self.import_export)
        ]
        places += [
            Element(
                ElementAddress(FIRST_DRIVE + i), ElementKind.DRIVE, drive=f"d{i + 1}",
                unit=i // self.drives_per_magazine + 1 if self.drives_per_magazine else None,
            )
            for i in range(self.drives)
        ]
        for i in range(self.magazines * self.slots_per_magazine):
            magazine, slot = divmod(i, self.slots_per_magazine)
            address = ElementAddress(FIRST_STORAGE + i)
            places.append(
                Element(address, ElementKind.STORAGE, magazine=magazine + 1, slot=slot + 1)
            )
        return places


def element_path(root: Path, address: ElementAddress) -> Path:
    """The directory of an element."""
    return root / ELEMENTS / f"{address:05d}"


def disc_in(root: Path, address: ElementAddress) -> Path | None:
    """The directory of the disc in an element, None if it is empty.

    Raises ChangerError if the element is gone or someone put two discs into it.
    """
    path = element_path(root, address)
    try:
        names = [name for name in os.listdir(path) if not name.startswith(".")]
    except OSError as error:
        raise ChangerError(f"element {address} does not answer: {error}") from error
    if len(names) > 1:
        raise ChangerError(
            f"element {address} holds {len(names)} discs: {', '.join(sorted(names))}"
        )
    return path / names[0] if names else None


def blank_barcode(magazine: int, slot: int) -> Barcode:
    """The label that a new disc gets: S0001D01 is the first disc of the first magazine."""
    return Barcode(f"S{magazine:04d}D{slot:02d}")


def note_source(disc: Path, address: ElementAddress) -> None:
    """Remember with the disc the slot that it is about to leave."""
    beside = disc / f".{SOURCE_LINK}"
    beside.unlink(missing_ok=True)
    os.symlink(str(address), beside)
    os.rename(beside, disc / SOURCE_LINK)


def source_of(disc: Path) -> ElementAddress | None:
    """The slot that the disc left last, if it ever left one."""
    try:
        return ElementAddress(int(os.readlink(disc / SOURCE_LINK)))
    except FileNotFoundError:
        return None
