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
        self._free: dict[PoolId, tuple[float, int]] = {}

    async def reserve(self, live: Live, need: int) -> PoolFull | None:
        """Promise need bytes of the inode's pool; None, or why there is no room."""
        pool = self._pool(live)
        if not await self._fits(pool, need):
            made = await self._files.make_room(need)
            if not made or not await self._fits(pool, need, fresh=True):
                return PoolFull(
                    f"pool {pool.name} has no room for {format_size(need)} of inode {live.ino}"
                )
        self._promised[pool.id] = self._promised.get(pool.id, 0) + need
        return None

    def give_back(self, live: Live, promised: int) -> None:
        """The bytes came in, or will not."""
        if promised:
            self._promised[self._pool(live).id] -= promised

    async def _fits(self, pool: Pool, need: int, *, fresh: bool = False) -> bool:
        now = trio.current_time()
        looked, free = self._free.get(pool.id, (-_FRESH_SECONDS, 0))
        promised = self._promised.get(pool.id, 0)
        if fresh or now - looked > _FRESH_SECONDS or (promised + need) * 2 > free:
            usage = await clock.blocking(pool.usage)
            free = usage.capacity - usage.used
            self._free[pool.id] = (now, free)
        return promised + need <= free

    def _pool(self, live: Live) -> Pool:
        pools, number = self._files.pools, live.attr.pool
        return pools.for_new(live.ino) if number is None else pools[number]
