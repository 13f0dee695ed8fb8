"""How fast robot and drives really are: learned from what they do, begun with the configuration.

A median of the last few of each kind, so that one jam says nothing. Of a drive's reads those of
much data tell its rate, those of little its seek. What earlier runs read is taken from the health
ledger. Whoever plans by times asks here (why.py).
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..config import LibraryConfig
from .eta import Speeds

KEPT = 15
LARGE, SMALL = 8 << 20, 1 << 20
"""Bytes a read, above which a session tells the rate, and below which the seek."""
ENOUGH = 1 << 30
"""Bytes that earlier runs must have read before their rate is believed."""


@dataclass(slots=True)
class Samples:
    """The last few of one kind; `start` as long as there are none."""

    start: float
    last: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))

    @property
    def value(self) -> float:
        return statistics.median(self.last) if self.last else self.start


class Pace:
    """Of one robot and its drives, by serial number.

    history: bytes that each drive read in earlier runs, and in how many seconds.
    """

    def __init__(
        self, config: LibraryConfig, history: Mapping[str, tuple[int, float]] | None = None
    ) -> None:
        self._config = config
        self._history = history or {}
        self._move = Samples(config.exchange)
        self._load: dict[str, Samples] = {}
        self._seek: dict[str, Samples] = {}
        self._rate: dict[str, Samples] = {}

    def of(self, serial: str) -> Speeds:
        """What to expect of a drive."""
        return Speeds(
            self._move.value, self._of(self._load, serial, self._config.load),
            self._of(self._seek, serial, self._config.seek),
            self._of(self._rate, serial, self._known_rate(serial)),
        )  # fmt: skip

    def _of(self, known: dict[str, Samples], serial: str, start: float) -> float:
        """Of this drive, else of all that were seen, else the start."""
        if serial in known:
            return known[serial].value
        return statistics.median(s.value for s in known.values()) if known else start

    def _known_rate(self, serial: str) -> float:
        size, seconds = self._history.get(serial, (0, 0.0))
        return size / seconds if size >= ENOUGH and seconds > 0 else self._config.read_rate

    def moved(self, seconds: float, moves: int) -> None:
        """The robot made so many moves in so long."""
        self._move.last.append(seconds / moves)

    def loaded(self, serial: str, seconds: float) -> None:
        """A disc that was put in was ready to be read after so long, its label compared."""
        self._load.setdefault(serial, Samples(0.0)).last.append(seconds)

    def read(self, serial: str, size: int, reads: int, seconds: float) -> None:
        """A session read so many bytes in so many reads; seconds are the drive's."""
        if not size or not reads:
            return
        speeds = self.of(serial)
        if size >= reads * LARGE:
            left = max(seconds - reads * speeds.seek, seconds / 2)
            if left > 0:
                self._rate.setdefault(serial, Samples(0.0)).last.append(size / left)
        elif size <= reads * SMALL:
            left = max(0.0, seconds - (speeds.reading(size) - speeds.seek))
            self._seek.setdefault(serial, Samples(0.0)).last.append(left / reads)
