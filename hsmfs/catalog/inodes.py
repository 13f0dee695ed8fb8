"""Inodes and their absent ranges.

A dirty inode is one whose pool file is being written: its row may lag behind in size, blocks,
mtime and ctime, and after a crash the pool file's own are taken (`dirty`, `put`). Everything else
in a row is always true. Relies on `Catalog.write()` for the transaction around each change.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Sequence

from ..states import FileState
from ..types import ROOT, Attr, DataVersion, InodeNo, PoolId, Range
from .connection import Database, LoopConnection

COLUMNS = (
    "ino, mode, uid, gid, nlink, rdev, size, blocks, atime_ns, mtime_ns, ctime_ns, btime_ns,"
    " state, pool, version, base_version, dirty, pinned, locked,"
    " change_seq"
)
PREFIXED = ", ".join(f"i.{column.strip()}" for column in COLUMNS.split(","))
_GET = f"SELECT {COLUMNS} FROM inodes WHERE ino = ?"
_INSERT = (
    "INSERT INTO inodes (ino, mode, uid, gid, nlink, rdev, size, atime_ns, mtime_ns, ctime_ns,"
    " btime_ns, state, pool, dirty, change_seq)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_PUT = (
    "UPDATE inodes SET mode = ?, uid = ?, gid = ?, size = ?, blocks = ?, atime_ns = ?,"
    " mtime_ns = ?, ctime_ns = ?, pool = ?, dirty = ?, change_seq = ? WHERE ino = ?"
)
_TOUCH = "UPDATE inodes SET mtime_ns = ?, ctime_ns = ?, nlink = nlink + ? WHERE ino = ?"
_LINK = "UPDATE inodes SET nlink = nlink + ?, ctime_ns = ?, change_seq = ? WHERE ino = ?"
_LAST = "UPDATE inodes SET nlink = 0, ctime_ns = ? WHERE ino = ?"
_CEILING = (
    "INSERT INTO meta VALUES ('ino_ceiling', ?)"
    " ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)
LISTED = "(SELECT value FROM json_each(?))"
"""A parameter that is a JSON array, so that one statement serves many inodes."""
DIRECTORY_SIZE = 4096
NUMBERS = 1 << 20
"""Inode numbers set aside at a time: more than can be given out before a ceiling is durable."""


class Inodes:
    """Rows of `inodes` and `absent`.

    Attributes:
        turnover: rows made less rows deleted since the catalog was opened; not to be relied on
            from before `undone` grew.
        undone: transactions that were undone.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._folder: Attr | None = None
        self._asked = -1
        self.turnover = self.undone = 0
        self._seq: int = db.execute("SELECT max(change_seq) FROM inodes").get or 0
        ceiling = db.execute("SELECT value FROM meta WHERE key = 'ino_ceiling'").get
        self._next = self._ceiling = ceiling or int(ROOT)

    def next_seq(self) -> int:
        """The next place in the order of changes."""
        self._seq += 1
        return self._seq

    @property
    def change_seq(self) -> int:
        """The place of the newest change."""
        return self._seq

    @property
    def next_ino(self) -> InodeNo:
        """The number that the next new inode gets."""
        return InodeNo(self._next)

    # Reading

    def get_raw(self, ino: int) -> Attr | None:
        """The inode, or None; for a dirty one size and times may lag behind.

        The folder that was asked for last is remembered: for each name that is made or taken away
        in it, the kernel and `Namespace` ask again.
        """
        folder = self._folder
        if folder is not None and folder.ino == ino and self._asked == self._db.unknown:
            return folder
        row = self._db.one(_GET, (ino,))
        attr = Attr._make(row) if row else None
        if attr is not None and attr.is_dir and isinstance(self._db, LoopConnection):
            self._folder, self._asked = attr, self._db.unknown
        return attr

    def dirty(self) -> list[Attr]:
        """Inodes whose pool file is truer than the row."""
        rows = self._db.execute(
            f"SELECT {COLUMNS} FROM inodes WHERE dirty = 1 AND state IS NOT NULL AND nlink > 0"
            f" UNION ALL SELECT {COLUMNS} FROM inodes"
            " WHERE nlink = 0 AND dirty = 1 AND state IS NOT NULL"
        )
        return [Attr(*row) for row in rows]

    def unlinked(self) -> list[Attr]:
        """Inodes without a name that are neither in the trash nor kept for older versions."""
        rows = self._db.execute(
            f"SELECT {COLUMNS} FROM inodes WHERE nlink = 0"
            " AND ino NOT IN (SELECT ino FROM trash) AND ino NOT IN (SELECT holder FROM kept)"
        )
        return [Attr(*row) for row in rows]

    def locked(self, bits: int) -> list[InodeNo]:
        """Files locked for one of these reasons (states.Lock)."""
        rows = self._db.execute(
            "SELECT ino FROM inodes WHERE locked != 0 AND locked & ? ORDER BY ino", (int(bits),)
        )
        return [InodeNo(ino) for (ino,) in rows.fetchall()]

    def locked_of(self, inos: Sequence[InodeNo]) -> list[InodeNo]:
        """Those that are locked for any reason."""
        rows = self._db.execute(
            f"SELECT ino FROM inodes WHERE locked != 0 AND ino IN {LISTED}", (json.dumps(inos),)
        )
        return [InodeNo(ino) for (ino,) in rows.fetchall()]

    def named_of(self, inos: Sequence[InodeNo]) -> set[InodeNo]:
        """Those that have a name."""
        rows = self._db.execute(
            f"SELECT ino FROM inodes WHERE nlink != 0 AND ino IN {LISTED}", (json.dumps(inos),)
        )
        return {InodeNo(ino) for (ino,) in rows.fetchall()}

    def target(self, ino: InodeNo) -> bytes | None:
        """Where a symbolic link points."""
        for (target,) in self._db.execute("SELECT target FROM symlinks WHERE ino = ?", (ino,)):
            return bytes(target)
        return None

    def absent(self, ino: InodeNo) -> list[Range]:
        """Ranges not on disk, in order, not touching one another."""
        rows = self._db.execute(
            'SELECT start, "end" FROM absent WHERE ino = ? ORDER BY start', (ino,)
        )
        return [Range(start, end) for start, end in rows]

    def absent_of(self, inos: Sequence[InodeNo]) -> dict[InodeNo, list[Range]]:
        """As `absent`, of many."""
        found: dict[InodeNo, list[Range]] = {}
        for ino, start, end in self._db.execute(
            f'SELECT ino, start, "end" FROM absent WHERE ino IN {LISTED} ORDER BY ino, start',
            (json.dumps(inos),),
        ):
            found.setdefault(ino, []).append(Range(start, end))
        return found

    # Writing

    def insert_root(self, uid: int, gid: int, now_ns: int) -> None:
        """The root folder of a new catalog, whose making may have been cut off before."""
        self._next = max(self._next, ROOT + 1)
        self.insert(stat.S_IFDIR | 0o755, uid, gid, 0, now_ns, nlink=2, ino=ROOT)

    def insert(
        self,
        mode: int,
        uid: int,
        gid: int,
        rdev: int,
        now_ns: int,
        *,
        nlink: int = 1,
        size: int = 0,
        pool: PoolId | None = None,
        ino: InodeNo | None = None,
    ) -> Attr:
        """A new inode without a name; its number was never used before.

        A regular file is born dirty and with the pool that its bytes will go to, so that the first
        bytes cost no second transaction.
        """
        regular = stat.S_ISREG(mode)
        size = DIRECTORY_SIZE if stat.S_ISDIR(mode) else size
        state = int(FileState.RESIDENT) if regular else None
        ino, seq = ino or self._number(), self.next_seq()
        times = (now_ns, now_ns, now_ns, now_ns)
        row = (ino, mode, uid, gid, nlink, rdev, size, *times, state, pool, int(regular), seq)
        self._db.change(_INSERT, row)
        self.turnover += 1
        one = DataVersion(1)
        return Attr(
            ino, mode, uid, gid, nlink, rdev, size, 0, *times, state, pool, one, one, regular,
            False, 0, seq,
        )

    def reserve(self) -> InodeNo:
        """A number never given before, for a row that comes later (`insert_as`)."""
        return self._number()

    def pass_number(self, ino: int) -> None:
        """Never give this number, nor a smaller one: it is in use somewhere."""
        if ino >= self._ceiling:
            self._ceiling = ino + 1
            self._db.execute(_CEILING, (self._ceiling,))
        self._next = max(self._next, ino + 1)

    def insert_as(self, attr: Attr) -> Attr:
        """A new inode under a number that was reserved, with all that attr says but the order."""
        seq = self.next_seq()
        row = (*attr[:-4], int(attr.dirty), int(attr.pinned), attr.locked, seq)
        marks = ", ".join("?" * len(row))
        self._db.execute(f"INSERT INTO inodes ({COLUMNS}) VALUES ({marks})", row)
        self.turnover += 1
        return attr._replace(change_seq=seq)

    def rolled_back(self) -> None:
        """A transaction was undone, perhaps the one that raised the ceiling: raise it again."""
        self._folder = None
        self._ceiling = self._next
        self.undone += 1

    def set_aside(self, db: Database) -> None:
        """Raise the ceiling on a connection that syncs, before the first number is given."""
        self._ceiling = self._next + NUMBERS
        db.execute(_CEILING, (self._ceiling,))

    def _number(self) -> InodeNo:
        """A number never given before, also not by a transaction that was rolled back or lost."""
        if self._next + NUMBERS // 2 >= self._ceiling:
            # Durable with the next sync, long before the numbers below the old ceiling run out.
            self._ceiling = self._next + NUMBERS
            self._db.execute(_CEILING, (self._ceiling,))
        self._next += 1
        return InodeNo(self._next - 1)

    def put(self, attr: Attr) -> Attr:
        """Write mode, owner, size, blocks, times, pool and dirty; return it as it is now."""
        self._forget(attr.ino)
        seq = self.next_seq()
        self._db.change(
            _PUT,
            (attr.mode, attr.uid, attr.gid, attr.size, attr.blocks, attr.atime_ns, attr.mtime_ns,
             attr.ctime_ns, attr.pool, int(attr.dirty), seq, attr.ino),
        )
        return attr._replace(change_seq=seq)

    def touch(self, ino: int, now_ns: int, links: int = 0) -> None:
        """A folder's content changed now, with links more (or less) folders in it."""
        self._db.change(_TOUCH, (now_ns, now_ns, links, ino))
        folder = self._folder
        if folder is not None and folder.ino == ino:
            self._folder = folder.with_links(
                folder.nlink + links, now_ns, now_ns, folder.change_seq
            )

    def add_links(self, attr: Attr, count: int, now_ns: int) -> Attr:
        """Add count (may be negative) to nlink; ctime is now. The inode as it is then.

        One that lost its last name keeps its place in the order of changes: nobody asks for it.
        """
        self._forget(attr.ino)
        if not attr.nlink + count:
            self._db.change(_LAST, (now_ns, attr.ino))
            return attr.with_links(0, attr.mtime_ns, now_ns, attr.change_seq)
        seq = self.next_seq()
        self._db.change(_LINK, (count, now_ns, seq, attr.ino))
        return attr.with_links(attr.nlink + count, attr.mtime_ns, now_ns, seq)

    def _forget(self, ino: int) -> None:
        if self._folder is not None and self._folder.ino == ino:
            self._folder = None

    def set_dirty(self, ino: InodeNo, pool: PoolId) -> None:
        """The file in the pool will be truer than the row from now on."""
        self._db.execute("UPDATE inodes SET dirty = 1, pool = ? WHERE ino = ?", (pool, ino))

    def set_pool(self, ino: InodeNo, pool: PoolId | None) -> None:
        """The resident bytes are in pool now."""
        self._db.execute("UPDATE inodes SET pool = ? WHERE ino = ?", (pool, ino))

    def set_state(self, ino: InodeNo, state: FileState) -> None:
        """Set the file's state and its place in the order of changes."""
        self._db.execute(
            "UPDATE inodes SET state = ?, change_seq = ? WHERE ino = ?",
            (int(state), self.next_seq(), ino),
        )

    def set_pinned(self, ino: InodeNo, pinned: bool) -> None:
        """Keep on disk for ever, or no longer."""
        self._db.execute(
            "UPDATE inodes SET pinned = ?, change_seq = ? WHERE ino = ?",
            (int(pinned), self.next_seq(), ino),
        )

    def set_locked(self, ino: InodeNo, locked: int) -> None:
        """Why the file's bytes and names must not change from now on (states.Lock)."""
        self._db.execute(
            "UPDATE inodes SET locked = ?, change_seq = ? WHERE ino = ?",
            (int(locked), self.next_seq(), ino),
        )

    def came_in(self, attr: Attr, absent: Sequence[Range]) -> None:
        """Bytes are on disk again: what is absent still; pool, blocks and state as attr says."""
        self.set_absent(attr.ino, absent)
        self._db.execute(
            "UPDATE inodes SET pool = ?, blocks = ?, state = ?, change_seq = ? WHERE ino = ?",
            (attr.pool, attr.blocks, attr.state, self.next_seq(), attr.ino),
        )

    def set_size(self, ino: InodeNo, size: int) -> None:
        """Bytes, of a dirty inode whose pool file may be gone."""
        self._db.execute("UPDATE inodes SET size = ? WHERE ino = ?", (size, ino))

    def set_blocks(self, ino: InodeNo, blocks: int) -> None:
        """512-byte units on disk."""
        self._db.execute("UPDATE inodes SET blocks = ? WHERE ino = ?", (blocks, ino))

    def set_version(self, ino: InodeNo, version: DataVersion, base: DataVersion) -> None:
        """A new data version begins; absent ranges, if any, are those of base."""
        self._db.execute(
            "UPDATE inodes SET version = ?, base_version = ?, change_seq = ? WHERE ino = ?",
            (version, base, self.next_seq(), ino),
        )

    def set_absent(self, ino: InodeNo, ranges: Sequence[Range]) -> None:
        """Replace the absent ranges; ranges are in order and do not touch."""
        self._db.execute("DELETE FROM absent WHERE ino = ?", (ino,))
        for r in ranges:
            self._db.execute("INSERT INTO absent VALUES (?, ?, ?)", (ino, r.start, r.end))

    def delete(self, inos: Sequence[InodeNo]) -> list[tuple[InodeNo, PoolId | None]]:
        """Forget inodes that have no name: rows, xattrs, ranges and queue entries.

        Returns those there were, each with the pool that still has its bytes.
        """
        many = (json.dumps(inos),)
        for table in ("symlinks", "xattrs", "absent", "recalls", "migrations", "trash", "retained",
                      "retention_wishes", "held", "versions", "mismatches", "study_files",
                      "prefetched", "kept"):  # fmt: skip
            self._db.execute(f"DELETE FROM {table} WHERE ino IN {LISTED}", many)
        self._db.execute(f"DELETE FROM kept WHERE holder IN {LISTED}", many)
        rows = self._db.execute(
            f"DELETE FROM inodes WHERE ino IN {LISTED} RETURNING ino, pool", many
        ).fetchall()
        self.turnover -= len(rows)
        return [(InodeNo(ino), pool) for ino, pool in rows]
