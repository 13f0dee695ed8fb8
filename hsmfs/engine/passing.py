"""Older versions that somebody is reading: stubs without a name that go when nobody reads them.

A stub is what a restore would make (stubs.py), so it is recalled, verified and cached as any file.
It is in no folder and in no trash; what a crash leaves goes at the next start with all inodes that
lost their names.
"""

from __future__ import annotations

from dataclasses import dataclass

import trio

from .. import logs
from ..catalog.catalog import Catalog
from ..catalog.history import Version
from ..errors import Conflict
from ..states import FileState
from ..types import Attr, DataVersion, InodeNo
from .files import Files
from .live import Live
from .stubs import make_stub

IDLE_SECONDS = 60.0
"""A client of NFS opens a file anew for each read, and waits up to 15 s before it asks again."""

log = logs.get(__name__)


@dataclass(slots=True)
class _Stub:
    live: Live
    used: float


class PassingStubs:
    """At most one for each version of a file."""

    def __init__(self, catalog: Catalog, files: Files) -> None:
        self._catalog, self._files = catalog, files
        self._stubs: dict[tuple[InodeNo, DataVersion], _Stub] = {}

    def __len__(self) -> int:
        return len(self._stubs)

    def residence(self, then: Version) -> tuple[int | None, int]:
        """The state of a version as a file, and how many blocks of 512 bytes are on disk."""
        stub = self._stubs.get((then.ino, then.version))
        attr = self._files.attr(stub.live.ino) if stub is not None else None
        return (FileState.MIGRATED, 0) if attr is None else (attr.state, attr.blocks)

    async def open(self, like: Attr, then: Version) -> Live:
        """Begin to read a version of the inode like. Raises Conflict if no disc has it."""
        key = then.ino, then.version
        async with self._catalog.write():
            stub = self._stubs.get(key)
            if stub is None:
                if not self._catalog.copies.is_archived(*key):
                    raise Conflict("no disc that can be read has what it was then")
                size, mtime_ns = then.size, then.mtime_ns
                new = make_stub(self._catalog, like, then.version, size, mtime_ns, passing=True)
                stub = self._stubs[key] = _Stub(self._files.hold(new.ino), 0.0)
                self._catalog.if_undone(lambda: self._gone(key))
        stub.used = trio.current_time()
        return self._files.open(stub.live.ino, write=False)

    def _gone(self, key: tuple[InodeNo, DataVersion]) -> None:
        self._files.drop(self._stubs.pop(key).live)

    async def run(self) -> None:
        """Let go what nobody reads; for ever."""
        while True:
            await trio.sleep(IDLE_SECONDS / 4)
            await self.sweep()

    async def sweep(self) -> None:
        """Delete those that were not open for IDLE_SECONDS."""
        now = trio.current_time()
        for key, stub in list(self._stubs.items()):
            if stub.live.opens:
                stub.used = now
            elif now - stub.used >= IDLE_SECONDS:
                await self._purge(key, stub)

    async def _purge(self, key: tuple[InodeNo, DataVersion], stub: _Stub) -> None:
        async with self._catalog.write():
            if stub.live.opens or stub.live.holds > 1:
                return  # again, while this waited; or it is being recalled
            self._catalog.history.drop_stub(stub.live.ino)
        self._gone(key)
        if await self._files.purge_many([stub.live.ino]):
            log.warning("a stub of an older version stays till the next start", inode=stub.live.ino)
