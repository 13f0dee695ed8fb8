"""The settings of a simulated library: its size, its discs and how fast it is."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from hsmfs.errors import ConfigError
from hsmfs.types import SECTOR

MAX_DRIVES = 240
MAX_IMPORT_EXPORT = 200
MAX_ARMS = 15
MAX_DISCS = 60_000
"""Bounds that follow from the element addresses (layout.py)."""


@dataclass(frozen=True, slots=True)
class SimulatedConfig:
    """Sizes in bytes, times in seconds; a time or a speed of 0 means no delay at all.

    Raises ConfigError for a value out of range.
    """

    path: Path
    drives: int = 3
    magazines: int = 28
    slots_per_magazine: int = 12
    import_export: int = 4
    drives_per_magazine: int = 0
    """0: discs move singly. Else magazines move whole, each into a unit of so many drives."""
    arms: int = 1
    """Of the robot: so many moves at once."""
    disc_bytes: int = 25_025_314_816
    """Bytes on a blank disc, rounded down to whole sectors; a single-layer BD-R by default."""
    exchange_s: float = 0.0
    """One move of the robot; a unit's own moves are part of `load_s`."""
    load_s: float = 0.0
    """From a disc in the drive to a drive that is ready."""
    seek_s: float = 0.0
    """Before a read that does not follow the one before."""
    read_bytes_per_s: float = 0.0
    write_bytes_per_s: float = 0.0
    sync_burns: bool = True
    """Flush a burned image to stable storage before the burn ends. Without it a power cut may cost
    a disc that counted as verified: only for measuring."""

    def __post_init__(self) -> None:
        bounds = {
            "drives": (1, MAX_DRIVES),
            "magazines": (1, MAX_DISCS),
            "slots_per_magazine": (1, MAX_DISCS),
            "import_export": (0, 0 if self.drives_per_magazine else MAX_IMPORT_EXPORT),
            "drives_per_magazine": (0, self.drives),
            "arms": (1, MAX_ARMS),
            "disc_bytes": (SECTOR, 1 << 50),
        }
        for field in fields(self):
            value = getattr(self, field.name)
            low, high = bounds.get(field.name, (0, float("inf")))
            if isinstance(value, int | float) and not low <= value <= high:
                raise ConfigError(f"library: {field.name} is {value}, not in {low} to {high}")
        if self.drives_per_magazine and self.drives % self.drives_per_magazine:
            raise ConfigError(
                f"library: {self.drives} drives make no units of {self.drives_per_magazine}"
            )
        if self.magazines * self.slots_per_magazine > MAX_DISCS:
            raise ConfigError(f"library: more than {MAX_DISCS} discs in all magazines")
