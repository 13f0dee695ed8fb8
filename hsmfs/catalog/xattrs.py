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
