"""What a folder held at a time: what left it, and what came into it, since.

Names that nobody touched are where they were; creating and writing leave no rows (ADR 13).
"""

from __future__ import annotations

from typing import NamedTuple

from ..types import InodeNo
from .connection import Database

MOVED, DELETED = 1 << 60, 1 << 61
"""Cookies of names that moved away or were deleted begin here, above those of `dentries`."""
BEGINS = "history_begins_ns"
"""Key of a fact in `meta`."""
_CHANGES = f"""
    SELECT m.name, m.ino, {MOVED} + m.id, m.moved_ns AS at_ns, 0 AS came FROM name_moves m
    JOIN inodes i ON i.ino = m.ino
    WHERE m.parent = ?1 AND m.moved_ns > ?2 AND i.btime_ns <= ?2
    UNION ALL
    SELECT new_name, ino, 0, moved_ns, 1 FROM name_moves WHERE new_parent = ?1 AND moved_ns > ?2
    UNION ALL
    SELECT t.name, t.ino, {DELETED} + t.ino, t.deleted_ns, 0 FROM trash t
    JOIN inodes i ON i.ino = t.ino
    WHERE t.parent = ?1 AND t.deleted_ns > ?2 AND i.btime_ns <= ?2
    ORDER BY at_ns, came
"""


class Left(NamedTuple):
    """Who had a name that somebody else has now, or nobody; its cookie is its own for ever."""

    cookie: int
    name: bytes
    ino: InodeNo


class Past:
    """Rows of `name_moves` and `trash`, seen from a time."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @property
    def begins(self) -> int:
        """UTC ns: before it nothing is known, for the catalog was rebuilt or restored then."""
        return self._db.execute("SELECT value FROM meta WHERE key = ?", (BEGINS,)).get or 0

    def changes(self, folder: InodeNo, time_ns: int) -> dict[bytes, Left | None]:
        """Names of a folder whose bearers changed since, with who had each then; None: nobody.

        What happened first since then says it: a departure who was there, an arrival that nobody
        was.
        """
        found = dict[bytes, Left | None]()
        for name, ino, cookie, _, came in self._db.execute(_CHANGES, (folder, time_ns)):
            found.setdefault(name, None if came else Left(cookie, name, InodeNo(ino)))
        return found

    def parent(self, ino: InodeNo, time_ns: int) -> InodeNo | None:
        """A folder that an inode lay in then, if it has left it since."""
        for (parent,) in self._db.execute(
            "SELECT parent FROM (SELECT parent, moved_ns AS at_ns FROM name_moves WHERE ino = ?1"
            " UNION ALL SELECT parent, deleted_ns FROM trash WHERE ino = ?1)"
            " WHERE at_ns > ?2 AND parent != 0 ORDER BY at_ns LIMIT 1",
            (ino, time_ns),
        ):
            return InodeNo(parent)
        return None
