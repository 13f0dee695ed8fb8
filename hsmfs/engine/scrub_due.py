"""Which discs are due for a test, and which of them must be read whole."""

from __future__ import annotations

from .. import clock
from ..catalog.catalog import Catalog
from ..states import VolumeState
from ..types import VolumeId
from .scrub_sum import is_parity

TESTABLE = (VolumeState.FULL, VolumeState.SUSPECT)


def due_times(
    catalog: Catalog, interval: float, doubted: set[VolumeId] | None = None
) -> dict[VolumeId, int]:
    """When each disc in the library that holds something is due, UTC ns; interval in seconds.

    A date to come says nothing of when it was: the clock was ahead then, or is behind now. Those in
    doubt are due at once. doubted: as `in_doubt` says, for those who asked already.
    """
    now = clock.now_ns()
    tested = catalog.health.tested(now)
    doubted = in_doubt(catalog) if doubted is None else doubted
    dues = {}
    for volume, at_ns in catalog.volumes.read_back(TESTABLE).items():
        # A disc of a catalog made from discs, or of another one, was never read back by us.
        last = max(at_ns if at_ns <= now else 0, tested.get(volume, 0))
        dues[volume] = last + int(interval * 1e9) if last and volume not in doubted else 0
    return dues


def in_doubt(catalog: Catalog) -> set[VolumeId]:
    """Suspect discs that did not read as they should since their last test.

    Those that were never read back by us are due anyway, and may be all that there are.
    """
    suspect = catalog.volumes.read_back((VolumeState.SUSPECT,))
    return {volume for volume, at_ns in suspect.items()
            if at_ns and catalog.health.in_doubt(volume)}  # fmt: skip


def wants_all(catalog: Catalog, volume: VolumeId) -> bool:
    """Whether a sample compares nothing: of a parity disc only the whole has a checksum."""
    found = catalog.volumes.get(volume)
    return found is not None and is_parity(catalog, found)
