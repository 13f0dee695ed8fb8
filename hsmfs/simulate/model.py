"""The library that a trace is replayed against."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import LibraryConfig
from ..library.simulated.timing import Timing
from ..types import SECTOR


@dataclass(frozen=True, slots=True)
class Model:
    """Units and robot; a move is one way, so an exchange is two.

    Attributes:
        units, drives_per_unit: see `engine.schedule.picture`; one drive each if discs move singly.
        whole_magazines: the robot carries magazines.
        backlog_low, backlog_high: bytes waiting to be burned at which the pool is at its low and
            at its high watermark.
    """

    units: int
    timing: Timing
    drives_per_unit: int = 1
    whole_magazines: bool = False
    arms: int = 1
    backlog_low: int = 1800 * 10**9
    backlog_high: int = 3600 * 10**9

    @property
    def drives(self) -> int:
        return self.units * self.drives_per_unit

    @classmethod
    def of(cls, library: LibraryConfig, *, drives_per_magazine: int = 0, arms: int = 1) -> Model:
        """As the configuration says; drives_per_magazine: 0 if discs move singly."""
        timing = Timing(
            library.exchange, library.load, library.seek, library.read_rate, library.write_rate
        )
        group = drives_per_magazine or 1
        return cls(
            max(1, library.drives // group), timing, group, bool(drives_per_magazine), arms,
            6 * library.disc, 12 * library.disc,
        )  # fmt: skip

    def pressure(self, backlog: int) -> float:
        """Of the pool: 0 at its low watermark, 1 at the high one and above."""
        share = (backlog - self.backlog_low) / max(1, self.backlog_high - self.backlog_low)
        return min(1.0, max(0.0, share))


def sectors(size: int) -> int:
    """Whole sectors of so many bytes."""
    return -(-size // SECTOR)
