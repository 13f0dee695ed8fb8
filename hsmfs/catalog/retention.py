"""Retention: folders in which files become records, the records, and the compliance clock's row.

All times are of the compliance clock, nanoseconds; what may be done to a record is decided by
`engine/trust`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from ..states import RetentionMode
from ..types import InodeNo
from .connection import Database

FOREVER = 2**63 - 1
"""As a time: never; as a period: without a bound."""
AT_ONCE = 40
"""Rows in one statement."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A retention folder; periods in nanoseconds."""

    ino: InodeNo
    mode: RetentionMode
    min_ns: int
    default_ns: int
    max_ns: int
    autocommit_ns: int | None

    def until(self, now_ns: int, wish_ns: int | None) -> int:
        """Until when a file committed now is kept, if somebody asked for a time (None: nobody).

        Minimum and maximum bound what was asked for, and the default.
        """
        period = self.default_ns if wish_ns is None else wish_ns - now_ns
        return after(now_ns, min(max(period, self.min_ns), self.max_ns))


def after(now_ns: int, period_ns: int) -> int:
    """That much later; for ever stays for ever."""
    return min(now_ns + period_ns, FOREVER)


@dataclass(frozen=True, slots=True)
class Retained:
    """A record: kept until a time."""

    ino: InodeNo
    folder: InodeNo
    mode: RetentionMode
    until_ns: int
    committed_ns: int


class ClockRow(NamedTuple):
    """The compliance clock as it was last written down."""

    worm_ns: int
    boot_id: str
    boottime_ns: int
    wall_ns: int


class Retentions:
    """Rows of `retention_folders`, `retained`, `uncommitted` and `compliance_clock`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    # Folders

    def folders(self) -> list[Folder]:
        """All retention folders."""
        rows = self._db.execute("SELECT * FROM retention_folders ORDER BY ino")
        return [Folder(InodeNo(row[0]), RetentionMode(row[1]), *row[2:]) for row in rows]

    def folder(self, ino: int) -> Folder | None:
        """The settings of a retention folder, None for others."""
        for row in self._db.execute("SELECT * FROM retention_folders WHERE ino = ?", (ino,)):
            return Folder(InodeNo(row[0]), RetentionMode(row[1]), *row[2:])
        return None

    def set_folder(self, folder: Folder) -> None:
        """Make a folder one, or change its settings."""
        self._db.execute(
            "INSERT OR REPLACE INTO retention_folders VALUES (?, ?, ?, ?, ?, ?)",
            (folder.ino, int(folder.mode), folder.min_ns, folder.default_ns, folder.max_ns,
             folder.autocommit_ns),
        )  # fmt: skip

    def drop_folder(self, ino: InodeNo) -> None:
        """It is an ordinary folder again."""
        self._db.execute("DELETE FROM retention_folders WHERE ino = ?", (ino,))

    def count(self, folder: InodeNo, now_ns: int) -> tuple[int, int]:
        """Records that were committed in a folder, and how many of them must still be kept."""
        row = self._db.execute(
            "SELECT count(*), coalesce(sum(until_ns > ?), 0) FROM retained WHERE folder = ?",
            (now_ns, folder),
        ).fetchall()[0]
        return int(row[0]), int(row[1])

    # Records

    def get(self, ino: int) -> Retained | None:
        """The retention of a file, or None."""
        for row in self._db.execute("SELECT * FROM retained WHERE ino = ?", (ino,)):
            return Retained(row[0], row[1], RetentionMode(row[2]), row[3], row[4])
        return None

    def put(self, record: Retained) -> None:
        """The file is a record now, or is committed again."""
        self._db.execute(
            "INSERT OR REPLACE INTO retained VALUES (?, ?, ?, ?, ?)",
            (record.ino, record.folder, int(record.mode), record.until_ns, record.committed_ns),
        )
        self.wish(record.ino, None)

    def extend(self, ino: InodeNo, until_ns: int) -> None:
        """Keep it longer; a shorter time changes nothing."""
        self._db.execute(
            "UPDATE retained SET until_ns = max(until_ns, ?) WHERE ino = ?", (until_ns, ino)
        )

    def drop(self, ino: InodeNo) -> None:
        """It is no record any more."""
        self._db.execute("DELETE FROM retained WHERE ino = ?", (ino,))

    # What was asked for before a file is committed

    def wish(self, ino: InodeNo, until_ns: int | None) -> None:
        """Somebody asked that the file be kept until a time; None: for nothing any more."""
        if until_ns is None:
            self._db.execute("DELETE FROM retention_wishes WHERE ino = ?", (ino,))
        else:
            self._db.execute(
                "INSERT OR REPLACE INTO retention_wishes VALUES (?, ?)", (ino, until_ns)
            )

    def wished(self, ino: int) -> int | None:
        """What was asked for, or None."""
        found: int | None = self._db.execute(
            "SELECT until_ns FROM retention_wishes WHERE ino = ?", (ino,)
        ).get
        return found

    # Files that autocommit watches

    def expect(self, ino: InodeNo, since_ns: int, due_ns: int) -> None:
        """Look at the file again when it is due."""
        self._db.execute(
            "INSERT OR REPLACE INTO uncommitted VALUES (?, ?, ?)", (due_ns, ino, since_ns)
        )

    def expect_all(self, rows: Sequence[tuple[int, int, int]], seq: int) -> None:
        """Rows (due, file, since); they are complete up to a place in the order of changes."""
        for at in range(0, len(rows), AT_ONCE):
            some = rows[at : at + AT_ONCE]
            marks = ", ".join(["(?, ?, ?)"] * len(some))
            self._db.execute(
                f"INSERT OR REPLACE INTO uncommitted VALUES {marks}", tuple(chain(*some))
            )
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('autocommit_seq', ?)", (seq,))

    def not_expected(self, after: int, limit: int) -> list[tuple[int, InodeNo]]:
        """Files that changed since the rows were complete: what a crash left out is among them.

        Each with its place in the order of changes, those after one place.
        """
        rows = self._db.execute(
            "SELECT change_seq, ino FROM inodes WHERE change_seq > max(?,"
            " coalesce((SELECT value FROM meta WHERE key = 'autocommit_seq'), 0))"
            " AND state IS NOT NULL ORDER BY change_seq LIMIT ?",
            (after, limit),
        )
        return [(seq, InodeNo(ino)) for seq, ino in rows.fetchall()]

    def looked_at(self, ino: InodeNo, due_ns: int) -> None:
        """That look is done."""
        self._db.execute("DELETE FROM uncommitted WHERE due_ns = ? AND ino = ?", (due_ns, ino))

    def due(self, now_ns: int, limit: int) -> list[tuple[int, InodeNo, int]]:
        """(when it was due, file, its last known change) of those to look at now, in order."""
        rows = self._db.execute(
            "SELECT due_ns, ino, since_ns FROM uncommitted WHERE due_ns <= ?"
            " ORDER BY due_ns, ino LIMIT ?",
            (now_ns, limit),
        )
        return [(due, InodeNo(ino), since) for due, ino, since in rows.fetchall()]

    def next_due(self) -> int | None:
        """When the next one is due, or None."""
        found: int | None = self._db.execute("SELECT min(due_ns) FROM uncommitted").get
        return found

    # The clock

    def clock_row(self) -> ClockRow | None:
        """The clock as last written down, or None if it was never set."""
        for row in self._db.execute(
            "SELECT worm_ns, boot_id, boottime_ns, wall_ns FROM compliance_clock"
        ):
            return ClockRow(*row)
        return None

    def put_clock(self, row: ClockRow) -> None:
        """Write the clock down; it never goes back."""
        self._db.execute(
            "INSERT INTO compliance_clock VALUES (1, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
            " worm_ns = max(worm_ns, excluded.worm_ns), boot_id = excluded.boot_id,"
            " boottime_ns = excluded.boottime_ns, wall_ns = excluded.wall_ns",
            row,
        )
