"""Files overwritten in part: their rest is fetched, so that the new version can be archived."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from ..errors import PosixError
from ..types import InodeNo

REWRITE_SECONDS = 1.0
"""A file overwritten in part is completed this long after its first write."""


class Rewritten:
    """Files to complete; `request` asks for all of one."""

    def __init__(self, request: Callable[[InodeNo], Awaitable[object]]) -> None:
        self._request = request
        self._inos: set[InodeNo] = set()
        self._some = trio.Event()

    def note(self, ino: InodeNo) -> None:
        """The file was overwritten in part."""
        self._inos.add(ino)
        self._some.set()

    async def run(self) -> None:
        """Ask for what was noted; for ever."""
        while True:
            await self._some.wait()
            await trio.sleep(REWRITE_SECONDS)
            self._some = trio.Event()
            inos, self._inos = self._inos, set()
            for ino in inos:
                try:
                    await self._request(ino)
                except PosixError:
                    continue  # unlinked meanwhile
