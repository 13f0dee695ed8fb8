"""In which order the requests of one disc are read: the most urgent class, then by sector, around.

Everything costs O(log n) or less, with a million requests on a disc as with one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sortedcontainers import SortedKeyList

from ...catalog.queues import RecallClass

K = TypeVar("K", bound=Hashable)
Place = tuple[int, int]


@dataclass(slots=True)
class _Entry(Generic[K]):
    key: K
    number: int
    urgency: RecallClass
    sector: int
    size: int
    since: float


def _place(entry: _Entry[Any]) -> Place:
    return entry.sector, entry.number


class DiscOrder(Generic[K]):
    """Requests of one disc under a key each.

    Attributes:
        bytes: wanted of the disc.
    """

    def __init__(self) -> None:
        self._entries: dict[K, _Entry[K]] = {}
        self._sorted: tuple[SortedKeyList[_Entry[K], Place], ...] = tuple(
            SortedKeyList(key=_place) for _ in RecallClass
        )
        # By arrival: the first of each is the oldest.
        self._oldest: tuple[OrderedDict[K, float], ...] = tuple(OrderedDict() for _ in RecallClass)
        self._number = 0
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[K]:
        return iter(self._entries)

    @property
    def urgency(self) -> RecallClass | None:
        """The most urgent class of all; None if nothing waits."""
        return next((u for u in RecallClass if self._oldest[u]), None)

    def since(self, urgency: RecallClass) -> float | None:
        """When the first request of a class came that is here still."""
        return next(iter(self._oldest[urgency].values()), None)

    def add(self, key: K, urgency: RecallClass, sector: int, size: int, since: float) -> None:
        """One more request; since is never earlier than that of the one before."""
        self._number += 1
        entry = _Entry(key, self._number, urgency, sector, size, since)
        self._entries[key] = entry
        self.bytes += size
        self._sorted[urgency].add(entry)
        self._oldest[urgency][key] = since

    def remove(self, key: K) -> None:
        """It is done, or not wanted; nothing happens if it is not here."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes -= entry.size
            self._sorted[entry.urgency].remove(entry)
            del self._oldest[entry.urgency][key]

    def shorten(self, key: K, sector: int, size: int) -> None:
        """It was read in part: size bytes from a sector on are left."""
        entry = self._entries[key]
        line = self._sorted[entry.urgency]
        line.remove(entry)
        self.bytes += size - entry.size
        entry.sector, entry.size = sector, size
        line.add(entry)

    def change(self, key: K, urgency: RecallClass) -> None:
        """It is of another class now."""
        entry = self._entries[key]
        if entry.urgency is not urgency:
            self._sorted[entry.urgency].remove(entry)
            since = self._oldest[entry.urgency].pop(key)
            entry.urgency = urgency
            self._sorted[urgency].add(entry)
            self._oldest[urgency][key] = since

    def from_sector(self, sector: int) -> Iterator[K]:
        """The most urgent class from a sector on, then its rest from the start of the disc."""
        urgency = self.urgency
        if urgency is None:
            return
        line = self._sorted[urgency]
        at = line.bisect_key_left((sector, 0))
        for entry in line.islice(at):
            yield entry.key
        for entry in line.islice(0, at):
            yield entry.key
