"""Old versions that no disc has: whose first bytes they are, until they are purged.

A row relies on one version of an inode. When that version ends it has a row of its own, so a row
leads to its bytes in one step or in many.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..states import Lock
from ..types import Attr, DataVersion, InodeNo, PoolId
from .connection import Database
from .inodes import LISTED, PREFIXED

NOBODY = InodeNo(0)
"""Whose bytes a version is that could not be kept."""
_ALONE = "i.nlink = 0 AND i.ino NOT IN (SELECT ino FROM trash)"
"""An inode i that only rows of `kept` know."""
_DUE = (
    "FROM kept k LEFT JOIN inodes i ON i.ino = k.ino"
    " WHERE k.purge_ns <= ? AND coalesce(i.locked, 0) & ? = 0"
)


class Kept:
    """Rows of `kept`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    # Who has what

    def knows(self, ino: InodeNo, version: DataVersion) -> bool:
        """Whether a version was to be kept: no disc had it when it ended."""
        return bool(
            self._db.execute(
                "SELECT 1 FROM kept WHERE ino = ? AND version = ?", (ino, version)
            ).fetchall()
        )

    def holder(self, ino: InodeNo, version: DataVersion) -> Attr | None:
        """The inode whose present first bytes are a version's; None: they are nowhere."""
        for row in self._db.execute(
            "WITH RECURSIVE way (ino, version) AS ("
            " SELECT holder, holder_version FROM kept WHERE ino = ? AND version = ?"
            " UNION SELECT k.holder, k.holder_version FROM way w JOIN kept k"
            "  ON k.ino = w.ino AND k.version = w.version)"
            f" SELECT {PREFIXED} FROM way w JOIN inodes i ON i.ino = w.ino"
            " AND i.version = w.version LIMIT 1",
            (ino, version),
        ):
            return Attr(*row)
        return None

    def was_so(self, ino: InodeNo, version: DataVersion, time_ns: int) -> bool:
        """Whether a version's bytes had not changed since a time, whatever was set as its mtime."""
        return bool(
            self._db.execute(
                "SELECT 1 FROM kept WHERE ino = ? AND version = ? AND since_ns <= ?",
                (ino, version, time_ns),
            ).fetchall()
        )

    def relied(self, ino: InodeNo, version: DataVersion) -> int:
        """So many first bytes of an inode's version are those of older ones."""
        return int(
            self._db.execute(
                "SELECT coalesce(max(size), 0) FROM kept WHERE holder = ? AND holder_version = ?",
                (ino, version),
            ).get
        )

    def holders(self, ino: InodeNo) -> list[InodeNo]:
        """Other inodes that have versions of a file."""
        rows = self._db.execute(
            "SELECT DISTINCT holder FROM kept WHERE ino = ?1 AND holder NOT IN (?1, ?2)",
            (ino, NOBODY),
        )
        return [InodeNo(holder) for (holder,) in rows]

    def blocks(self) -> dict[PoolId, int]:
        """512-byte units that kept versions take in each pool; looks at all of them."""
        rows = self._db.execute(
            "SELECT i.pool, sum(i.blocks) FROM inodes i WHERE i.ino IN (SELECT holder FROM kept)"
            f" AND {_ALONE} AND i.pool IS NOT NULL GROUP BY i.pool"
        )
        return {PoolId(pool): blocks for pool, blocks in rows}

    # Changes

    def put(
        self, ino: InodeNo, version: DataVersion, size: int, since_ns: int, purge_ns: int
    ) -> None:
        """A version ended, and is what the file's next one begins with."""
        self._db.execute(
            "INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?, ?, ?, ?)",
            (ino, version, size, since_ns, ino, version + 1, purge_ns),
        )

    def move(self, ino: InodeNo, version: DataVersion, holder: InodeNo) -> None:
        """What relies on an inode's version relies on the first one of another inode."""
        self._db.execute(
            "UPDATE kept SET holder = ?, holder_version = 1"
            " WHERE holder = ? AND holder_version = ?",
            (holder, ino, version),
        )

    def give_back(self, ino: InodeNo, holder: InodeNo) -> None:
        """Another inode never got what a file has still."""
        self._db.execute(
            "UPDATE kept SET holder = ino, holder_version ="
            " (SELECT version FROM inodes i WHERE i.ino = kept.ino) WHERE ino = ? AND holder = ?",
            (ino, holder),
        )

    def is_due(self, now_ns: int) -> bool:
        """Whether the time of a version is over, and its file is not held."""
        found = self._db.execute(f"SELECT 1 {_DUE} LIMIT 1", (now_ns, int(Lock.HELD)))
        return bool(found.fetchall())

    def purge(self, now_ns: int, limit: int) -> tuple[int, list[InodeNo]]:
        """Forget versions whose time is over, but those of held files; how many, and the inodes
        that nobody needs any more.
        """
        gone = self._db.execute(
            f"DELETE FROM kept WHERE (ino, version) IN (SELECT k.ino, k.version {_DUE}"
            " ORDER BY k.purge_ns, k.ino, k.version LIMIT ?) RETURNING ino, version, holder",
            (now_ns, int(Lock.HELD), limit),
        ).fetchall()
        for ino, version, _ in gone:
            self._db.execute(
                "DELETE FROM versions WHERE ino = ?1 AND version = ?2 AND NOT EXISTS"
                " (SELECT 1 FROM copies c WHERE c.ino = ?1 AND c.version = ?2)",
                (ino, version),
            )
        return len(gone), self._alone([holder for _, _, holder in gone])

    def widowed(self, inos: Sequence[InodeNo]) -> list[InodeNo]:
        """Inodes that only versions of these files rely on: they go with them."""
        many = json.dumps(inos)
        rows = self._db.execute(
            f"SELECT DISTINCT k.holder FROM kept k WHERE k.ino IN {LISTED} AND NOT EXISTS"
            f" (SELECT 1 FROM kept o WHERE o.holder = k.holder AND o.ino NOT IN {LISTED})",
            (many, many),
        )
        return self._unnamed([holder for (holder,) in rows])

    def _alone(self, inos: Sequence[int]) -> list[InodeNo]:
        """Those that nobody relies on."""
        left = self._db.execute(
            "SELECT value FROM json_each(?) WHERE value NOT IN (SELECT holder FROM kept)",
            (json.dumps(sorted(set(inos))),),
        )
        return self._unnamed([ino for (ino,) in left])

    def _unnamed(self, inos: Sequence[int]) -> list[InodeNo]:
        """Those that have no name and are not in the trash."""
        rows = self._db.execute(
            f"SELECT i.ino FROM inodes i WHERE i.ino IN {LISTED} AND {_ALONE}", (json.dumps(inos),)
        )
        return [InodeNo(ino) for (ino,) in rows]
