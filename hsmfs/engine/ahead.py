"""Reading a disc ahead of those who read its files one by one, in the order in which they lie.

What was read ahead stays in memory, a few MiB a drive, and becomes part of no file before somebody
asks for it. How far is doubled as long as the order goes on, so a single file costs nothing more.
"""

from __future__ import annotations

from ..disc.reader import Bytes
from ..errors import UnreadableSector
from ..types import CHUNK, SECTOR
from .session import Session

MOST = CHUNK // SECTOR
"""Sectors read at once."""
GAP = 64
"""Sectors between two files that are read in vain rather than passed over."""


class Ahead:
    """One session's reads."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._end = session.medium.written_bytes // SECTOR
        self._first = 0
        self._data = memoryview(b"")
        self._next = -1
        self._many = 0

    async def read(self, sector: int, count: int) -> Bytes:
        """As `Session.read`."""
        if not self._has(sector, count):
            in_order = self._next <= sector <= self._next + GAP
            self._many = min(MOST, 2 * max(count, self._many)) if in_order else 0
            many = min(self._many, self._end - sector)
            if many <= count or not await self._fill(sector, many):
                self._next = sector + count
                return await self._session.read(sector, count)
        self._next = sector + count
        start = (sector - self._first) * SECTOR
        return self._data[start : start + count * SECTOR]

    def _has(self, sector: int, count: int) -> bool:
        end = self._first + len(self._data) // SECTOR
        return self._first <= sector and sector + count <= end

    async def _fill(self, sector: int, many: int) -> bool:
        try:
            self._data = memoryview(await self._session.test(sector, many))
        except UnreadableSector:
            # Something ahead does not read; nobody asked for it, so nobody is blamed.
            self._many = 0
            return False
        self._first = sector
        return True
