"""Discs that are to be replaced: which files they hold, and whether each has its copies elsewhere.

Tables `refreshes` and `refresh_files`. A disc counts until the moment it is retired; that is one
transaction, and only allowed when every live file has as many whole copies without it as before.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum

from ..states import CopyState, VolumeState
from ..types import DataVersion, InodeNo, VolumeId
from .connection import Database
from .copies import HAS_PARITY, PROVEN
from .inodes import LISTED


class RefreshState(IntEnum):
    """How far a disc is."""

    LISTING = 0
    COPYING = 1
    RETIRED = 2
    """It does not count any more; its certificate is still to be written."""
    DONE = 3


@dataclass(frozen=True, slots=True)
class Refresh:
    """A disc of an order; times UTC ns."""

    volume: VolumeId
    id: int
    kind: str
    requester: str
    state: RefreshState
    asked_ns: int
    listed: int
    retired_ns: int | None
    certificate: str
    error: str


@dataclass(frozen=True, slots=True)
class Wanting:
    """A file that lacks copies elsewhere.

    Attributes:
        version: the present one.
        lacks: whole copies that are to be made; 0: they wait for the parity of their sets.
        proven: whole copies that stand, those on the disc among them.
        trashed: it has no name: it can only be waited for.
        old: the disc holds bytes of an older version that are still needed.
        stub: its bytes are not all on disk.
    """

    ino: InodeNo
    version: DataVersion
    lacks: int
    proven: int
    trashed: bool
    old: bool
    stub: bool


@dataclass(frozen=True, slots=True)
class Held:
    """A part of a file that lies on a disc, dead ones too."""

    ino: InodeNo
    version: DataVersion
    part: int
    parts: int
    length: int
    state: CopyState
    sha256: bytes | None


_COLUMNS = (
    "volume, id, kind, requester, state, asked_ns, listed, retired_ns, certificate, error"
)
_STANDING = (int(VolumeState.FULL), int(VolumeState.SUSPECT), int(VolumeState.EXPORTED))
_WHOLE = (
    "(SELECT count(*) FROM (SELECT 1 FROM copies c JOIN volumes v ON v.id = c.volume"
    " WHERE c.ino = {ino} AND c.version = {version} AND c.state IN {states} AND {where}"
    " GROUP BY c.copy_no HAVING count(DISTINCT c.part) = max(c.parts)))"
)
"""Whole copies of a version with all parts on volumes that the condition allows."""


_VALID = f"({int(CopyState.VALID)})"
_ONCE_VALID = f"({int(CopyState.VALID)}, {int(CopyState.DAMAGED)})"


def _whole(ino: str, version: str, where: str, states: str = _VALID) -> str:
    return _WHOLE.format(ino=ino, version=version, states=states, where=where)


class Refreshes:
    """Rows of `refreshes` and `refresh_files`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def all(self) -> list[Refresh]:
        """Every order, by disc, the oldest first; those that are done too."""
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM refreshes ORDER BY asked_ns, volume")
        return [_refresh(row) for row in rows]

    def open(self) -> list[Refresh]:
        """Those that are not done."""
        return [row for row in self.all() if row.state is not RefreshState.DONE]

    def get(self, volume: VolumeId) -> Refresh | None:
        """The order of a disc, or None."""
        for row in self._db.execute(
            f"SELECT {_COLUMNS} FROM refreshes WHERE volume = ?", (volume,)
        ):
            return _refresh(row)
        return None

    def add(self, volumes: list[VolumeId], kind: str, requester: str, now_ns: int) -> None:
        """One order for discs that are to be retired together."""
        number = self._db.execute("SELECT coalesce(max(id), 0) + 1 FROM refreshes").fetchall()[0][0]
        for volume in volumes:
            self._db.execute(
                "INSERT INTO refreshes (volume, id, kind, requester, asked_ns)"
                " VALUES (?, ?, ?, ?, ?)",
                (volume, number, kind, requester, now_ns),
            )

    def set_state(self, volume: VolumeId, state: RefreshState) -> None:
        """The disc's next step."""
        self._db.execute(
            "UPDATE refreshes SET state = ?, error = '' WHERE volume = ?", (int(state), volume)
        )

    def set_error(self, volume: VolumeId, error: str) -> None:
        """What it waits for; '' if for nothing."""
        self._db.execute("UPDATE refreshes SET error = ? WHERE volume = ?", (error, volume))

    def cancel(self, order: int) -> None:
        """Forget an order, its discs stay as they are."""
        self._db.execute(
            "DELETE FROM refresh_files WHERE volume IN (SELECT volume FROM refreshes WHERE id = ?)",
            (order,),
        )
        self._db.execute("DELETE FROM refreshes WHERE id = ?", (order,))

    def list_files(self, volume: VolumeId, limit: int) -> int:
        """List the next files on the disc with the copies that they have; how many rows were read.

        What is listed keeps its number, so that copies made meanwhile do not count as needed.
        """
        after = self._db.execute("SELECT listed FROM refreshes WHERE volume = ?", (volume,))
        (listed,) = after.fetchall()[0]
        rows = self._db.execute(
            "SELECT id, ino, version FROM copies WHERE volume = ? AND id > ? AND state IN (?, ?)"
            " ORDER BY id LIMIT ?",
            (volume, listed, int(CopyState.VALID), int(CopyState.DAMAGED), limit),
        ).fetchall()
        for _, ino, version in rows:
            self._db.execute(
                "INSERT OR IGNORE INTO refresh_files SELECT ?1, ?2, max(1, n) FROM (SELECT "
                + _whole("?2", "?3", f"(v.id = ?1 OR v.state IN {_STANDING})", _ONCE_VALID)
                + " AS n)",
                (volume, ino, version),
            )
        if rows:
            self._db.execute(
                "UPDATE refreshes SET listed = ? WHERE volume = ?", (rows[-1][0], volume)
            )
        return len(rows)

    def files(self, volume: VolumeId) -> int:
        """How many files are listed."""
        row = self._db.execute("SELECT count(*) FROM refresh_files WHERE volume = ?", (volume,))
        return int(row.fetchall()[0][0])

    def wanting(self, volume: VolumeId, after: int, limit: int) -> tuple[list[Wanting], int | None]:
        """Of the next files after an inode number, those that lack copies, or parity for them; and
        where to go on.

        A file whose version on the disc is not needed any more lacks nothing.
        """
        elsewhere = f"{PROVEN} AND c.volume != f.volume"
        rows = self._db.execute(
            "SELECT f.ino, i.version, f.need, i.nlink, i.base_version,"
            f" {_whole('i.ino', 'i.version', PROVEN)},"
            f" {_whole('i.ino', 'i.version', elsewhere)},"
            f" {_whole('i.ino', 'i.version', f'{elsewhere} AND {HAS_PARITY}')},"
            " EXISTS (SELECT 1 FROM copies c WHERE c.ino = f.ino AND c.volume = f.volume"
            "   AND c.version = i.version),"
            " EXISTS (SELECT 1 FROM copies c WHERE c.ino = f.ino AND c.volume = f.volume"
            "   AND c.version = i.base_version),"
            " EXISTS (SELECT 1 FROM absent a WHERE a.ino = f.ino)"
            " FROM refresh_files f LEFT JOIN inodes i ON i.ino = f.ino"
            " WHERE f.volume = ? AND f.ino > ? ORDER BY f.ino LIMIT ?",
            (volume, after, limit),
        ).fetchall()
        found = []
        for ino, version, need, nlink, base, proven, other, safe, has, has_base, stub in rows:
            old = version != base and bool(has_base) and bool(stub)
            lacks = max(0, need - other) if has else int(old)
            if version is not None and (lacks or (has and safe < need)):
                found.append(
                    Wanting(ino, version, lacks, proven, nlink == 0, old and not has, bool(stub))
                )
        return found, rows[-1][0] if rows else None

    def kept_versions(self, volume: VolumeId, ended_after_ns: int, last: int) -> int:
        """Older versions that have no whole copy but with the disc, and that ended after a time or
        are among the last so many of their file; how many. For threads."""
        row = self._db.execute(
            "SELECT count(*) FROM (SELECT DISTINCT f.ino, f.version FROM copies f"
            "   JOIN inodes i ON i.ino = f.ino WHERE f.volume = ?1 AND f.state = ?2"
            "   AND f.version NOT IN (i.version, i.base_version)) o"
            " WHERE EXISTS (SELECT 1 FROM versions e WHERE e.ino = o.ino AND e.version = o.version"
            "   AND (e.ended_ns > ?3 OR (SELECT count(DISTINCT n.version) FROM versions n"
            "     WHERE n.ino = o.ino AND n.version > o.version) < ?4))"
            f" AND {_whole('o.ino', 'o.version', f'{PROVEN} AND c.volume != ?1')} = 0",
            (volume, int(CopyState.VALID), ended_after_ns, last),
        ).fetchall()[0]
        return int(row[0])

    def retire(self, volume: VolumeId, now_ns: int) -> None:
        """The disc's row says that it does not count; its state is set by the caller."""
        self._db.execute(
            "UPDATE refreshes SET state = ?, retired_ns = ?, error = '' WHERE volume = ?",
            (int(RefreshState.RETIRED), now_ns, volume),
        )

    def to_be_destroyed(self, volume: VolumeId, kind: str, now_ns: int) -> None:
        """A retired disc of which all files are elsewhere: it wants its certificate, and only that.
        """
        if self.get(volume) is None:
            self.add([volume], kind, "hsmfsd", now_ns)
            self.retire(volume, now_ns)

    def certified(self, volume: VolumeId, name: str) -> None:
        """The certificate is written: the list of files is not needed any more."""
        self._db.execute(
            "UPDATE refreshes SET state = ?, certificate = ? WHERE volume = ?",
            (int(RefreshState.DONE), name, volume),
        )
        self._db.execute("DELETE FROM refresh_files WHERE volume = ?", (volume,))

    def wishes_met(
        self, volume: VolumeId, asker: str, after: int, limit: int
    ) -> int | None:
        """What the asker has queued still, until parity protects it, counts without the disc.

        The disc is retired. Of the next listed files after an inode number; where to go on.
        """
        rows = self._db.execute(
            "SELECT ino FROM refresh_files WHERE volume = ? AND ino > ? ORDER BY ino LIMIT ?",
            (volume, after, limit),
        ).fetchall()
        self._db.execute(
            "UPDATE migrations SET copies = f.need FROM refresh_files f WHERE f.volume = ?"
            f" AND f.ino = migrations.ino AND migrations.policy = ? AND f.ino IN {LISTED}",
            (volume, asker, json.dumps([ino for (ino,) in rows])),
        )
        return int(rows[-1][0]) if rows else None

    def bury(self, volume: VolumeId, limit: int) -> int:
        """Copies on a retired disc are dead; how many of at most limit."""
        self._db.execute(
            "UPDATE copies SET state = ?1 WHERE id IN"
            " (SELECT id FROM copies WHERE volume = ?2 AND state != ?1 LIMIT ?3)",
            (int(CopyState.DEAD), volume, limit),
        )
        return int(self._db.changes())

    def held(self, volume: VolumeId, after: int, limit: int) -> tuple[list[Held], int]:
        """What lies on the disc, in the order of rows after one; and the last row's number."""
        rows = self._db.execute(
            "SELECT c.id, c.ino, c.version, c.part, c.parts, c.length, c.state, d.sha256"
            " FROM copies c LEFT JOIN digests d ON d.ino = c.ino AND d.version = c.version"
            " WHERE c.volume = ? AND c.id > ? ORDER BY c.id LIMIT ?",
            (volume, after, limit),
        ).fetchall()
        return [
            Held(row[1], row[2], row[3], row[4], row[5], CopyState(row[6]), row[7])
            for row in rows
        ], rows[-1][0] if rows else after

    def alive(self, volume: VolumeId) -> tuple[int, int]:
        """Bytes on the disc that live files need, and bytes of files on it in all; for threads."""
        row = self._db.execute(
            "SELECT coalesce(sum(iif(c.state = ?2 AND (i.version = c.version"
            " OR i.base_version = c.version), c.stored, 0)), 0), coalesce(sum(c.stored), 0)"
            " FROM copies c LEFT JOIN inodes i ON i.ino = c.ino WHERE c.volume = ?1",
            (volume, int(CopyState.VALID)),
        ).fetchall()[0]
        return int(row[0]), int(row[1])


def _refresh(row: tuple) -> Refresh:  # type: ignore[type-arg]
    return Refresh(row[0], row[1], row[2], row[3], RefreshState(row[4]), *row[5:])
