"""How long a rebuild still takes, in one figure over all phases; pure.

The phase that goes on is reckoned by its own pace, those to come by what such a phase took per unit
on the machine below, corrected by how this one did in the phases that are over. The first disc
tells how long discs take; before it nobody can tell anything.
"""

from __future__ import annotations

from collections.abc import Mapping

PACKED_INODE = 90
"""Bytes of a snapshot an inode, about."""
ASSUMED: Mapping[str, float] = {
    "discs": 0.0,  # nobody counts them before the first was visited
    "snapshot": 1e-8,
    "manifests": 4e-5,
    "names": 2e-6,
    "pools": 2e-5,
    "fsck": 1e-5,
}
"""The phases in their order, and seconds a unit: a disc, a byte of the snapshot, a line, an inode,
a file in a pool, an inode. Of 20,000 inodes on two processors of 2026."""


class Outlook:
    """Of one rebuild. Units that nobody has counted yet are guesses, or not known."""

    def __init__(self) -> None:
        self._units = dict[str, float]()
        self._phase = "discs"
        self._took = self._assumed = 0.0
        """Seconds of the phases that are over, and what they were assumed to take."""

    def expect(self, **units: float) -> None:
        """So many units of these phases there will be, by all that is known now."""
        self._units.update(units)

    def begin(self, phase: str, before: float) -> None:
        """A phase begins; the one before it took so many seconds."""
        if assumed := self._of(self._phase):
            self._took += before
            self._assumed += assumed
        self._phase = phase

    def left(self, done: int, total: int, seconds: float) -> float | None:
        """Seconds until all is done; None while nobody can tell.

        done, total, seconds: of the phase that goes on. total: 0 if it tells no steps.
        """
        phases = list(ASSUMED)
        later = [self._of(phase) for phase in phases[phases.index(self._phase) + 1 :]]
        if done and total:
            here = seconds / done * max(0, total - done)
        elif (assumed := self._of(self._phase)) is not None:
            here = max(0.0, assumed * self._factor - seconds)
        else:
            return None
        if None in later:
            return None
        return round(here + sum(filter(None, later)) * self._factor, 1)

    @property
    def _factor(self) -> float:
        return self._took / self._assumed if self._assumed else 1.0

    def _of(self, phase: str) -> float | None:
        units = self._units.get(phase)
        return None if units is None else units * ASSUMED[phase]
