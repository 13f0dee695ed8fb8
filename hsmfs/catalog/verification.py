"""How far a verification of trees is, so that it goes on after a restart."""

from __future__ import annotations

from typing import NamedTuple

from ..types import InodeNo
from .connection import Database


class Stand(NamedTuple):
    """Where a verification stands; asked and found are JSON of whoever verifies."""

    asked: str
    after: InodeNo
    noted_ns: int
    found: str


class Verification:
    """The row of `verification`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def get(self) -> Stand | None:
        """The one that has not ended."""
        for row in self._db.execute("SELECT asked, after, noted_ns, found FROM verification"):
            return Stand(*row)
        return None

    def put(self, stand: Stand) -> None:
        """It stands there now."""
        self._db.execute("INSERT OR REPLACE INTO verification VALUES (1, ?, ?, ?, ?)", stand)

    def end(self) -> None:
        """There is none any more."""
        self._db.execute("DELETE FROM verification")
