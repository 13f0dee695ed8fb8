"""From which copy a file is recalled: a healthy disc, then the one that costs fewest exchanges."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

from ..catalog.catalog import Catalog
from ..catalog.copies import Copy
from ..catalog.volumes import Volume
from ..states import VolumeState
from ..types import Range, VolumeId
from .live import Live
from .mounts import Mounts
from .recall_queue import Job
from .schedule import Effort, fewest_exchanges


def best(
    found: Sequence[Copy],
    volume_of: Callable[[VolumeId], Volume],
    effort: Callable[[VolumeId], Effort],
) -> Copy | None:
    """Of parts that would all do: a healthy disc, then the fewest exchanges; None of none."""
    if len(found) < 2:
        return found[0] if found else None
    healthiest = min(_health(volume_of(copy.where.volume)) for copy in found)
    of_volume = {
        copy.where.volume: copy
        for copy in sorted(found, key=lambda copy: copy.copy_no)
        if _health(volume_of(copy.where.volume)) == healthiest
    }
    (volume,) = fewest_exchanges([(volume,) for volume in of_volume], effort)
    return of_volume[volume]


def _health(volume: Volume) -> tuple[bool, bool, bool]:
    """The smaller, the better: in the library before outside, sound before suspect."""
    return (
        volume.state is VolumeState.EXPORTED,
        not volume.proven,
        volume.vault != "",  # it is about to leave
    )


class CopyChoice:
    """Chooses by what the catalog says of discs, and by where they are; queued: discs to fetch."""

    def __init__(self, catalog: Catalog, mounts: Mounts, queued: Container[VolumeId]) -> None:
        self._catalog, self._mounts, self._queued = catalog, mounts, queued

    def choose(self, job: Job, live: Live, wanted: Range) -> Copy | None:
        """A part that holds the first wanted byte: a healthy disc, then the fewest exchanges."""
        found = [
            copy
            for copy in self._catalog.copies.readable(job.ino, live.attr.base_version)
            if copy.id not in job.bad
            and copy.where.offset <= wanted.start < copy.where.offset + copy.where.length
        ]
        return best(found, self._volume, self.effort)

    def _volume(self, number: VolumeId) -> Volume:
        volume = self._catalog.volumes.get(number)
        assert volume is not None
        return volume

    def effort(self, volume: VolumeId) -> Effort:
        """What it takes to have the disc in a drive."""
        if self._mounts.within_reach(volume):
            return Effort.NONE
        return Effort.SHARED if volume in self._queued else Effort.EXCHANGE
