"""Whether the disks are so busy that a call the page cache would serve at once may wait for them.

Commits, opens and small writes cost less on the event loop than on the way to a thread, as long as
they are copies in memory. With requests under way on a disk they may not be: a page that has to
be read before it is written to in part, a block of inodes or a bitmap that is not in memory, a
journal's transaction that is being closed, a throttled writer. All of that has waited for 50 to
500 ms here, and none of it can be seen before it happens; that a disk has work can.
"""

from __future__ import annotations

import os
import resource
import time

_LOOK_AFTER_NS = 5_000_000
_FEW = 4
"""No more requests than this are over in a moment; our own syncs of the catalog are such."""
_LINGER_NS = 100_000_000
"""A disk that had work counts as busy for this long: its load comes in bursts."""
_SLOW_NS = 20_000_000
"""A call on the loop that slept and took longer than this has waited for a disk."""
_SLOW_LINGER_NS = 500_000_000
_OPTICAL = b"11"
"""The major number of optical drives (Linux admin-guide/devices.txt): none of ours are files."""

_LOOP_BYTES = 1024 * 1024
"""The largest request of FUSE, a copy of half a millisecond; going to a thread costs as much. A
larger write goes to one in any case."""
_WRITES_LOOK_AFTER_BYTES = 64 * 1024 * 1024
_WRITES_LOOK_AFTER_NS = 50_000_000
_VMSTAT_BYTES = 1 << 14


class DiskPressure:
    """Looks at the requests in flight (Linux admin-guide/iostats.rst, field 9) now and then.

    Attributes:
        asked_ns: by time.monotonic_ns, when `busy` was asked last.
    """

    def __init__(self, path: str = "/proc/diskstats") -> None:
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._fd = -1
        self._next_ns = self._busy_until_ns = self.asked_ns = 0

    def busy(self) -> bool:
        """True if some disk has, or had just now, a queue of requests; or if nobody can tell."""
        now = self.asked_ns = time.monotonic_ns()
        if now >= self._next_ns:
            self._next_ns = now + _LOOK_AFTER_NS
            if self._in_flight():
                self._busy_until_ns = max(self._busy_until_ns, now + _LINGER_NS)
        return now < self._busy_until_ns

    def begin(self) -> int:
        """Before a call on the loop that should be a copy in memory, right after `busy`: what
        `ended` is to be given.
        """
        return _sleeps()

    def ended(self, sleeps: int) -> None:
        """Such a call is over: learn whether it waited. While other programs have the processors it
        takes as long, but does not sleep.
        """
        if _sleeps() != sleeps:
            now = time.monotonic_ns()
            if now - self.asked_ns > _SLOW_NS:
                self._busy_until_ns = max(self._busy_until_ns, now + _SLOW_LINGER_NS)

    def _in_flight(self) -> bool:
        try:
            lines = os.pread(self._fd, 1 << 20, 0).splitlines()
        except OSError:
            return True
        fields = (line.split(None, 12) for line in lines)
        return any(int(f[11]) > _FEW for f in fields if len(f) > 11 and f[0] != _OPTICAL)


def _sleeps() -> int:
    """How often this thread gave the processor away to wait for something (getrusage(2))."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


DISK = DiskPressure()


class WritePressure:
    """Whether a write to the page cache may be throttled: looks at /proc/vmstat now and then.

    Writers are made to wait once dirty and write-back pages pass the middle between the background
    and the hard threshold (Linux mm/page-writeback.c, domain_dirty_freerun).
    """

    def __init__(self, path: str = "/proc/vmstat") -> None:
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._fd = -1
        self._bytes = 0
        self._next_ns = 0
        self._high = True

    def may_block(self, size: int) -> bool:
        """True if a write of size bytes should be made in a thread."""
        if size > _LOOP_BYTES or DISK.busy():
            return True
        self._bytes += size
        now = DISK.asked_ns
        if now >= self._next_ns or self._bytes > _WRITES_LOOK_AFTER_BYTES:
            self._next_ns, self._bytes = now + _WRITES_LOOK_AFTER_NS, 0
            self._high = self._look()
        return self._high

    def _look(self) -> bool:
        values = {}
        try:
            for line in os.pread(self._fd, _VMSTAT_BYTES, 0).splitlines():
                key, _, value = line.partition(b" ")
                if key.startswith(b"nr_dirty") or key == b"nr_writeback":
                    values[key] = int(value)
            return (
                values[b"nr_dirty"] + values[b"nr_writeback"]
                >= values[b"nr_dirty_background_threshold"]
            )
        except (OSError, KeyError, ValueError):
            return True
