"""Work that outlives a crash: recalls, migrations and burns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from ..states import BURN_TRANSITIONS, BurnState, CopyState, FileState, check
from ..types import DataVersion, InodeNo, VolumeId
from .connection import Database
from .copies import READABLE
from .inodes import LISTED


class RecallClass(IntEnum):
    """Who goes first: the smaller number."""

    INTERACTIVE = 0
    STANDARD = 1
    BULK = 2
    IDLE = 3
    """Only while nobody else wants a drive, and never older than others: scrubs."""


@dataclass(frozen=True, slots=True)
class Recall:
    """Bring [start, end) of a file in."""

    ino: InodeNo
    urgency: RecallClass
    requester: str
    created_ns: int
    start: int
    end: int
    attempts: int
    error: str


@dataclass(frozen=True, slots=True)
class Migration:
    """Write this version of a file to that many copies."""

    ino: InodeNo
    version: DataVersion
    copies: int
    policy: str
    group_key: str
    queued_ns: int
    release: bool
    vault: str = ""
    """Where one of the copies is to be kept; '': all in the library."""


@dataclass(frozen=True, slots=True)
class Burn:
    """A burn under way; its files are the volume's pending copies."""

    volume: VolumeId
    copy_no: int
    state: BurnState
    image: str
    created_ns: int
    error: str
    size: int
    """Bytes of the image; 0 before it is staged."""
    root_hash: str


@dataclass(frozen=True, slots=True)
class Queued:
    """A migration with what its inode is just now."""

    migration: Migration
    size: int
    version: DataVersion
    state: FileState
    nlink: int


def _migration(row: tuple) -> Migration:  # type: ignore[type-arg]
    return Migration(row[0], row[1], row[2], row[3], row[4], row[5], bool(row[6]), row[7])


_RECALL = 'ino, class, requester, created_ns, start, "end", attempts, error'
_MIGRATION = "ino, version, copies, policy, group_key, queued_ns, release, vault"
_QUEUED = ", ".join(f"m.{column}" for column in _MIGRATION.split(", "))
_BURN = "volume, copy_no, state, image, created_ns, error, size, root_hash"


# The disc that a request's file would be looked for on first; 0: no copy can be read.
_FIRST_DISC = (
    "coalesce((SELECT c.volume FROM inodes i JOIN copies c ON c.ino = i.ino"
    " AND c.version = i.base_version JOIN volumes v ON v.id = c.volume WHERE i.ino = r.ino"
    f" AND c.state = {int(CopyState.VALID)}"
    f" AND v.state IN ({', '.join(f'{state:d}' for state in READABLE)})"
    " ORDER BY v.state, c.copy_no, c.part LIMIT 1), 0)"
)


class Queues:
    """Rows of `recalls`, `migrations` and `burns`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    # Recalls

    def recall(self, ino: InodeNo) -> Recall | None:
        """The request for a file, or None."""
        for row in self._db.execute(f"SELECT {_RECALL} FROM recalls WHERE ino = ?", (ino,)):
            return Recall(row[0], RecallClass(row[1]), *row[2:])
        return None

    def recalls(self, after: int = 0, limit: int = 1000) -> list[Recall]:
        """Requests in the order of inode numbers greater than after."""
        rows = self._db.execute(
            f"SELECT {_RECALL} FROM recalls WHERE ino > ? ORDER BY ino LIMIT ?", (after, limit)
        )
        return [Recall(row[0], RecallClass(row[1]), *row[2:]) for row in rows]

    def recalls_by_disc(
        self, after: int, limit: int
    ) -> list[tuple[InodeNo, RecallClass, VolumeId]]:
        """Requests as `recalls`: inode, class, and the disc to look on first (0: there is none)."""
        rows = self._db.execute(
            f"SELECT r.ino, r.class, {_FIRST_DISC} FROM recalls r WHERE r.ino > ?"
            " ORDER BY r.ino LIMIT ?",
            (after, limit),
        )
        found: list[tuple[InodeNo, RecallClass, VolumeId]] = rows.fetchall()
        return found

    def recalls_on(
        self, volume: VolumeId, after: tuple[int, int], limit: int
    ) -> list[tuple[int, int, InodeNo]]:
        """Requests for files with bytes on a disc, by sector: sector, copy, inode.

        Those greater than after alone. Of disc 0: those that no disc can be read for, by inode.
        """
        if volume:
            sql = (
                "SELECT c.sector, c.id, c.ino FROM copies c CROSS JOIN recalls r ON r.ino = c.ino"
                " WHERE c.volume = ? AND (c.sector, c.id) > (?, ?) ORDER BY c.sector, c.id LIMIT ?"
            )
            rows = self._db.execute(sql, (volume, *after, limit))
        else:
            sql = (
                f"SELECT r.ino, 0, r.ino FROM recalls r WHERE r.ino > ? AND {_FIRST_DISC} = 0"
                " ORDER BY r.ino LIMIT ?"
            )
            rows = self._db.execute(sql, (after[0], limit))
        found: list[tuple[int, int, InodeNo]] = rows.fetchall()
        return found

    def coming(self, inos: Sequence[InodeNo]) -> set[InodeNo]:
        """Those of the files that are asked for, have a name, and are not all on disk yet."""
        rows = self._db.execute(
            "SELECT r.ino FROM recalls r JOIN inodes i ON i.ino = r.ino"
            f" WHERE r.ino IN {LISTED} AND i.nlink > 0 AND i.state IN (?, ?)",
            (json.dumps(inos), int(FileState.PARTIAL), int(FileState.MIGRATED)),
        )
        return {InodeNo(ino) for (ino,) in rows.fetchall()}

    def recalls_waiting(self) -> int:
        """Files that are asked for."""
        row = self._db.execute("SELECT count(*) FROM recalls").fetchall()[0]
        return int(row[0])

    def join_recall(
        self, ino: InodeNo, urgency: RecallClass, requester: str, now_ns: int, start: int, end: int
    ) -> None:
        """Ask for a range; a request that is there already is widened and made as urgent."""
        self._db.execute(
            'INSERT INTO recalls (ino, class, requester, created_ns, start, "end")'
            " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (ino) DO UPDATE SET"
            " class = min(class, excluded.class), start = min(start, excluded.start),"
            ' "end" = max("end", excluded."end")',
            (ino, int(urgency), requester, now_ns, start, end),
        )

    def fail_attempt(self, ino: InodeNo, error: str) -> None:
        """A copy was tried in vain."""
        self._db.execute(
            "UPDATE recalls SET attempts = attempts + 1, error = ? WHERE ino = ?", (error, ino)
        )

    def end_recalls(self, inos: Sequence[InodeNo]) -> None:
        """The bytes are there, or nobody wants them any more."""
        self._db.execute(f"DELETE FROM recalls WHERE ino IN {LISTED}", (json.dumps(inos),))

    # Migrations

    def migration(self, ino: InodeNo) -> Migration | None:
        """The request for a file, or None."""
        for row in self._db.execute(f"SELECT {_MIGRATION} FROM migrations WHERE ino = ?", (ino,)):
            return _migration(row)
        return None

    def going(self, inos: Sequence[InodeNo]) -> set[InodeNo]:
        """Those of the files that wait for a disc, have a name, and stay on disk then; not those
        that are kept off the discs."""
        rows = self._db.execute(
            "SELECT m.ino FROM migrations m JOIN inodes i ON i.ino = m.ino"
            f" WHERE m.ino IN {LISTED} AND i.nlink > 0 AND NOT m.release"
            " AND m.ino NOT IN (SELECT ino FROM mismatches WHERE accepted_by IS NULL)",
            (json.dumps(inos),),
        )
        return {InodeNo(ino) for (ino,) in rows.fetchall()}

    def follow(self, ino: InodeNo, version: DataVersion) -> None:
        """A file that waits for a disc has a new version, which is to be archived instead."""
        self._db.execute("UPDATE migrations SET version = ? WHERE ino = ?", (version, ino))

    def migrations(self, after: tuple[str, int] = ("", 0), limit: int = 1000) -> list[Migration]:
        """Requests by group and inode, greater than after."""
        rows = self._db.execute(
            f"SELECT {_MIGRATION} FROM migrations WHERE (group_key, ino) > (?, ?)"
            " ORDER BY group_key, ino LIMIT ?",
            (*after, limit),
        )
        return [_migration(row) for row in rows]

    def queued(self, after: tuple[str, int] = ("", 0), limit: int = 1000) -> list[Queued]:
        """As `migrations`, with size, version and state of each inode."""
        rows = self._db.execute(
            f"SELECT {_QUEUED}, i.size, i.version, i.state, i.nlink"
            " FROM migrations m JOIN inodes i ON i.ino = m.ino"
            " WHERE (m.group_key, m.ino) > (?, ?) ORDER BY m.group_key, m.ino LIMIT ?",
            (*after, limit),
        )
        return [
            Queued(_migration(row), row[8], row[9], FileState(row[10]), row[11]) for row in rows
        ]

    def burn_before(self) -> int:
        """UTC ns: what was queued before it does not wait for a full disc."""
        found = self._db.execute("SELECT value FROM meta WHERE key = 'burn_before_ns'").fetchall()
        return int(found[0][0]) if found else 0

    def set_burn_before(self, at_ns: int) -> None:
        """Let nothing that was queued before wait for a full disc."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('burn_before_ns', ?)", (at_ns,))

    def put_migration(self, m: Migration) -> None:
        """Ask for a file to be archived; a request for the same version keeps its time, and stays
        in the name of who asked for the most copies.
        """
        self._db.execute(
            f"INSERT INTO migrations ({_MIGRATION}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (ino) DO UPDATE SET"
            " queued_ns = iif(version = excluded.version, queued_ns, excluded.queued_ns),"
            " release = max(release, excluded.release), version = excluded.version,"
            " copies = max(copies, excluded.copies),"
            " policy = iif(version = excluded.version AND copies > excluded.copies,"
            " policy, excluded.policy),"
            " vault = iif(excluded.vault = '', vault, excluded.vault)",
            (m.ino, m.version, m.copies, m.policy, m.group_key, m.queued_ns, int(m.release),
             m.vault),
        )

    def end_migration(self, ino: InodeNo) -> None:
        """Archived, cancelled or gone."""
        self._db.execute("DELETE FROM migrations WHERE ino = ?", (ino,))

    def migrations_waiting(self) -> tuple[int, int, int | None]:
        """Files waiting, their bytes, and the UTC ns since when the oldest waits."""
        row = self._db.execute(
            "SELECT count(*), coalesce(sum(i.size), 0), min(m.queued_ns)"
            " FROM migrations m JOIN inodes i ON i.ino = m.ino"
        ).fetchall()[0]
        return row[0], row[1], row[2]

    # Policies

    def policy_runs(self) -> dict[str, int]:
        """When each policy ran last, UTC ns."""
        rows = self._db.execute("SELECT key, value FROM meta WHERE key GLOB 'policy:*'")
        return {key.removeprefix("policy:"): value for key, value in rows}

    def policy_ran(self, name: str, now_ns: int) -> None:
        """A policy runs now."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"policy:{name}", now_ns))

    # Burns

    def burns(self) -> list[Burn]:
        """Burns that have not been tidied up, oldest first."""
        rows = self._db.execute(f"SELECT {_BURN} FROM burns ORDER BY created_ns, volume")
        return [Burn(row[0], row[1], BurnState(row[2]), *row[3:]) for row in rows]

    def burn(self, volume: VolumeId) -> Burn | None:
        """The burn of a volume, or None."""
        for row in self._db.execute(f"SELECT {_BURN} FROM burns WHERE volume = ?", (volume,)):
            return Burn(row[0], row[1], BurnState(row[2]), *row[3:])
        return None

    def add_burn(self, volume: VolumeId, copy_no: int, image: str, now_ns: int) -> None:
        """A burn is planned; its image will have this name in the spool."""
        self._db.execute(
            "INSERT INTO burns (volume, copy_no, state, image, created_ns) VALUES (?, ?, ?, ?, ?)",
            (volume, copy_no, int(BurnState.PLANNED), image, now_ns),
        )

    def set_burn(self, volume: VolumeId, state: BurnState, error: str = "") -> None:
        """The burn's next step. Raises ValueError if BURN_TRANSITIONS does not allow it."""
        old = self.burn(volume)
        assert old is not None
        check(BURN_TRANSITIONS, old.state, state)
        self._db.execute(
            "UPDATE burns SET state = ?, error = ? WHERE volume = ?", (int(state), error, volume)
        )

    def stage_burn(self, volume: VolumeId, size: int, root_hash: str) -> None:
        """The image is complete, and its parts are written down as pending copies."""
        self.set_burn(volume, BurnState.STAGED)
        self._db.execute(
            "UPDATE burns SET size = ?, root_hash = ? WHERE volume = ?", (size, root_hash, volume)
        )

    def end_burn(self, volume: VolumeId) -> None:
        """Nothing of the burn is left to do."""
        self._db.execute("DELETE FROM burns WHERE volume = ?", (volume,))
