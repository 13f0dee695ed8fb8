"""Paths of many inodes at once, also of those that lost their names."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..types import ROOT, InodeNo
from .connection import Database
from .inodes import LISTED


class PathCache:
    """Paths of inodes, each folder looked up once."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._folders: dict[int, bytes | None] = {ROOT: b""}

    def path(self, ino: InodeNo) -> bytes | None:
        """One path from the root without a leading slash, or None if it has no name."""
        for parent, name in self._db.execute(
            "SELECT parent, name FROM dentries WHERE ino = ? ORDER BY parent, id LIMIT 1", (ino,)
        ):
            above = self._folder(parent)
            return None if above is None else above + bytes(name)
        return b"" if ino == ROOT else None

    def paths(self, inos: Sequence[InodeNo]) -> dict[int, bytes | None]:
        """As `path`, of many at once; without those that have no name, and the root."""
        found: dict[int, bytes | None] = {}
        for ino, parent, name in self._db.execute(
            "SELECT ino, parent, name FROM dentries"
            f" WHERE ino IN {LISTED} ORDER BY ino, parent, id",
            (json.dumps(inos),),
        ):
            if ino not in found:
                above = self._folder(parent)
                found[ino] = None if above is None else above + bytes(name)
        return found

    def last(self, ino: InodeNo) -> bytes | None:
        """As `path`, of an inode without a name: the one that it had last, if that is known."""
        for parent, name in self._db.execute(
            "SELECT parent, name FROM trash WHERE ino = ?", (ino,)
        ):
            if (above := self._folder(parent)) is not None:
                return above + bytes(name)
        for (path,) in self._db.execute("SELECT path FROM gone_paths WHERE ino = ?", (ino,)):
            return bytes(path)
        return None

    def _folder(self, ino: int) -> bytes | None:
        todo: list[tuple[int, bytes]] = []
        while ino not in self._folders:
            row = self._db.execute(
                "SELECT parent, name FROM dentries WHERE ino = ?1"
                " UNION ALL SELECT parent, name FROM trash WHERE ino = ?1",
                (ino,),
            ).fetchall()
            if not row:
                self._folders[ino] = None
                break
            todo.append((ino, bytes(row[0][1])))
            ino = row[0][0]
        path = self._folders[ino]
        for folder, name in reversed(todo):
            path = None if path is None else path + name + b"/"
            self._folders[folder] = path
        return path
