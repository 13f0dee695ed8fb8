"""Files whose bytes are not what a checksum says that a client left with them."""

from __future__ import annotations

from dataclasses import dataclass

from ..types import DataVersion, InodeNo
from .connection import Database


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One file.

    Attributes:
        sha256: of the bytes that are there. expected: what the client's checksum says.
        source: where that stands, for people. found_ns: when it was seen, UTC.
        accepted_by: who said that the bytes are right; None: nobody.
    """

    ino: InodeNo
    version: DataVersion
    sha256: bytes
    expected: bytes
    source: str
    found_ns: int
    accepted_by: str | None = None

    def same(self, other: Mismatch | None) -> bool:
        """True if the other one is about the same bytes and the same checksum."""
        return other is not None and (self.ino, self.sha256, self.expected) == (
            other.ino, other.sha256, other.expected,
        )  # fmt: skip


class Mismatches:
    """Rows of `mismatches`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def get(self, ino: InodeNo) -> Mismatch | None:
        """What is known of a file, or None."""
        for row in self._db.execute("SELECT * FROM mismatches WHERE ino = ?", (ino,)):
            return Mismatch(*row)
        return None

    def put(self, one: Mismatch) -> None:
        """Note it, in the place of what was known before."""
        self._db.execute(
            "INSERT OR REPLACE INTO mismatches VALUES (?, ?, ?, ?, ?, ?, ?)",
            (one.ino, one.version, one.sha256, one.expected, one.source, one.found_ns,
             one.accepted_by),
        )  # fmt: skip

    def accept(self, ino: InodeNo, who: str) -> None:
        """The bytes are right, somebody says."""
        self._db.execute("UPDATE mismatches SET accepted_by = ? WHERE ino = ?", (who, ino))

    def drop(self, ino: InodeNo) -> None:
        """Bytes and checksum agree, or the checksum is gone."""
        self._db.execute("DELETE FROM mismatches WHERE ino = ?", (ino,))

    def look_again(self, ino: InodeNo) -> None:
        """Forget it unless it was accepted: the file is about to be compared anew."""
        self._db.execute("DELETE FROM mismatches WHERE ino = ? AND accepted_by IS NULL", (ino,))
