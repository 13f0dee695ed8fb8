"""The compliance clock: what every expiry is judged by. It cannot be set, only run.

It is set once, from the wall clock, when the catalog is made. After that it moves by
CLOCK_BOOTTIME alone, which nobody can set, so turning the wall clock does nothing to it. While the
machine is off it stands still: retention then ends later than the calendar says, never earlier
(SnapLock's ComplianceClock lags in the same way). Differences between the two clocks are jumps of
the wall clock; they are found here, and recorded by who calls `look`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from ... import clock
from ...catalog.audit import AuditLog
from ...catalog.retention import ClockRow, Retentions

JUMP_NS = 10**9
"""A wall clock that moved this much against the compliance clock was set."""
SEGMENTS = 1000
"""Settings of the wall clock that are remembered, to place times of files."""


@dataclass(frozen=True, slots=True)
class Jump:
    """The wall clock was set, or (off) the machine was off, or its clock was set meanwhile.

    Attributes:
        by_ns: how far the wall clock is ahead of where it was.
    """

    kind: str
    by_ns: int
    worm_ns: int


class ComplianceClock:
    """The clock of one catalog. Reading it costs less than a microsecond and needs no loop."""

    def __init__(self, tables: Retentions, log: AuditLog) -> None:
        boot, wall = clock.BOOT.now_ns(), clock.now_ns()
        boot_id = clock.BOOT.boot_id()
        row = tables.clock_row()
        self.new = row is None
        """True if it was never set before: `row` has to be written down."""
        if row is None:
            row = ClockRow(wall, boot_id, boot, wall)
        # A power cut takes the last minute's notes; never show less than a record did.
        # Of another start only the time since then is known to have passed.
        passed = boot - row.boottime_ns if boot_id == row.boot_id else boot
        self._boot_id = boot_id
        self._base = max(row.worm_ns + max(passed, 0), log.last_worm_ns()) - boot
        self._same_boot = boot_id == row.boot_id
        # The log's word, not the row's: whoever edits the row is seen by the jump.
        known = log.last_offset_ns()
        offset = row.wall_ns - row.worm_ns if known is None else known
        self._segments = _segments(offset, log)

    def now_ns(self) -> int:
        """The time: UTC nanoseconds when it was set, and no slower or faster than the machine."""
        return self._base + clock.BOOT.now_ns()

    def row(self) -> ClockRow:
        """What is to be written down now and then."""
        boot = clock.BOOT.now_ns()
        return ClockRow(self._base + boot, self._boot_id, boot, clock.now_ns())

    def look(self) -> Jump | None:
        """Compare the wall clock; a jump if it was set since the last look."""
        worm = self.now_ns()
        offset = clock.now_ns() - worm
        by = offset - self._segments[-1][1]
        if abs(by) < JUMP_NS:
            self._same_boot = True
            return None
        self._segments.append((worm, offset))
        del self._segments[:-SEGMENTS]
        kind = "clock.jumped" if self._same_boot else "clock.off"
        self._same_boot = True
        return Jump(kind, by, worm)

    def of_wall(self, wall_ns: int, not_before: int) -> int:
        """When, by this clock, the wall clock showed a time; between not_before and now.

        If it showed it several times, the latest.
        """
        end = self.now_ns()
        now = end
        for start, offset in reversed(self._segments):
            at = wall_ns - offset
            if start <= at <= end:
                return max(at, not_before)
            end = start
            if end <= not_before:
                break
        return max(now if wall_ns > now else not_before, not_before)


def _segments(offset_ns: int, log: AuditLog) -> list[tuple[int, int]]:
    """(since when, wall clock ahead of the compliance clock) by what is on record of its jumps.

    offset_ns: how far ahead it was at last. Times of files from before the last start need this.
    """
    found: list[tuple[int, int]] = []
    for record in log.clock_jumps(SEGMENTS):
        said = json.loads(record.detail)
        found.append((said["worm_ns"], offset_ns))
        offset_ns -= said["by_ns"]
    return [(-(2**63), offset_ns), *reversed(found)]
