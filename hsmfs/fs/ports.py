"""What the filesystem layer asks of the engine beside bytes: the orders behind control xattrs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..types import InodeNo, Requester


class Control(Protocol):
    """Given by the daemon; every method may raise HsmError.

    Values are plain JSON values. An order returns when it was accepted, not when it is done.
    """

    async def copies(self, ino: InodeNo) -> Sequence[Mapping[str, Any]]:
        """The copies of the present version: volume, state, place."""

    async def why(self, ino: InodeNo) -> Mapping[str, Any]:
        """What a reader of the inode waits for now."""

    async def recall(self, ino: InodeNo, who: Requester) -> None:
        """Bring all bytes in."""

    def may_open(self, ino: InodeNo, who: Requester) -> None:
        """Whether a file that is not all on disk may be opened to be read; PosixError if not."""

    async def release(self, ino: InodeNo, who: Requester) -> None:
        """Give the bytes on disk up if enough copies are proven."""

    async def pin(self, ino: InodeNo, pinned: bool, who: Requester) -> None:
        """Keep the bytes on disk for ever, or no longer."""
