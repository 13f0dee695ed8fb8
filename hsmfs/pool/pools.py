"""All pools of a daemon: which one new bytes go to, and which one an inode's bytes are in."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from ..errors import PoolUnavailable
from ..types import InodeNo, PoolId
from .store import Pool

FAST, DISK = "fast", "disk"


class Pools:
    """The open pools, each with its number in the catalog."""

    def __init__(self, pools: Sequence[Pool]) -> None:
        self._pools = {pool.id: pool for pool in pools}
        if len(self._pools) != len(pools):
            raise ValueError("pools need different numbers")
        self._preferred: dict[str, list[Pool]] = {
            tier: [pool for pool in pools if pool.tier == tier] for tier in (FAST, DISK)
        }

    def __iter__(self) -> Iterator[Pool]:
        return iter(self._pools.values())

    def __getitem__(self, pool: PoolId) -> Pool:
        """The pool of that number. Raises PoolUnavailable if it is not configured any more."""
        try:
            return self._pools[pool]
        except KeyError:
            raise PoolUnavailable(
                f"pool number {pool} holds bytes, but is not in the configuration",
                next_step="add its [[pool]] again",
            ) from None

    def tier(self, tier: str) -> list[Pool]:
        """The pools of a tier."""
        return self._preferred[tier]

    def for_new(self, ino_hint: int = 0) -> Pool:
        """The pool for a new file: on the fast tier if there is one; pools of a tier take turns."""
        pools = self._preferred[FAST] or self._preferred[DISK]
        return pools[ino_hint % len(pools)]

    def roomiest(self, tier: str) -> Pool | None:
        """The pool of a tier with the most free bytes; blocking."""
        usable = self._preferred[tier]
        if not usable:
            return None

        def free(pool: Pool) -> int:
            usage = pool.usage()
            return usage.capacity - usage.used

        return max(usable, key=free)

    def find(self, ino: InodeNo) -> list[Pool]:
        """Pools that hold a file for ino; more than one only after a crash. Blocking."""
        return [pool for pool in self if os.path.lexists(pool.path_of(ino))]
