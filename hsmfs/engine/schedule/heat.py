"""How likely a disc is asked for again: demands of it, fading with time."""

from __future__ import annotations

LARGEST = 65_536
"""Carriers that are remembered."""


class Heat:
    """Demands a carrier had, each counting half after one half-life."""

    def __init__(self, half_life: float) -> None:
        self._half_life = half_life
        self._known: dict[int, tuple[float, float]] = {}

    def fade(self, half_life: float) -> None:
        """Fade so from now on."""
        self._half_life = half_life

    def demand(self, carrier: int, now: float) -> None:
        """It was asked for."""
        heat = self.of(carrier, now) + 1.0
        self._known.pop(carrier, None)
        self._known[carrier] = heat, now
        if len(self._known) > LARGEST:
            del self._known[next(iter(self._known))]

    def of(self, carrier: int | None, now: float) -> float:
        """Its heat now; 0 if it was never asked for."""
        if carrier is None or carrier not in self._known:
            return 0.0
        heat, at = self._known[carrier]
        return float(heat * 0.5 ** ((now - at) / self._half_life))
