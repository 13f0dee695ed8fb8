"""Tells the kernel what changed behind its back, from a thread of its own.

pyfuse3's notifications block while a reader waits for a page of the same inode; on the event loop
that is a deadlock nobody can end. So handlers only note what changed; one thread sends, each inode
once however often it changed meanwhile. Only what the kernel knows is noted, which is the bound.
"""

from __future__ import annotations

import errno

import pyfuse3
import trio

from .. import clock, logs
from ..types import InodeNo
from .lookups import Lookups

_BATCH = 256
_UNKNOWN = (errno.ENOENT, errno.ENOTDIR, errno.ENOTCONN, errno.EINVAL)
"""The kernel has forgotten it meanwhile, or the mount is going (EINVAL: libfuse has no session)."""

log = logs.get(__name__)


class Notifier:
    """What the kernel should forget.

    What the engine changes is st_blocks, so attributes are enough: bytes on disk, on disc and in
    the page cache are the same bytes.
    """

    def __init__(self, lookups: Lookups) -> None:
        self._lookups = lookups
        self._attributes: dict[InodeNo, None] = {}
        self._names: dict[tuple[InodeNo, bytes], None] = {}
        self._wake = trio.Event()
        self._thread = trio.CapacityLimiter(1)  # ours: one that is left behind never gives it back

    def changed(self, ino: InodeNo) -> None:
        """The attributes of an inode changed."""
        if ino in self._lookups:
            self._attributes[ino] = None
            self._wake.set()

    def renamed(self, parent: InodeNo, name: bytes) -> None:
        """The engine made or took away a name in a folder."""
        if parent in self._lookups:
            self._names[parent, name] = None
            self.changed(parent)

    async def run(self) -> None:
        """Send; for ever. A thread that is stuck in the kernel is left behind when cancelled."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._attributes or self._names:
                inos = [self._attributes.popitem()[0] for _ in self._first(len(self._attributes))]
                names = [self._names.popitem()[0] for _ in self._first(len(self._names))]
                await clock.blocking(
                    lambda inos=inos, names=names: _send(inos, names),  # type: ignore[misc]
                    self._thread,
                    abandon=True,
                )

    @staticmethod
    def _first(count: int) -> range:
        return range(min(count, _BATCH))


def _send(inos: list[InodeNo], names: list[tuple[InodeNo, bytes]]) -> None:
    for ino in inos:
        try:
            pyfuse3.invalidate_inode(ino, attr_only=True)
        except OSError as fault:
            _log(fault, ino)
    for parent, name in names:
        try:
            pyfuse3.invalidate_entry(parent, name)
        except OSError as fault:
            _log(fault, parent)


def _log(fault: OSError, ino: InodeNo) -> None:
    if fault.errno not in _UNKNOWN:
        log.warning("the kernel could not be told of a change", inode=ino, error=fault)
