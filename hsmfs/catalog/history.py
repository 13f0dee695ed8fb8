"""What is needed to take a tree back to a time: moves of names, and data versions that ended.

A deletion costs nothing here: the trash has it. A rename or a hard link costs one row, and so does
the first write to a file that was archived, or lay still; creating, writing and deleting cost none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from ..types import DataVersion, InodeNo
from .inodes import LISTED
from .past import Past

NOWHERE = InodeNo(0)
"""The folder after of a name that is no more, and before of one that an inode got beside others."""


@dataclass(frozen=True, slots=True)
class Move:
    """A name that became another one, or none (NOWHERE) while its inode kept others."""

    id: int
    ino: InodeNo
    parent: InodeNo
    name: bytes
    new_parent: InodeNo
    new_name: bytes
    moved_ns: int


@dataclass(frozen=True, slots=True)
class Version:
    """A data version that a file had until ended_ns; times UTC ns."""

    ino: InodeNo
    version: DataVersion
    size: int
    mtime_ns: int
    ended_ns: int


class History(Past):
    """Rows of `name_moves` and `versions`."""

    def moved(
        self, ino: InodeNo, old: tuple[InodeNo, bytes], new: tuple[InodeNo, bytes], now_ns: int
    ) -> None:
        """A name was changed; in the transaction that did."""
        self._db.execute(
            "INSERT INTO name_moves (ino, parent, name, new_parent, new_name, moved_ns)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (ino, *old, *new, now_ns),
        )

    def unlinked(self, ino: InodeNo, old: tuple[InodeNo, bytes], now_ns: int) -> None:
        """One of several names was taken away: a move to nowhere."""
        self.moved(ino, old, (NOWHERE, b""), now_ns)

    def linked(self, ino: InodeNo, new: tuple[InodeNo, bytes], now_ns: int) -> None:
        """An inode that has or had other names got one more: a move from nowhere."""
        self.moved(ino, (NOWHERE, b""), new, now_ns)

    def moves_since(self, time_ns: int, before: int, limit: int) -> list[Move]:
        """Moves after that time, the newest first, with smaller numbers than `before`."""
        rows = self._db.execute(
            "SELECT * FROM name_moves WHERE moved_ns > ? AND id < ? ORDER BY id DESC LIMIT ?",
            (time_ns, before, limit),
        )
        return [Move(*row) for row in rows]

    def ended(
        self, ino: InodeNo, version: DataVersion, size: int, mtime_ns: int, now_ns: int
    ) -> None:
        """Bytes that are on discs or lay still, or their mtime, are about to change; in a
        transaction.
        """
        self._db.execute(
            "INSERT OR REPLACE INTO versions VALUES (?, ?, ?, ?, ?)",
            (ino, version, size, mtime_ns, now_ns),
        )

    def versions(self, ino: InodeNo) -> list[Version]:
        """Versions that ended, the newest first; one may be there twice, by its times alone."""
        rows = self._db.execute(
            "SELECT * FROM versions WHERE ino = ? ORDER BY ended_ns DESC", (ino,)
        )
        return [Version(*row) for row in rows]

    def version_at(self, ino: InodeNo, time_ns: int) -> Version | None:
        """The version that the file had at a time, if it ended since."""
        for row in self._db.execute(
            "SELECT * FROM versions WHERE ino = ? AND ended_ns > ? ORDER BY ended_ns LIMIT 1",
            (ino, time_ns),
        ):
            return Version(*row)
        return None

    def burned_before(self, ino: InodeNo, version: DataVersion, time_ns: int) -> bool:
        """True if a disc had the version at that time: its bytes have not changed since."""
        return bool(
            self._db.execute(
                "SELECT 1 FROM copies c JOIN volumes v ON v.id = c.volume"
                " WHERE c.ino = ? AND c.version = ? AND v.burned_ns <= ? LIMIT 1",
                (ino, version, time_ns),
            ).fetchall()
        )

    def lost_since(self, time_ns: int, purge_ns: int) -> int:
        """Names that went to the trash, as far as they stay longer than purge_ns, and versions
        that ended since a time, but those of files that only grew.
        """
        gone: int = self._db.execute(
            "SELECT count(*) FROM trash WHERE purge_ns > ?", (purge_ns,)
        ).get
        ended: int = self._db.execute(
            "SELECT count(*) FROM versions v WHERE ended_ns > ? AND NOT EXISTS"
            " (SELECT 1 FROM kept k WHERE k.ino = v.ino AND k.version = v.version"
            " AND k.holder = v.ino)",
            (time_ns,),
        ).get
        return gone + ended

    def old_moves(self, before_ns: int, limit: int) -> list[int]:
        """Those of the first `limit` moves that were made before a time; looks at no others."""
        rows = self._db.execute(
            "SELECT id FROM (SELECT id, moved_ns FROM name_moves ORDER BY id LIMIT ?)"
            " WHERE moved_ns < ?",
            (limit, before_ns),
        )
        return [move for (move,) in rows]

    def forget_moves(self, moves: Sequence[int]) -> None:
        """Nobody can take these back any more."""
        self._db.execute(f"DELETE FROM name_moves WHERE id IN {LISTED}", (json.dumps(moves),))

    def stub_of(self, old: InodeNo, version: DataVersion, new: InodeNo) -> None:
        """Give another inode the copies and checksums of a version as its own first version."""
        self._db.execute(
            "INSERT INTO copies (ino, version, copy_no, volume, state, part, parts, offset, length,"
            " sector, stored, compressed, frame_ends)"
            " SELECT ?, 1, copy_no, volume, state, part, parts, offset, length, sector, stored,"
            " compressed, frame_ends FROM copies WHERE ino = ? AND version = ?",
            (new, old, version),
        )
        self._db.execute(
            "INSERT INTO digests SELECT ?, 1, size, sha256, chunks FROM digests"
            " WHERE ino = ? AND version = ?",
            (new, old, version),
        )

    def inherit(self, old: InodeNo, new: InodeNo) -> None:
        """Give another inode the extended attributes and the study."""
        self._db.execute(
            "INSERT INTO xattrs SELECT ?, name, value FROM xattrs WHERE ino = ?", (new, old)
        )
        self._db.execute(
            "INSERT INTO study_files SELECT ?, study FROM study_files WHERE ino = ?", (new, old)
        )

    def drop_stub(self, ino: InodeNo) -> None:
        """Take away again what `stub_of` gave: the copies are another inode's, and not dead."""
        self._db.execute("DELETE FROM copies WHERE ino = ?", (ino,))
        self._db.execute("DELETE FROM digests WHERE ino = ?", (ino,))

    def stand_in(self, old: InodeNo, new: InodeNo, now_ns: int) -> list[tuple[InodeNo, bytes]]:
        """All names of an inode are the other's from now on; which they are. old has none then."""
        names = self._db.execute(
            "UPDATE dentries SET ino = ? WHERE ino = ? RETURNING parent, name", (new, old)
        ).fetchall()
        self._db.execute("UPDATE inodes SET nlink = ? WHERE ino = ?", (len(names), new))
        for parent, _ in names:  # what clients of NFS remember of the folder is old
            self._db.execute(
                "UPDATE inodes SET ctime_ns = max(ctime_ns, ?) WHERE ino = ?", (now_ns, parent)
            )
        self._db.execute(
            "UPDATE inodes SET nlink = 0, ctime_ns = ? WHERE ino = ?", (now_ns, old)
        )
        return [(InodeNo(parent), bytes(name)) for parent, name in names]
