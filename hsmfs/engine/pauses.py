"""Files that the migrator leaves alone for a while: why, and until when."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import trio

from ..catalog.catalog import Catalog
from ..types import Attr, DataVersion, InodeNo
from .batches import at_leisure
from .stage import ABSENT, LOST_BYTES, MISMATCH, UNREADABLE

AGAIN = 15.0
"""Seconds after which a file that was skipped is looked at again."""
BACK_OFF = 120.0
"""Seconds after which the files of a burn that failed are tried again."""
DISPUTED = 3600.0
"""And one that is not what its client's checksum says; an order to archive it is not put off."""
ROTTEN = 86_400.0
ROTTEN_AT_MOST = 7 * ROTTEN
"""Seconds after which a file is tried again whose bytes on disk are not those of its checksums;
twice as many after each try, as all of it is read for nothing unless somebody writes it anew."""


def is_bad(why: str) -> bool:
    """Whether bytes may be lost: nothing heals that by itself."""
    return why.startswith((LOST_BYTES, UNREADABLE))


@dataclass(frozen=True, slots=True)
class _Rotten:
    """This version of a file is tried again after so many seconds, at `until` by trio's clock."""

    version: DataVersion
    wait: float
    until: float


class Pauses:
    """Until when each file is left alone, by trio's clock.

    attr_of: the inode as it is now, or None.
    """

    def __init__(self, catalog: Catalog, attr_of: Callable[[InodeNo], Attr | None]) -> None:
        self._catalog, self._attr_of = catalog, attr_of
        self._until: dict[int, float] = {}
        self._rotten: dict[int, _Rotten] = {}

    def __contains__(self, ino: object) -> bool:
        return ino in self._until

    @property
    def next(self) -> float:
        """When the first of them is over; inf: there is none."""
        return min(self._until.values(), default=math.inf)

    def put_off(self, ino: InodeNo, why: str) -> None:
        """For as long as the reason wants."""
        pauses = {MISMATCH: DISPUTED, ABSENT: BACK_OFF}
        seconds = ROTTEN if is_bad(why) else pauses.get(why, AGAIN)
        self._until[ino] = trio.current_time() + seconds
        if is_bad(why):
            self._note_rotten(ino)

    def _note_rotten(self, ino: InodeNo) -> None:
        """When a file that was found to be rotten is read again; until then it is looked at."""
        attr, now = self._attr_of(ino), trio.current_time()
        if attr is not None:
            old = self._rotten.get(ino)
            again = old is not None and old.version == attr.version
            wait = min(2 * old.wait, ROTTEN_AT_MOST) if old is not None and again else ROTTEN
            self._rotten[ino] = _Rotten(attr.version, wait, now + wait)

    def failed(self, inos: Iterable[int]) -> None:
        """Their burn failed."""
        self._until.update(dict.fromkeys(inos, trio.current_time() + BACK_OFF))

    def end(self, ino: InodeNo) -> bool:
        """Somebody asks for the file: its pause is over; whether it had one."""
        return self._until.pop(ino, None) is not None

    def clear(self) -> None:
        """All pauses are over."""
        self._until.clear()

    async def look(self) -> None:
        """End what is over; a rotten file waits on, looked at each day whether it was written."""
        now = trio.current_time()
        over = [ino for ino, until in self._until.items() if until <= now]
        await at_leisure(self._catalog, over, self._over)

    def _over(self, ino: int) -> None:
        if self._until.pop(ino, None) is None:
            return  # somebody asked for it meanwhile
        rotten, attr = self._rotten.get(ino), self._attr_of(InodeNo(ino))
        if rotten is None:
            return
        now = trio.current_time()
        if attr is None or attr.version != rotten.version:
            del self._rotten[ino]
        elif now < rotten.until:
            self._until[ino] = min(now + ROTTEN, rotten.until)
