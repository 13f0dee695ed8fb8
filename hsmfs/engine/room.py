"""Room in the pools for what recalls bring in, reserved before a disc is read."""

from __future__ import annotations

import trio

from .. import clock
from ..errors import PoolFull
from ..pool.store import Pool
from ..types import PoolId
from ..units import format_size
from .files import Files
from .live import Live

_FRESH_SECONDS = 1.0


class Room:
    """Bytes promised to recalls under way."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._promised: dict[PoolId, int] = {}
        self._free: dict[PoolId, tuple[float, int, int]] = {}
        """When it was looked, and bytes free: of the whole pool, and below its high watermark."""
        self._most: dict[PoolId, int] = {}
        """Bytes below the high watermark of an empty pool."""

    async def reserve(self, live: Live, need: int, *, order: bool = False) -> PoolFull | None:
        """Promise need bytes of the inode's pool; None, or why there is no room.

        order: no reader waits for them, so what lies above the pool's high watermark is left to
        those who read and write, and no head of another file is given up for them.
        """
        pool = self._files.pool_of(live)
        if not await self._fits(pool, need, order):
            made = await self._files.make_room(need, heads=not order)
            if not made or not await self._fits(pool, need, order, fresh=True):
                below = " below its high watermark" if order else ""
                return PoolFull(
                    f"pool {pool.name} has no room{below} for {format_size(need)} of inode"
                    f" {live.ino}"
                )
        self._promised[pool.id] = self._promised.get(pool.id, 0) + need
        return None

    def hopeless(self, live: Live, need: int) -> bool:
        """Not even an empty pool has room for an order of so many bytes; after a reserve failed."""
        return need > self._most.get(self._files.pool_of(live).id, need)

    def give_back(self, live: Live, promised: int, came: int = 0) -> None:
        """So many bytes came in, and the rest of what was promised will not."""
        pool = self._files.pool_of(live)
        if promised:
            self._promised[pool.id] -= promised
        if came and pool.id in self._free:
            pool.used += came
            looked, free, below = self._free[pool.id]
            self._free[pool.id] = looked, free - came, below - came

    async def _fits(self, pool: Pool, need: int, order: bool, *, fresh: bool = False) -> bool:
        now = trio.current_time()
        looked, free, below = self._free.get(pool.id, (-_FRESH_SECONDS, 0, 0))
        wanted = self._promised.get(pool.id, 0) + need
        room = below if order else free
        if fresh or now - looked > _FRESH_SECONDS or wanted * 2 > room:
            usage = await clock.blocking(pool.usage)
            free = usage.capacity - usage.used
            self._most[pool.id] = usage.capacity * pool.high // 100
            below = self._most[pool.id] - usage.used
            self._free[pool.id] = now, free, below
            room = below if order else free
        return wanted <= room
