"""Legal holds: which files, by which hold, why and by whom. A released hold stays known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from ..states import CopyState
from ..types import HoldId, InodeNo, VolumeId
from .connection import Database
from .inodes import LISTED


@dataclass(frozen=True, slots=True)
class Hold:
    """A legal hold; times UTC ns, scope JSON."""

    id: HoldId
    name: str
    reason: str
    scope: str
    placed_by: str
    placed_ns: int
    released_by: str | None
    released_ns: int | None
    release_reason: str | None

    @property
    def stands(self) -> bool:
        return self.released_ns is None


class Holds:
    """Rows of `holds` and `held`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def all(self) -> list[Hold]:
        """Every hold, the oldest first."""
        return [Hold(*row) for row in self._db.execute("SELECT * FROM holds ORDER BY id")]

    def named(self, name: str) -> Hold | None:
        """The hold of that name, released ones too."""
        for row in self._db.execute("SELECT * FROM holds WHERE name = ?", (name,)):
            return Hold(*row)
        return None

    def place(self, name: str, reason: str, scope: str, who: str, now_ns: int) -> HoldId:
        """A new hold, on nothing yet."""
        self._db.execute(
            "INSERT INTO holds (name, reason, scope, placed_by, placed_ns) VALUES (?, ?, ?, ?, ?)",
            (name, reason, scope, who, now_ns),
        )
        return HoldId(int(self._db.last_insert_rowid()))

    def restate(self, hold: HoldId, reason: str, scope: str, who: str, at_ns: int) -> None:
        """Why, on what, by whom and when it was placed, if only its name was known."""
        self._db.execute(
            "UPDATE holds SET reason = ?, scope = ?, placed_by = ?, placed_ns = ? WHERE id = ?",
            (reason, scope, who, at_ns, hold),
        )

    def set_scope(self, hold: HoldId, scope: str) -> None:
        """What it is applied to."""
        self._db.execute("UPDATE holds SET scope = ? WHERE id = ?", (scope, hold))

    def release(self, hold: HoldId, who: str, now_ns: int, reason: str) -> None:
        """It stands no longer; its files are taken out by `free`."""
        self._db.execute(
            "UPDATE holds SET released_by = ?, released_ns = ?, release_reason = ? WHERE id = ?",
            (who, now_ns, reason, hold),
        )

    def add(self, hold: HoldId, inos: Sequence[InodeNo]) -> list[InodeNo]:
        """Hold files; those that were not held by it before."""
        rows = self._db.execute(
            "INSERT OR IGNORE INTO held SELECT ?, value FROM json_each(?) RETURNING ino",
            (hold, json.dumps(list(inos))),
        )
        return [InodeNo(ino) for (ino,) in rows.fetchall()]

    def free(self, hold: HoldId, limit: int) -> list[tuple[InodeNo, bool]]:
        """Let files of a hold go; each with whether another hold names it."""
        rows = self._db.execute(
            "DELETE FROM held WHERE hold = ?1 AND ino IN"
            " (SELECT ino FROM held WHERE hold = ?1 LIMIT ?2) RETURNING ino",
            (hold, limit),
        ).fetchall()
        return [(InodeNo(ino), bool(self.of(ino))) for (ino,) in rows]

    def of(self, ino: int) -> list[str]:
        """Names of the holds on a file."""
        rows = self._db.execute(
            "SELECT name FROM held JOIN holds ON id = hold WHERE ino = ? ORDER BY id", (ino,)
        )
        return [name for (name,) in rows]

    def files(self, hold: HoldId, after: int, limit: int) -> list[InodeNo]:
        """Files of a hold with larger inode numbers."""
        rows = self._db.execute(
            "SELECT ino FROM held WHERE hold = ? AND ino > ? ORDER BY ino LIMIT ?",
            (hold, after, limit),
        )
        return [InodeNo(ino) for (ino,) in rows]

    def count(self, hold: HoldId) -> int:
        """How many files it holds."""
        return int(self._db.execute("SELECT count(*) FROM held WHERE hold = ?", (hold,)).get)

    def on_volume(self, volume: VolumeId) -> tuple[int, list[str]]:
        """Held files with a copy on a disc that is not dead, and the names of the holds."""
        rows = self._db.execute(
            "SELECT h.hold, c.ino FROM copies c JOIN held h ON h.ino = c.ino"
            " WHERE c.volume = ? AND c.state != ?",
            (volume, int(CopyState.DEAD)),
        ).fetchall()
        ids = json.dumps(sorted({hold for hold, _ in rows}))
        names = self._db.execute(f"SELECT name FROM holds WHERE id IN {LISTED} ORDER BY id", (ids,))
        return len({ino for _, ino in rows}), [name for (name,) in names]
