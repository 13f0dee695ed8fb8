"""Extended attributes, whole names with their namespace, as the kernel gives them."""

from __future__ import annotations

import errno

from ..errors import PosixError
from .connection import Database


class Xattrs:
    """Rows of `xattrs`; the filesystem layer checks limits and namespaces."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def get(self, ino: int, name: bytes) -> bytes | None:
        """The value, or None."""
        for (value,) in self._db.execute(
            "SELECT value FROM xattrs WHERE ino = ? AND name = ?", (ino, name)
        ):
            return bytes(value)
        return None

    def look(self, ino: int, name: bytes) -> tuple[bytes | None, bool]:
        """The value or None, and whether the inode has any attribute at all; one query."""
        [(value, some)] = self._db.execute(
            "SELECT (SELECT value FROM xattrs WHERE ino = ?1 AND name = ?2),"
            " EXISTS (SELECT 1 FROM xattrs WHERE ino = ?1)",
            (ino, name),
        )
        return value, bool(some)

    def with_state(self, ino: int, name: bytes) -> tuple[bytes | None, int | None]:
        """The value or None, and the file's state; one query. Raises PosixError ESTALE."""
        for row in self._db.execute(
            "SELECT x.value, i.state FROM inodes i"
            " LEFT JOIN xattrs x ON x.ino = i.ino AND x.name = ? WHERE i.ino = ?",
            (name, ino),
        ):
            return row[0], row[1]
        raise PosixError(errno.ESTALE)

    def names(self, ino: int) -> list[bytes]:
        """Names, in order."""
        rows = self._db.execute("SELECT name FROM xattrs WHERE ino = ? ORDER BY name", (ino,))
        return [bytes(name) for (name,) in rows]

    def all(self, ino: int) -> dict[bytes, bytes]:
        """Names and values."""
        return dict(self._db.execute("SELECT name, value FROM xattrs WHERE ino = ?", (ino,)))

    def set(self, ino: int, name: bytes, value: bytes) -> None:
        """Set or replace a value."""
        self._db.execute("INSERT OR REPLACE INTO xattrs VALUES (?, ?, ?)", (ino, name, value))

    def remove(self, ino: int, name: bytes) -> None:
        """Remove it. Raises PosixError ENODATA if there is none."""
        self._db.execute("DELETE FROM xattrs WHERE ino = ? AND name = ?", (ino, name))
        if not self._db.changes():
            raise PosixError(errno.ENODATA)
