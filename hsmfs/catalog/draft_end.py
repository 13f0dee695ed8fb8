"""The end of a rebuild: a draft that all discs were laid on becomes a catalog that passes fsck.

First the namespace (`settle`), then the bytes that pools still have (`take_resident` and its like,
called by who looks at the pools), then what is left without bytes (`drop_lost`), and `seal`. Each
may be done again after a crash. What does not come back is written to `rebuild_lost`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import apsw

from .. import clock
from ..states import CopyState, FileState, SetState, VolumeState
from ..types import ROOT, Attr, DataVersion, InodeNo, PoolId, Range
from . import draft_trust, migrate
from .audit import Record
from .check.ranges import READABLE
from .connection import faults
from .copies import Copies
from .draft import DIRECTORY_SIZE, Draft
from .inodes import NUMBERS, Inodes
from .past import BEGINS
from .paths import PathCache
from .volumes import Volumes

KEEP_NS = 365 * 86_400 * 10**9
"""A file whose path a later file has stays in the trash so long."""
_DIR = "(mode & 61440) = 16384"
_VALID, _PENDING, _DEAD = map(int, (CopyState.VALID, CopyState.PENDING, CopyState.DEAD))
_LOST_FOUND = b"lost+found"


class Lost(NamedTuple):
    """Something that does not come back as it was: kind in a word, path if there is one."""

    kind: str
    ino: int
    path: bytes | None
    note: str


class Ending:
    """Ends one draft.

    Attributes:
        inodes, copies, volumes: the draft's tables.
        snapshot_ns: when the snapshot was made, or None.
    """

    def __init__(self, draft: Draft) -> None:
        self.draft, self.db = draft, draft.db
        self.inodes, self.copies, self.volumes = (
            Inodes(draft.db), Copies(draft.db), Volumes(draft.db)
        )
        self.snapshot_ns: int | None = draft.fact("snapshot_ns")

    # The namespace

    def settle(self) -> None:
        """Queues, names, numbers and link counts, in one transaction. Raises CatalogDamaged."""
        with faults(self.draft.path), self.db:
            self._indexes()
            self._queues()
            self._sets()
            self._copy_numbers()
            self._numbers()
            self._nameless()
            self._links()
            self._counters()
            self._set(BEGINS, clock.now_ns())

    def _indexes(self) -> None:
        model = apsw.Connection(":memory:")
        for _, text in migrate.steps():
            model.execute(text)
        wanted = "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
        there = dict(self.db.execute(wanted).fetchall())
        for name, text in model.execute(wanted):
            if name not in there:
                self.db.execute(text)
        model.close()

    def _queues(self) -> None:
        """What was under way is not any more."""
        run = self.db.execute
        run("DELETE FROM burns")
        run("DELETE FROM recalls")
        run("DELETE FROM copies WHERE state = ?", (_PENDING,))
        run(
            "UPDATE volumes SET state = ?, reason = 'a burn was begun and never ended'"
            " WHERE state = ?",
            (int(VolumeState.DAMAGED), int(VolumeState.BURNING)),
        )
        for table in ("moves", "carries"):
            run(
                f"UPDATE {table} SET finished_ns = ?, ok = 0 WHERE finished_ns IS NULL",
                (clock.now_ns(),),
            )
        run("DELETE FROM trash WHERE ino IN (SELECT ino FROM dentries)")
        run("DELETE FROM verification")
        run("DELETE FROM kept")  # what the time before was is not known any more

    def _sets(self) -> None:
        """A set of which a parity disc is there is closed: what it lacks can be made anew."""
        self.draft.sets.one_a_place()
        self.db.execute(
            "UPDATE volume_sets SET state = ?1, closed_ns = (SELECT max(burned_ns) FROM volumes v"
            " WHERE v.set_id = volume_sets.id) WHERE m > 0 AND state != ?1 AND EXISTS (SELECT 1"
            " FROM volumes v WHERE v.set_id = volume_sets.id AND v.set_index >= k"
            " AND v.burned_ns IS NOT NULL)",
            (int(SetState.CLOSED),),
        )
        self.db.execute(
            "UPDATE set_parity SET file = '' WHERE set_id IN"
            " (SELECT id FROM volume_sets WHERE state = ?)",
            (int(SetState.CLOSED),),
        )

    def _copy_numbers(self) -> None:
        """A burn that was done again left two parts of one copy: each counts as its own."""
        twice = self.db.execute(
            "SELECT ino, version FROM copies WHERE state = ?"
            " GROUP BY ino, version, copy_no, part HAVING count(*) > 1",
            (_VALID,),
        ).fetchall()
        for ino, version in sorted(set(twice)):
            rows = self.db.execute(
                "SELECT id, copy_no, part FROM copies WHERE ino = ? AND version = ? AND state = ?"
                " ORDER BY id",
                (ino, version, _VALID),
            ).fetchall()
            top = max(number for _, number, _ in rows)
            seen: dict[tuple[int, int], int] = {}
            for copy, number, part in rows:
                times = seen.get((number, part), 0)
                seen[number, part] = times + 1
                if times:
                    self.db.execute(
                        "UPDATE copies SET copy_no = ? WHERE id = ?", (top + times, copy)
                    )

    def _numbers(self) -> None:
        """Folders known by their path alone get numbers that no disc has."""
        for (ino,) in self.db.execute("SELECT ino FROM inodes WHERE ino < 0").fetchall():
            new = self._number()
            for table, column in (("inodes", "ino"), ("dentries", "ino"), ("dentries", "parent")):
                self.db.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (new, ino))
            self._lose("folder", new, "its owner, mode and times are on no disc")

    def _number(self) -> InodeNo:
        top: int = self.db.execute(
            "SELECT max((SELECT coalesce(max(value), 0) FROM meta WHERE key = 'ino_ceiling'),"
            " (SELECT max(ino) + 1 FROM inodes), (SELECT coalesce(max(ino), 0) + 1 FROM copies))"
        ).get
        self._set("ino_ceiling", top + 1)
        return InodeNo(top)

    def _set(self, key: str, value: int) -> None:
        self.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def _nameless(self) -> None:
        """What lost its name to something newer: files to the trash, folders to /lost+found."""
        rows = self.db.execute(
            f"SELECT i.ino, {_DIR}, EXISTS (SELECT 1 FROM dentries c WHERE c.parent = i.ino)"
            " FROM inodes i WHERE nlink > 0 AND i.ino != 1 AND i.ino NOT IN"
            " (SELECT ino FROM dentries) AND i.ino NOT IN (SELECT ino FROM trash)"
        ).fetchall()
        for ino, folder, full in rows:
            last = self.db.execute(
                "SELECT parent, name, at_ns FROM rebuild_displaced WHERE ino = ?"
                " ORDER BY at_ns DESC LIMIT 1",
                (ino,),
            ).fetchall()
            if folder and not full:
                self._forget(ino)
            elif folder or not last:
                self.into_lost_found(InodeNo(ino))
                self._lose("folder" if folder else "file", ino, "its place is taken: /lost+found")
            else:
                parent, name, at_ns = last[0]
                self.db.execute("UPDATE inodes SET nlink = 0 WHERE ino = ?", (ino,))
                self.db.execute(
                    "INSERT INTO trash VALUES (?, ?, ?, ?, ?)",
                    (ino, parent, name, at_ns, clock.now_ns() + KEEP_NS),
                )
                self._lose("replaced", ino, "a later file has its path: it is in the trash", name)

    def into_lost_found(self, ino: InodeNo) -> None:
        """Give an inode the name #INO in /lost+found."""
        found = self.db.execute(
            "SELECT ino FROM dentries WHERE parent = 1 AND name = ?", (_LOST_FOUND,)
        ).get
        folder = int(found) if found else self._make_lost_found()
        self._name(folder, b"#%d" % ino, ino)

    def _make_lost_found(self) -> int:
        ino, now = self._number(), clock.now_ns()
        self.db.execute(
            "INSERT INTO inodes (ino, mode, uid, gid, nlink, size, atime_ns, mtime_ns, ctime_ns,"
            " btime_ns, change_seq) VALUES (?1, 16832, 0, 0, 2, ?2, ?3, ?3, ?3, ?3,"
            " (SELECT max(change_seq) + 1 FROM inodes))",
            (ino, DIRECTORY_SIZE, now),
        )
        self._name(int(ROOT), _LOST_FOUND, ino)
        self.db.execute("UPDATE inodes SET nlink = nlink + 1 WHERE ino = 1")
        return ino

    def _name(self, parent: int, name: bytes, ino: int) -> None:
        self.db.execute(
            "INSERT INTO dentries VALUES (?, (SELECT value FROM meta WHERE key = 'rebuild_cookie'),"
            " ?, ?)",
            (parent, name, ino),
        )
        self.db.execute("UPDATE meta SET value = value + 1 WHERE key = 'rebuild_cookie'")

    def _links(self) -> None:
        """nlink of everything that has names is counted anew."""
        self.db.execute(
            "UPDATE inodes SET nlink = c.links FROM"
            " (SELECT ino, count(*) AS links FROM dentries GROUP BY ino) c"
            f" WHERE inodes.ino = c.ino AND nlink != c.links AND NOT {_DIR}"
        )
        self.db.execute(
            "UPDATE inodes SET nlink = 2 WHERE"
            f" {_DIR} AND (ino = 1 OR ino IN (SELECT ino FROM dentries))"
        )
        self.db.execute(
            "UPDATE inodes SET nlink = 2 + c.folders FROM (SELECT d.parent, count(*) AS folders"
            f" FROM dentries d JOIN inodes s ON s.ino = d.ino WHERE (s.{_DIR[1:]}"
            " GROUP BY d.parent) c WHERE inodes.ino = c.parent"
        )

    def _counters(self) -> None:
        """Numbers that may have been given and are on no disc are never given again."""
        top = self._number()
        self._set("ino_ceiling", top + NUMBERS)
        cookie = self.draft.fact("rebuild_cookie")
        self._set("cookie_ceiling", max(cookie, self.draft.fact("cookie_ceiling") or 0) + 1)

    # Bytes that pools still have

    def register(self, name: str, tier: str, uuid: str) -> PoolId:
        """The number of a pool; one of that name with another uuid is gone and loses the name."""
        with self.db:
            self.db.execute(
                "UPDATE pools SET name = name || ' (lost ' || id || ')'"
                " WHERE name = ? AND uuid != ?",
                (name, uuid),
            )
            return self.volumes.register_pool(name, tier, uuid)

    def untouched(self, attr: Attr, pool: PoolId, changed_ns: int) -> bool:
        """True if the snapshot's row is still all the truth of that pool file."""
        return (
            attr.pool == pool and self.snapshot_ns is not None and changed_ns < self.snapshot_ns
        )

    def keep(self, ino: InodeNo, pool: PoolId) -> None:
        """The pool file is as the row says."""
        self.db.execute("INSERT OR IGNORE INTO rebuild_pool VALUES (?, ?)", (ino, pool))

    def take_resident(
        self, attr: Attr, pool: PoolId, blocks: int, absent: list[Range], *, archived: bool
    ) -> None:
        """The pool has bytes of the row's version; absent ranges are on discs alone."""
        state = FileState.PREMIGRATED if archived else FileState.RESIDENT
        if absent:
            whole = sum(r.length for r in absent) == attr.size
            state = FileState.MIGRATED if whole else FileState.PARTIAL
        self.db.execute(
            "UPDATE inodes SET pool = ?, blocks = ?, state = ? WHERE ino = ?",
            (pool, blocks, int(state), attr.ino),
        )
        self.inodes.set_absent(attr.ino, absent)
        self.keep(attr.ino, pool)

    def take_newer(self, attr: Attr, pool: PoolId, size: int, blocks: int, mtime_ns: int) -> None:
        """The bytes in the pool are of no archived version: they are a new one."""
        version = attr.version if self.copies.digest(attr.ino, attr.version) is None else (
            attr.version + 1
        )
        self.db.execute(
            "UPDATE inodes SET pool = ?, size = ?, blocks = ?, mtime_ns = max(mtime_ns, ?),"
            " version = ?, base_version = ?, state = ?, dirty = 0 WHERE ino = ?",
            (pool, size, blocks, mtime_ns, version, version, int(FileState.RESIDENT), attr.ino),
        )
        self.inodes.set_absent(attr.ino, ())
        self.keep(attr.ino, pool)

    def take_unknown(
        self, ino: InodeNo, pool: PoolId, size: int, blocks: int, mtime_ns: int
    ) -> None:
        """A pool file that no disc and no snapshot knows gets a name in /lost+found."""
        self.db.execute(
            "INSERT INTO inodes (ino, mode, uid, gid, nlink, size, blocks, atime_ns, mtime_ns,"
            " ctime_ns, btime_ns, state, pool, change_seq)"
            " VALUES (?1, 33152, 0, 0, 1, ?2, ?3, ?4, ?4, ?4, ?4, 0, ?5,"
            " (SELECT max(change_seq) + 1 FROM inodes))",
            (ino, size, blocks, mtime_ns, pool),
        )
        self.into_lost_found(ino)
        self.keep(ino, pool)
        self._lose("unnamed", ino, "its bytes are in a pool, its name is nowhere: /lost+found")

    def set_aside(self, ino: int, where: Path) -> None:
        """A pool file whose bytes nobody can vouch for lies in the pool's lost+found now."""
        self._lose("set aside", ino, f"its bytes on disk cannot be checked: {where}")

    # What is left without bytes

    def drop_lost(self) -> None:
        """Files whose pool file is gone: from discs, else in an older version, else lost."""
        with faults(self.draft.path), self.db:
            rows = self.db.execute(
                "SELECT ino, version, size, dirty FROM inodes WHERE state IS NOT NULL"
                " AND (pool IS NOT NULL OR (dirty = 1 AND size > 0))"
                " AND ino NOT IN (SELECT ino FROM rebuild_pool)"
                " AND (nlink > 0 OR ino IN (SELECT ino FROM trash))"
            ).fetchall()
            for ino, version, size, dirty in rows:
                self._without_pool(InodeNo(ino), version, size, bool(dirty))
            self.db.execute(
                "DELETE FROM pools WHERE NOT EXISTS"
                " (SELECT 1 FROM inodes WHERE pool = pools.id) AND name LIKE '% (lost %'"
            )
            self.db.execute(
                "DELETE FROM migrations WHERE NOT EXISTS (SELECT 1 FROM inodes i WHERE i.ino ="
                " migrations.ino AND i.nlink > 0 AND i.state IS NOT NULL"
                " AND i.version = migrations.version)"
            )
            self.db.execute(
                "DELETE FROM digests WHERE NOT EXISTS (SELECT 1 FROM copies c WHERE"
                " c.ino = digests.ino AND c.version = digests.version) AND NOT EXISTS"
                " (SELECT 1 FROM inodes i WHERE i.ino = digests.ino"
                " AND digests.version IN (i.version, i.base_version))"
            )
            self._incomplete()

    def _without_pool(self, ino: InodeNo, version: int, size: int, dirty: bool) -> None:
        best: int | None = self.db.execute(
            "SELECT max(version) FROM (SELECT c.version FROM copies c JOIN volumes v"
            f" ON v.id = c.volume WHERE c.ino = ? AND c.state = {_VALID}"
            f" AND v.state IN ({READABLE}) GROUP BY c.version, c.copy_no"
            " HAVING count(*) = max(c.parts))",
            (ino,),
        ).get
        empty = not size and not dirty
        if best is not None and (best == version or not empty):
            digest = self.copies.digest(ino, DataVersion(best))
            assert digest is not None
            whole = [Range(0, digest.size)] if digest.size else []
            state = FileState.MIGRATED if whole else FileState.PREMIGRATED
            if best != version or dirty:
                self._lose("older", ino, f"version {version} was on disk alone: it is {best} again")
            self.db.execute(
                "UPDATE inodes SET pool = NULL, blocks = 0, dirty = 0, state = ?, size = ?,"
                " version = ?, base_version = ? WHERE ino = ?",
                (int(state), digest.size, best, best, ino),
            )
            self.inodes.set_absent(ino, whole)
        elif empty:
            self.db.execute(
                "UPDATE inodes SET pool = NULL, blocks = 0, dirty = 0, state = 0 WHERE ino = ?",
                (ino,),
            )
            self.inodes.set_absent(ino, ())
        else:
            self._lose("lost", ino, f"its {size} bytes were on disk alone, and the pool is gone")
            self.db.execute("DELETE FROM dentries WHERE ino = ?", (ino,))
            self._forget(ino)

    def _incomplete(self) -> None:
        """Files of which not every byte is on a disc that was found."""
        rows = self.db.execute(
            "SELECT a.ino FROM absent a JOIN inodes i ON i.ino = a.ino WHERE NOT EXISTS"
            " (SELECT 1 FROM copies c JOIN volumes v ON v.id = c.volume WHERE c.ino = a.ino"
            f" AND c.version = i.base_version AND c.state = {_VALID} AND v.state IN ({READABLE})"
            ' AND c.offset <= a.start AND c.offset + c.length >= a."end")'
        ).fetchall()
        for (ino,) in rows:
            have = self.copies.readable(InodeNo(ino), self._base(ino))
            covered = sum({c.where.part: c.where.length for c in have}.values())
            size = self.db.execute("SELECT size FROM inodes WHERE ino = ?", (ino,)).get
            if covered < size:
                self._lose("incomplete", ino, f"only {covered} of {size} bytes are on these discs")

    def _base(self, ino: int) -> DataVersion:
        found = self.db.execute("SELECT base_version FROM inodes WHERE ino = ?", (ino,)).get
        return DataVersion(found)

    def _forget(self, ino: int) -> None:
        self.db.execute(
            "UPDATE copies SET state = ? WHERE ino = ? AND state = ?", (_DEAD, ino, _VALID)
        )
        self.inodes.set_locked(InodeNo(ino), 0)  # what is lost cannot be kept: it is listed
        self.inodes.delete([InodeNo(ino)])

    # The list, and the end

    def _lose(self, kind: str, ino: int, note: str, name: bytes | None = None) -> None:
        path = PathCache(self.db).path(InodeNo(ino)) or name
        self.db.execute("INSERT INTO rebuild_lost VALUES (?, ?, ?, ?)", (kind, ino, path, note))

    def lost(self) -> Iterator[Lost]:
        """What does not come back as it was, with what lies on no place of its disc."""
        for row in self.db.execute("SELECT kind, ino, path, note FROM rebuild_lost ORDER BY rowid"):
            yield Lost(*row)
        for ino, barcode in self.db.execute(
            "SELECT u.ino, v.barcode FROM rebuild_unplaced u JOIN volumes v ON v.id = u.volume"
        ):
            yield Lost("not on disc", ino, None, f"is in the manifest of {barcode}, not on it")

    def count_volumes(self) -> int:
        """Discs that hold or held something."""
        return int(self.db.execute("SELECT count(*) FROM volumes WHERE uuid IS NOT NULL").get)

    def count_inodes(self) -> tuple[int, int]:
        """Inodes of all kinds, and regular files among them."""
        row: tuple[int, int] = self.db.execute(
            "SELECT count(*), count(state) FROM inodes"
        ).fetchall()[0]
        return row

    def count_in_pools(self) -> int:
        """Files that have bytes on disk, as far as the draft knows."""
        return int(self.db.execute("SELECT count(*) FROM inodes WHERE pool IS NOT NULL").get)

    def audit(self, records: Sequence[Record]) -> None:
        """Take the audit records of discs over, and do again what they say of retention."""
        with faults(self.draft.path), self.db:
            _, gap = draft_trust.replay(self.db, records)
            if gap is not None:
                self._lose("audit", 0, f"the audit log's records from {gap} on are on no disc")
            draft_trust.finish(self.db)

    def seal(self) -> None:
        """No trace of the rebuild is left in the tables; everything is in the one file, durable."""
        with faults(self.draft.path):
            with self.db:
                for table in ("discs", "displaced", "unplaced", "pool", "lost"):
                    self.db.execute(f"DROP TABLE IF EXISTS rebuild_{table}")
                self.db.execute(
                    "DELETE FROM meta WHERE key LIKE 'rebuild_%' OR key LIKE 'snapshot_%'"
                )
            self.db.pragma("synchronous", "FULL")
            self.db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self.draft.close()


def flatten(path: Path) -> None:
    """Put all of a catalog that nobody has open into its one file, durable."""
    db = apsw.Connection(str(path))
    db.pragma("synchronous", "FULL")
    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    db.close()
