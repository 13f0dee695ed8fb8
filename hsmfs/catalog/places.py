"""What lies where on a disc, in a small database of its own: millions of files take no memory."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import apsw

from .connection import Database


def write_places(dest: Path, places: Iterable[tuple[bytes, int, int]]) -> int:
    """A database of what lies where on a disc, (path, first sector, bytes); how many.

    It has its name only when it is complete.
    """
    part = dest.with_name(dest.name + ".part")
    part.unlink(missing_ok=True)
    db: Database = apsw.Connection(str(part))
    for key, value in (("journal_mode", "off"), ("synchronous", "off"), ("cache_size", -32768)):
        db.pragma(key, value)
    db.execute(
        "CREATE TABLE places (path BLOB PRIMARY KEY, sector INTEGER, size INTEGER) WITHOUT ROWID"
    )
    with db:
        db.executemany("INSERT INTO places VALUES (?, ?, ?)", places)
    count = int(db.execute("SELECT count(*) FROM places").get)
    db.close()
    part.rename(dest)
    return count


class Places:
    """A database that `write_places` made, to be asked. Blocking; by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._db: Database = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)

    def find(self, path: bytes) -> tuple[int, int] | None:
        """First sector and bytes of a file of the disc, or None."""
        row = self._db.execute("SELECT sector, size FROM places WHERE path = ?", (path,)).fetchone()
        return (int(row[0]), int(row[1])) if row is not None else None

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()
