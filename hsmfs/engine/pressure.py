"""Whether a write to the page cache may block: the kernel throttles writers above a limit.

Writers are made to wait once dirty and write-back pages pass the middle between the background
and the hard threshold (Linux mm/page-writeback.c, domain_dirty_freerun). Below the background
threshold a small write is a copy in memory and is done on the event loop.
"""

from __future__ import annotations

import time

_LOOP_BYTES = 1024 * 1024
"""The largest request of FUSE, a copy of half a millisecond; going to a thread costs as much. A
larger write goes to one in any case."""
_LOOK_AFTER_BYTES = 64 * 1024 * 1024
_LOOK_AFTER_NS = 50_000_000


class WritePressure:
    """Looks at /proc/vmstat now and then."""

    def __init__(self, path: str = "/proc/vmstat") -> None:
        self._path = path
        self._bytes = 0
        self._next_ns = 0
        self._high = True

    def may_block(self, size: int) -> bool:
        """True if a write of size bytes should be made in a thread."""
        if size > _LOOP_BYTES:
            return True
        self._bytes += size
        now = time.monotonic_ns()
        if now >= self._next_ns or self._bytes > _LOOK_AFTER_BYTES:
            self._next_ns, self._bytes = now + _LOOK_AFTER_NS, 0
            self._high = self._look()
        return self._high

    def _look(self) -> bool:
        values = {}
        try:
            with open(self._path, encoding="ascii") as lines:
                for line in lines:
                    key, _, value = line.partition(" ")
                    if key.startswith("nr_dirty") or key == "nr_writeback":
                        values[key] = int(value)
            return (
                values["nr_dirty"] + values["nr_writeback"]
                >= values["nr_dirty_background_threshold"]
            )
        except (OSError, KeyError, ValueError):
            return True
