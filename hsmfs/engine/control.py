"""The orders and questions behind the control xattrs of the mount (fs/ports.py: Control).

They are those of the API, for one inode and in the name of the process that set the xattr.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .. import crash
from ..catalog.queues import RecallClass
from ..errors import NotFound
from ..types import Attr, InodeNo, Requester
from . import overview

if TYPE_CHECKING:
    from .service import Engine


class Control:
    """What the filesystem layer may ask of the engine beside bytes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def _attr(self, ino: InodeNo) -> Attr:
        attr = self._engine.files.attr(ino)
        if attr is None:
            raise NotFound(f"inode {ino} is gone")
        return attr

    async def copies(self, ino: InodeNo) -> Sequence[Mapping[str, Any]]:
        """The copies of the present bytes, a part each."""
        attr = self._attr(ino)
        found = [
            overview.copy_view(self._engine, copy, attr)
            for copy in self._engine.catalog.copies.all_of(ino)
        ]
        return [asdict(copy) for copy in found if copy.current]

    async def why(self, ino: InodeNo) -> Mapping[str, Any]:
        """What a reader of the inode waits for."""
        return self._engine.why(ino)

    def may_open(self, ino: InodeNo, who: Requester) -> None:
        """Ask the guard; raises PosixError if it keeps the requester off."""
        self._engine.guard.opens(who, ino).check()

    async def recall(self, ino: InodeNo, who: Requester) -> None:
        """Bring all bytes in; returns when that is queued. Raises what the guard says."""
        verdict = self._engine.guard.ask(who, ino)
        verdict.check()
        urgency = RecallClass.BULK if verdict.slow else RecallClass.STANDARD
        await self._engine.recaller.request(ino, urgency, str(who))

    async def release(self, ino: InodeNo, who: Requester) -> None:
        """Give the bytes on disk up if enough copies are proven."""
        await self._engine.releaser.release(ino, str(who))

    async def pin(self, ino: InodeNo, pinned: bool, who: Requester) -> None:
        """Keep the bytes on disk for ever, or no longer; durable when this returns."""
        async with self._engine.catalog.write():
            self._engine.set_pinned(ino, pinned)
        crash.point("control.pin.committed")
        await self._engine.catalog.sync()
