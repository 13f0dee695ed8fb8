"""How long things take in a simulated library: pure arithmetic, and the one place that waits.

Delays are trio's, so a MockClock runs years of them at once. Work that really took time (a thread's
copy) counts towards its delay. A delay of zero does not sleep at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import trio

from hsmfs.library.simulated.config import SimulatedConfig
from hsmfs.types import SECTOR

READ_AHEAD = 4 * 1024 * 1024
"""Bytes that a drive reads on into its buffer when it was read in order, so that it does not stand
still while the host works on what it got. Common of Blu-ray writers; MMC's READ BUFFER CAPACITY
tells it of a real one."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds and bytes per second; 0 means no delay."""

    exchange_s: float = 0.0
    load_s: float = 0.0
    seek_s: float = 0.0
    read_bytes_per_s: float = 0.0
    write_bytes_per_s: float = 0.0

    @classmethod
    def of(cls, config: SimulatedConfig) -> Timing:
        return cls(
            config.exchange_s,
            config.load_s,
            config.seek_s,
            config.read_bytes_per_s,
            config.write_bytes_per_s,
        )

    def reading(self, position: int, sector: int, count: int) -> float:
        """Seconds to read count sectors from sector on with the head at sector `position`."""
        seek = 0.0 if sector == position else self.seek_s
        return seek + _transfer(count * SECTOR, self.read_bytes_per_s)

    def began(self, ended: float, asked: float) -> float:
        """When the drive began to read what it is asked for, next in order behind what it had read
        at the time `ended`."""
        if not self.read_bytes_per_s:
            return asked
        return max(ended, asked - _transfer(READ_AHEAD, self.read_bytes_per_s))

    def writing(self, nbytes: int) -> float:
        """Seconds to burn nbytes."""
        return _transfer(nbytes, self.write_bytes_per_s)


def _transfer(nbytes: int, bytes_per_s: float) -> float:
    return nbytes / bytes_per_s if bytes_per_s else 0.0


async def pass_until(started: float, seconds: float) -> None:
    """Wait until seconds after the trio time `started`; at once if they are over or none."""
    if seconds > 0 and trio.current_time() < started + seconds:
        await trio.sleep_until(started + seconds)
