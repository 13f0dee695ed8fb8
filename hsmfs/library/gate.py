"""A gate that many pass at once, or one alone, as moves do and an inventory.

Who comes first goes first: those who come while somebody waits to be alone come after him.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class Gate:
    """Neither call may be made by a task that is inside."""

    def __init__(self) -> None:
        self._door = trio.Lock()
        self._inside = 0
        self._left = trio.Event()

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        """Beside others who pass."""
        async with self._door:
            self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._left.set()
                self._left = trio.Event()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """With nobody else inside."""
        async with self._door:
            while self._inside:
                await self._left.wait()
            yield
