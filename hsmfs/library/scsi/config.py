"""What a site says of its SCSI library, beyond what the devices say themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Burner = Literal["growisofs", "xorriso"]


@dataclass(frozen=True, slots=True)
class ScsiConfig:
    """All that has a default may be left to discovery; sizes in bytes."""

    changer: str = ""
    """Device path or serial number of the changer; '': the only one there is."""
    drive_devices: tuple[str, ...] = ()
    """Device path or serial number of each drive, in order of the changer's elements."""
    drives: int | None = None
    """How many there must be; None: as many as the changer has."""
    slots_per_magazine: int = 12
    disc_bytes: int = 25 * 10**9
    burner: Burner = "growisofs"
