"""Files that were taken over from discs of another catalog: which inode became which."""

from __future__ import annotations

from ..types import InodeNo
from .connection import Database


class Foreign:
    """Rows of `foreign_files`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def own(self, folder: InodeNo, ino: int) -> tuple[InodeNo, int] | None:
        """The inode that a file of another catalog became below a folder, and its version there."""
        row = self._db.execute(
            "SELECT own, version FROM foreign_files WHERE folder = ? AND ino = ?", (folder, ino)
        ).fetchone()
        return (InodeNo(row[0]), int(row[1])) if row is not None else None

    def remember(self, folder: InodeNo, ino: int, version: int, own: InodeNo) -> None:
        """A file became this inode."""
        self._db.execute(
            "INSERT INTO foreign_files VALUES (?, ?, ?, ?)", (folder, ino, version, own)
        )
