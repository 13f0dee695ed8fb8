"""Which bytes of which data version lie where, and their checksums.

A copy counts only if all its parts are valid and every part's volume is readable, so the commit
point of a burn is one row: the volume's state (docs/concurrency.md, "Commit of a burn").
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..states import CopyState, SetState, VolumeState
from ..types import CopyId, DataVersion, Digest, InodeNo, StoredPart, VolumeId
from .connection import Database
from .inodes import LISTED

SUM = 32
_COLUMNS = (
    "c.id, c.ino, c.version, c.copy_no, c.state, c.volume, c.part, c.parts, c.offset, c.length,"
    " c.sector, c.stored, c.compressed, c.frame_ends"
)
READABLE = (VolumeState.FULL, VolumeState.SUSPECT, VolumeState.EXPORTED)
"""States of volumes that a valid copy may be read from."""
PROVEN = (
    f"(iif(v.state = {int(VolumeState.EXPORTED)}, coalesce(v.former, v.state), v.state)"
    f" IN ({int(VolumeState.FULL)}, {int(VolumeState.EXPORTED)}) AND v.quarantine = '')"
)
"""Volumes v on which a valid copy is as good as when it was verified; see `Volume.proven`."""
HAS_PARITY = (
    "NOT EXISTS (SELECT 1 FROM volume_sets s WHERE s.id = v.set_id AND s.m != 0"
    f" AND s.state != {int(SetState.CLOSED)})"
)


@dataclass(frozen=True, slots=True)
class Copy:
    """One part of one copy of a data version."""

    id: CopyId
    ino: InodeNo
    version: DataVersion
    copy_no: int
    state: CopyState
    where: StoredPart


class Validated(NamedTuple):
    """A part that just became valid."""

    ino: InodeNo
    version: DataVersion
    copy_no: int
    sector: int
    stored: int


def _copy(row: tuple) -> Copy:  # type: ignore[type-arg]
    ends = struct.unpack(f"<{len(row[13]) // 8}Q", row[13])
    part = StoredPart(
        volume=row[5], part=row[6], parts=row[7], offset=row[8], length=row[9], sector=row[10],
        stored=row[11], compressed=bool(row[12]), frame_ends=ends,
    )
    return Copy(row[0], row[1], row[2], row[3], CopyState(row[4]), part)


class Copies:
    """Rows of `copies` and `digests`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    # Checksums

    def digest(self, ino: InodeNo, version: DataVersion) -> Digest | None:
        """Checksums of a data version, or None if it was never archived."""
        for size, whole, chunks in self._db.execute(
            "SELECT size, sha256, chunks FROM digests WHERE ino = ? AND version = ?", (ino, version)
        ):
            parts = tuple(chunks[i : i + SUM] for i in range(0, len(chunks), SUM))
            if not parts and size:
                parts = (whole,)
            return Digest(whole, parts, size)
        return None

    def has_digest(self, ino: InodeNo, version: DataVersion) -> bool:
        """Whether a data version has checksums: it was, or is to be, archived."""
        query = "SELECT 1 FROM digests WHERE ino = ? AND version = ?"
        return self._db.one(query, (ino, version)) is not None

    def set_digest(self, ino: InodeNo, version: DataVersion, digest: Digest) -> None:
        """Keep the checksums of a data version; those of versions that are nowhere go."""
        chunks = b"".join(digest.chunks) if len(digest.chunks) > 1 else b""
        self._db.execute(
            "INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?)",
            (ino, version, digest.size, digest.sha256, chunks),
        )
        self._db.execute(
            "DELETE FROM digests WHERE ino = ?1 AND version != ?2 AND version NOT IN"
            " (SELECT base_version FROM inodes WHERE ino = ?1)"
            " AND version NOT IN (SELECT version FROM copies WHERE ino = ?1)",
            (ino, version),
        )

    # Copies

    def of(self, ino: InodeNo, version: DataVersion) -> list[Copy]:
        """All parts of all copies of a version, by copy and part."""
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM copies c WHERE ino = ? AND version = ?"
            " ORDER BY copy_no, part",
            (ino, version),
        )
        return [_copy(row) for row in rows]

    def all_of(self, ino: InodeNo) -> list[Copy]:
        """All parts of all copies of all versions, newest version first."""
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM copies c WHERE ino = ? ORDER BY version DESC, copy_no, part",
            (ino,),
        )
        return [_copy(row) for row in rows]

    def readable(self, ino: InodeNo, version: DataVersion) -> list[Copy]:
        """Valid parts on volumes that were verified once and are not lost, damaged or retired."""
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM copies c JOIN volumes v ON v.id = c.volume"
            " WHERE c.ino = ? AND c.version = ? AND c.state = ? AND v.state IN (?, ?, ?)"
            " ORDER BY v.state, c.copy_no, c.part",
            (ino, version, int(CopyState.VALID), *map(int, READABLE)),
        )
        return [_copy(row) for row in rows]

    def standing(self, inos: Sequence[InodeNo]) -> dict[InodeNo, list[Copy]]:
        """Parts of the versions that hold what is absent of files, readable or not, by copy."""
        found: dict[InodeNo, list[Copy]] = {}
        for row in self._db.execute(
            f"SELECT {_COLUMNS} FROM copies c JOIN inodes i"
            " ON i.ino = c.ino AND i.base_version = c.version"
            f" WHERE c.ino IN {LISTED} AND c.state IN (?, ?) ORDER BY c.ino, c.copy_no, c.part",
            (json.dumps(inos), int(CopyState.VALID), int(CopyState.DAMAGED)),
        ):
            copy = _copy(row)
            found.setdefault(copy.ino, []).append(copy)
        return found

    def proven(self, ino: InodeNo, version: DataVersion) -> int:
        """How many whole copies on different volumes stand verified and unblemished."""
        return self._whole(ino, version, PROVEN)

    def protected(self, ino: InodeNo, version: DataVersion) -> int:
        """As `proven`, but a copy counts only once all sets it is in have their parity."""
        return self._whole(ino, version, f"{PROVEN} AND {HAS_PARITY}")

    def is_archived(self, ino: InodeNo, version: DataVersion) -> bool:
        """A whole copy is on volumes that can be read, whatever is thought of them."""
        return self._whole(ino, version, f"v.state IN {tuple(map(int, READABLE))}") > 0

    def _whole(self, ino: InodeNo, version: DataVersion, where: str) -> int:
        """How many copies have all their parts on volumes v for which the condition holds."""
        rows = self._db.execute(
            "SELECT c.copy_no, count(DISTINCT c.part), max(c.parts) FROM copies c JOIN volumes v"
            " ON v.id = c.volume WHERE c.ino = ? AND c.version = ? AND c.state = ?"
            f" AND {where} GROUP BY c.copy_no",
            (ino, version, int(CopyState.VALID)),
        )
        return sum(1 for _, found, parts in rows if found == parts)

    def add(
        self, ino: InodeNo, version: DataVersion, copy_no: int, where: StoredPart, state: CopyState
    ) -> CopyId:
        """One more part of a copy."""
        ends = struct.pack(f"<{len(where.frame_ends)}Q", *where.frame_ends)
        self._db.execute(
            "INSERT INTO copies (ino, version, copy_no, volume, state, part, parts, offset, length,"
            " sector, stored, compressed, frame_ends)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (ino, version, copy_no, where.volume, int(state), where.part, where.parts, where.offset,
             where.length, where.sector, where.stored, int(where.compressed), ends),
        )
        return CopyId(self._db.last_insert_rowid())

    def place(self, copy: CopyId, where: StoredPart) -> None:
        """Where a pending part came to lie in the finished image."""
        ends = struct.pack(f"<{len(where.frame_ends)}Q", *where.frame_ends)
        self._db.execute(
            "UPDATE copies SET sector = ?, stored = ?, compressed = ?, frame_ends = ? WHERE id = ?",
            (where.sector, where.stored, int(where.compressed), ends, copy),
        )

    def set_state(self, copies: Iterable[CopyId], state: CopyState) -> None:
        """Set the state of parts."""
        for copy in copies:
            self._db.execute("UPDATE copies SET state = ? WHERE id = ?", (int(state), copy))

    def damage(self, copy: CopyId) -> None:
        """A valid part does not read any more; a dead one stays dead."""
        self._db.execute(
            "UPDATE copies SET state = ? WHERE id = ? AND state = ?",
            (int(CopyState.DAMAGED), copy, int(CopyState.VALID)),
        )

    def drop_pending(self, volume: VolumeId, limit: int) -> int:
        """Forget up to limit parts of a burn that failed; how many there were."""
        self._db.execute(
            "DELETE FROM copies WHERE id IN"
            " (SELECT id FROM copies WHERE volume = ? AND state = ? LIMIT ?)",
            (volume, int(CopyState.PENDING), limit),
        )
        return int(self._db.changes())

    def validate(self, volume: VolumeId, limit: int) -> list[Validated]:
        """Make up to limit pending parts of a verified volume valid."""
        rows = self._db.execute(
            "UPDATE copies SET state = ? WHERE id IN"
            " (SELECT id FROM copies WHERE volume = ? AND state = ? ORDER BY sector LIMIT ?)"
            " RETURNING ino, version, copy_no, sector, stored",
            (int(CopyState.VALID), volume, int(CopyState.PENDING), limit),
        ).fetchall()
        return [Validated(*row) for row in rows]

    def pending_of(self, volume: VolumeId, after: tuple[int, int], limit: int) -> list[Copy]:
        """Pending parts on a volume in the order of (sector, id), greater than after."""
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM copies c WHERE volume = ? AND state = ?"
            " AND (sector, id) > (?, ?) ORDER BY sector, id LIMIT ?",
            (volume, int(CopyState.PENDING), *after, limit),
        )
        return [_copy(row) for row in rows]

    def laid(self, volume: VolumeId, sector: int, limit: int) -> list[Copy]:
        """Parts with bytes by sector, from the one that a sector lies in on."""
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM copies c WHERE volume = ?1 AND stored > 0"
            " AND sector >= coalesce((SELECT max(sector) FROM copies"
            "   WHERE volume = ?1 AND sector <= ?2 AND stored > 0), 0)"
            " ORDER BY sector, id LIMIT ?3",
            (volume, sector, limit),
        )
        return [_copy(row) for row in rows]

    def mark_dead(self, inos: Sequence[InodeNo]) -> set[InodeNo]:
        """The files are gone for good; their bytes stay on write-once discs. Which have some."""
        many = json.dumps(inos)
        self._db.execute(
            f"UPDATE copies SET state = ? WHERE ino IN {LISTED} AND state != ?",
            (int(CopyState.DEAD), many, int(CopyState.PENDING)),
        )
        rows = self._db.execute(f"SELECT DISTINCT ino FROM copies WHERE ino IN {LISTED}", (many,))
        return {InodeNo(ino) for (ino,) in rows.fetchall()}
