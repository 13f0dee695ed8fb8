"""The in-memory side of an inode that is open, being changed, or worked on by the engine."""

from __future__ import annotations

import os
from collections.abc import Callable

import trio

from ..types import Attr, InodeNo, Range

UNKNOWN = 1 << 63
"""Beyond the end of any file."""


class Live:
    """One per inode in use; made and dropped by `Files` alone.

    Attributes:
        attr: the inode as a stat must show it now; ahead of the catalog while `unflushed`.
        fd: descriptor of the pool file, or -1 before the first byte.
        absent: ranges not on disk; what a recall brought in is taken out at once, while the
            catalog learns it only after an fsync of the pool file (`unsaved_ranges`).
        dirty_mark: the catalog's commit count when the inode was marked dirty; 0 if it was born so.
        sealed: checksums of this data version exist, so its bytes must not change any more: the
            next write begins a new version.
        gen: grows before each change of bytes, so that a long reader can see that it raced.
        writing: changes of bytes under way in threads.
        opens, writers: open handles, and those that may write.
        holds: how many of the engine's workers need it.
        opening: set while a thread opens the pool file.
        stake: so many first bytes must not change before it was seen whether an older version needs
            them (keeping.py); UNKNOWN after each opening, and none soon after the first change.
        cut: the pool file was made shorter, so closing it may begin to write it back.
        lock: held for whatever changes version, ranges or state; a plain write to a plain
            resident file does not need it.
        arrived: set and replaced when ranges come in or a recall fails.
    """

    __slots__ = (
        "absent", "arrived", "attr", "cut", "dirty_mark", "fd", "gen", "holds", "ino", "lock",
        "opening", "opens", "sealed", "stake", "unflushed", "unsaved_ranges", "writers", "writing",
    )  # fmt: skip

    def __init__(self, attr: Attr, absent: list[Range], sealed: bool) -> None:
        self.ino: InodeNo = attr.ino
        self.attr = attr
        self.absent = absent
        self.sealed = sealed
        self.fd = -1
        self.gen = self.dirty_mark = 0
        self.opens = self.writers = self.writing = self.holds = self.stake = 0
        self.unflushed = self.unsaved_ranges = self.cut = False
        self.opening: trio.Event | None = None
        self.lock = trio.Lock()
        self.arrived = trio.Event()

    def plain(self, offset: int) -> bool:
        """True if a write there needs nothing but the pool file."""
        return offset >= self.stake and not self.sealed and not self.absent

    @property
    def blocks(self) -> int:
        """The 512-byte units of the open pool file; those last known if its disk does not tell.

        Whoever needs its bytes gets the error; stat, and what is written down of others, do not.
        """
        try:
            return os.fstat(self.fd).st_blocks
        except OSError:
            return self.attr.blocks

    @property
    def idle(self) -> bool:
        return not (self.opens or self.holds or self.unflushed or self.unsaved_ranges)

    @property
    def ready(self) -> bool:
        """True if its attributes may go to the catalog and the mark that it is dirty with them.

        Whoever holds the lock may rely on the mark: a truncate waits before it cuts.
        """
        return self.unflushed and not self.writers and not self.lock.locked()

    def as_now(self) -> Callable[[], None]:
        """What makes it again what it is now: for a transaction that may fail (`if_undone`)."""
        attr, absent, sealed = self.attr, self.absent, self.sealed
        unflushed, unsaved = self.unflushed, self.unsaved_ranges

        def back() -> None:
            self.attr, self.absent, self.sealed = attr, absent, sealed
            self.unflushed, self.unsaved_ranges = unflushed, unsaved

        return back

    def wake(self) -> None:
        """Tell all who wait that ranges came in or a recall ended."""
        self.arrived.set()
        self.arrived = trio.Event()
