"""Trees being adopted, and what became of each of their paths.

The row of a path is written before its file is moved, so that a crash leaves no file that nobody
knows: while `Step.INTENT` stands the file is in the source or in the pool under the number that
was set aside for it, and nowhere in the namespace (docs/durability.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from ..types import InodeNo, PoolId
from .connection import Database


class AdoptionState(IntEnum):
    """What is to be done with a tree."""

    RUNNING = 0
    DONE = 1
    UNDOING = 2


class Step(IntEnum):
    """How far one path is."""

    INTENT = 0
    """A number was set aside; the file may have been moved."""
    DONE = 1
    """It is in the namespace."""
    MERGED = 2
    """A folder that was in the namespace before."""


@dataclass(frozen=True, slots=True)
class Adoption:
    """A tree taken, or being taken, into the namespace."""

    id: int
    source: bytes
    target: bytes
    pool: PoolId
    link: bool
    state: AdoptionState
    started_ns: int


@dataclass(frozen=True, slots=True)
class Adopted:
    """One path of it, below the source."""

    path: bytes
    ino: InodeNo
    src_ino: int
    step: Step


_ADOPTION = "id, source, target, pool, link, state, started_ns"
_ADOPTED = "path, ino, src_ino, state"


def _adoption(row: tuple) -> Adoption:  # type: ignore[type-arg]
    return Adoption(row[0], row[1], row[2], row[3], bool(row[4]), AdoptionState(row[5]), row[6])


def _adopted(row: tuple) -> Adopted:  # type: ignore[type-arg]
    return Adopted(row[0], row[1], row[2], Step(row[3]))


class Adoptions:
    """Rows of `adoptions` and `adopted`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def all(self) -> list[Adoption]:
        """All adoptions, oldest first."""
        return [_adoption(r) for r in self._db.execute(f"SELECT {_ADOPTION} FROM adoptions")]

    def get(self, source: bytes) -> Adoption | None:
        """The adoption of that tree, or None."""
        for row in self._db.execute(
            f"SELECT {_ADOPTION} FROM adoptions WHERE source = ?", (source,)
        ):
            return _adoption(row)
        return None

    def begin(
        self, source: bytes, target: bytes, pool: PoolId, link: bool, now_ns: int
    ) -> Adoption:
        """Note that a tree is being adopted."""
        self._db.execute(
            "INSERT INTO adoptions (source, target, pool, link, state, started_ns)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (source, target, pool, int(link), int(AdoptionState.RUNNING), now_ns),
        )
        found = self.get(source)
        assert found is not None
        return found

    def set_state(self, adoption: int, state: AdoptionState) -> None:
        """Set what is to be done."""
        self._db.execute("UPDATE adoptions SET state = ? WHERE id = ?", (int(state), adoption))

    def end(self, adoption: int) -> None:
        """Forget the adoption; its paths must have been forgotten."""
        self._db.execute("DELETE FROM adoptions WHERE id = ?", (adoption,))

    # Paths

    def path(self, adoption: int, path: bytes) -> Adopted | None:
        """What became of a path, or None."""
        for row in self._db.execute(
            f"SELECT {_ADOPTED} FROM adopted WHERE adoption = ? AND path = ?", (adoption, path)
        ):
            return _adopted(row)
        return None

    def by_source(self, adoption: int, src_ino: int) -> list[Adopted]:
        """Paths that were names of the same inode of the source's filesystem."""
        rows = self._db.execute(
            f"SELECT {_ADOPTED} FROM adopted INDEXED BY adopted_by_source"
            " WHERE adoption = ? AND src_ino = ? ORDER BY path",
            (adoption, src_ino),
        )
        return [_adopted(row) for row in rows]

    def paths(self, adoption: int, after: bytes = b"", limit: int = 1000) -> list[Adopted]:
        """Paths greater than after, in order; a folder comes before what is in it."""
        rows = self._db.execute(
            f"SELECT {_ADOPTED} FROM adopted WHERE adoption = ? AND path > ?"
            " ORDER BY path LIMIT ?",
            (adoption, after, limit),
        )
        return [_adopted(row) for row in rows]

    def intents(self, adoption: int, limit: int = 1000) -> list[Adopted]:
        """Paths whose file may be here or there."""
        rows = self._db.execute(
            f"SELECT {_ADOPTED} FROM adopted WHERE state = 0 AND adoption = ? ORDER BY ino LIMIT ?",
            (adoption, limit),
        )
        return [_adopted(row) for row in rows]

    def intended(self, ino: int) -> bool:
        """True if the number was set aside for a file that is being moved."""
        rows = self._db.execute("SELECT 1 FROM adopted WHERE state = 0 AND ino = ?", (ino,))
        return bool(rows.fetchall())

    def folders(self, adoption: int) -> list[Adopted]:
        """The folders among them, merged ones too, but not the top; in the order of paths."""
        rows = self._db.execute(
            f"SELECT {_ADOPTED} FROM adopted WHERE adoption = ? AND path != x'' AND ino IN"
            " (SELECT ino FROM inodes WHERE (mode & 61440) = 16384 AND nlink > 0) ORDER BY path",
            (adoption,),
        )
        return [_adopted(row) for row in rows]

    def migrated(self, adoption: int) -> list[bytes]:
        """Paths whose file has or is getting a copy on a disc, up to 1000."""
        rows = self._db.execute(
            "SELECT d.path FROM adopted d JOIN inodes i ON i.ino = d.ino WHERE d.adoption = ?"
            " AND d.state = 1 AND (i.state > 0 OR EXISTS (SELECT 1 FROM copies c"
            " WHERE c.ino = d.ino AND c.state IN (0, 1))) ORDER BY d.path LIMIT 1000",
            (adoption,),
        )
        return [path for (path,) in rows]

    def put(self, adoption: int, path: bytes, ino: InodeNo, src_ino: int, step: Step) -> None:
        """Note how far a path is."""
        self._db.execute(
            "INSERT OR REPLACE INTO adopted VALUES (?, ?, ?, ?, ?)",
            (adoption, path, ino, src_ino, int(step)),
        )

    def forget(self, adoption: int, path: bytes) -> None:
        """Forget one path."""
        self._db.execute(
            "DELETE FROM adopted WHERE adoption = ? AND path = ?", (adoption, path)
        )

    def counts(self, adoption: int) -> dict[Step, int]:
        """Paths by how far they are."""
        rows = self._db.execute(
            "SELECT state, count(*) FROM adopted WHERE adoption = ? GROUP BY state", (adoption,)
        )
        return {Step(step): count for step, count in rows}
