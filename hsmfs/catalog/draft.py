"""A catalog that is being made again from what discs say, before it takes its place.

The newest snapshot is its base; then each disc that the snapshot does not hold is laid on it, the
oldest first, in batches of one transaction each that also says how far it is: a killed rebuild goes
on.
Who wins if two discs differ is written down in docs/rebuild.md. Blocking: for a thread of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import apsw

from ..states import CopyState, VolumeState
from ..types import ROOT
from . import draft_trust, migrate
from .connection import Database, connect, faults
from .draft_sql import (
    CLEAR,
    COLUMNS,
    DEFERRED,
    KNOWN,
    LINE,
    NEWER,
    OLDER,
    PLACED,
    STAGING,
    TABLES,
    UNPLACED,
)
from .namespace import FIRST_COOKIE
from .sets import Sets
from .snapshot import unpack
from .volumes import Volumes

BATCH = 20_000
"""Lines of a manifest in one transaction."""
FEW = 500
"""Lines in hand at once."""
CACHE_KIB = 96 * 1024
_WAL_PAGES = 16_384
DIRECTORY_SIZE = 4096
NAMES = 64
"""A manifest lists no more names of one inode: with so many, older ones may be true as well."""
_DIR, _FMT = 0o040000, 0o170000
_V = VolumeState
_ROW = len(COLUMNS.split(","))


@dataclass(frozen=True, slots=True)
class Disc:
    """A disc to be laid on the draft; times UTC ns, sizes bytes."""

    uuid: str
    barcode: str
    """On its label."""
    inside: str
    """In its VOLUME.json."""
    created_ns: int
    root_hash: str
    used: int
    capacity: int
    copy_no: int | None
    set_name: str | None
    """None if it is a set of its own."""
    set_uuid: str
    index: int
    """From 1."""
    k: int
    m: int
    audit_head: str | None = None
    """Of the audit chain, in its VOLUME.json."""
    archive: str | None = None
    """That wrote it, if it says so."""


class Draft:
    """An open draft in a folder. `Draft.begin` makes one or goes on with the one that is there.

    Attributes:
        sets, volumes: the draft's tables.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.db: Database = connect(path, cache=CACHE_KIB)
        self.db.pragma("synchronous", "NORMAL")
        self.db.pragma("wal_autocheckpoint", _WAL_PAGES)
        self.db.pragma("temp_store", "MEMORY")
        with faults(path):
            self.db.execute(STAGING)
        self.sets, self.volumes = Sets(self.db), Volumes(self.db)
        self._folders: dict[bytes, int] = {}

    @classmethod
    def begin(
        cls,
        path: Path,
        snapshot: Path | None,
        now_ns: int,
        owner: tuple[int, int],
        archive: str | None = None,
    ) -> Draft:
        """Open the draft at path, or make it from a snapshot (or from nothing).

        owner: of the root folder if there is no snapshot. archive: whose catalog it is, if discs
        say so. Raises CatalogDamaged, SchemaTooNew, OSError.
        """
        if path.exists():
            return cls(path)
        part = path.with_name(path.name + ".part")
        part.unlink(missing_ok=True)
        if snapshot is not None:
            unpack(snapshot, part)
        db: Database = apsw.Connection(str(part))
        with faults(path):
            migrate.upgrade(db, str(part))
            with db:
                _prepare(db, now_ns, owner, based=snapshot is not None)
                if archive is not None:
                    db.execute("INSERT OR REPLACE INTO meta VALUES ('archive', ?)", (archive,))
        db.close()
        part.rename(path)
        return cls(path)

    def close(self) -> None:
        """Let go of the file."""
        self.db.close()

    # What is known

    def fact(self, key: str) -> Any:
        """A small fact of `meta`, or None."""
        return self.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).get

    def applied(self) -> Mapping[str, int]:
        """Lines laid on of each disc by barcode; -1 if all of them are."""
        return dict(self.db.execute("SELECT barcode, lines FROM rebuild_discs").fetchall())

    # Discs

    def apply(
        self, disc: Disc, folders: Mapping[bytes, int], lines: Iterable[Any], places: Path
    ) -> Iterator[int]:
        """Lay a disc on; yields the lines done after each batch.

        folders: inodes of its folders by path; lines: as `disc.lines.Line`; places: a database
        made by `write_places`. Raises CatalogDamaged.
        """
        done = self.applied().get(disc.barcode, 0)
        if done < 0:
            return
        with faults(self.path):
            volume = self._volume(disc, fresh=not done)
            self._folders = {b"": int(ROOT), **folders}
            self.db.execute("ATTACH ? AS disc", (f"file:{places}?mode=ro&immutable=1",))
            try:
                rest = islice(lines, done, None)
                while True:
                    with self.db:
                        if not (more := self._lay_on(islice(rest, BATCH), volume, disc)):
                            break
                        done += more
                        self._note(disc.barcode, done)
                    yield done
            finally:
                self.db.execute("DETACH disc")
            with self.db:
                self._note(disc.barcode, -1)

    def _note(self, barcode: str, lines: int) -> None:
        self.db.execute("INSERT OR REPLACE INTO rebuild_discs VALUES (?, ?)", (barcode, lines))

    def add_unread(self, barcode: str, capacity: int, reason: str, now_ns: int) -> None:
        """A disc that does not say what it is: it must never be taken for blank, nor for sound."""
        with faults(self.path), self.db:
            self.db.execute(
                "INSERT INTO volumes (barcode, state, reason, capacity, created_ns)"
                " VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (barcode) DO UPDATE"
                " SET state = iif(state = ?8, ?9, ?2), reason = ?3, former = NULL"
                " WHERE state IN (?6, ?7, ?8, ?10)",
                (barcode, int(VolumeState.DAMAGED), reason, capacity, now_ns,
                 int(VolumeState.BLANK), int(VolumeState.BURNING), int(VolumeState.FULL),
                 int(VolumeState.SUSPECT), int(VolumeState.LOST)),
            )

    def add_blank(self, barcode: str, capacity: int, now_ns: int) -> None:
        """A disc that is blank, whatever the snapshot says was begun on it."""
        with faults(self.path), self.db:
            self.db.execute(
                "INSERT INTO volumes (barcode, state, capacity, created_ns) VALUES (?1, ?2, ?3, ?4)"
                " ON CONFLICT (barcode) DO UPDATE SET state = ?2, uuid = NULL WHERE state = ?5",
                (barcode, int(VolumeState.BLANK), capacity, now_ns, int(VolumeState.BURNING)),
            )

    def see(self, places: Mapping[str, int]) -> list[str]:
        """Where the robot has each disc, by barcode; those that should be there and are not.

        A blank disc that is not there is lost, as for any inventory.
        """
        with faults(self.path), self.db:
            self.db.execute("UPDATE volumes SET element = NULL")
            # A disc that was lost is not where it was expected: the first inventory finds it again.
            self.db.executemany(
                f"UPDATE volumes SET element = ? WHERE barcode = ? AND state != {int(_V.LOST)}",
                [(element, barcode) for barcode, element in places.items()],
            )
            self.db.execute(
                "UPDATE volumes SET state = ?1, reason = ?2, former = ?3"
                " WHERE element IS NULL AND state = ?3 AND location = 'library'",
                (int(VolumeState.LOST), UNSEEN, int(VolumeState.BLANK)),
            )
            rows = self.db.execute(
                "SELECT barcode FROM volumes WHERE element IS NULL AND state IN (?, ?)"
                " AND location = 'library' ORDER BY barcode",
                (int(VolumeState.FULL), int(VolumeState.SUSPECT)),
            ).fetchall()
        return [barcode for (barcode,) in rows]

    def _volume(self, disc: Disc, *, fresh: bool) -> int:
        """The disc's row; at first what the snapshot had of its burn goes."""
        with self.db:
            inside = disc.inside if disc.inside != disc.barcode else None
            self.db.execute(
                "INSERT INTO volumes (barcode, uuid, state, reason, capacity, used, created_ns,"
                " burned_ns, root_hash, inside, audit_head)"
                " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, ?9, ?12)"
                " ON CONFLICT (barcode) DO UPDATE SET uuid = ?2, state = ?3, reason = ?4,"
                " used = ?6, burned_ns = ?7, verified_ns = NULL, root_hash = ?8, inside = ?9,"
                " audit_head = ?12"
                " WHERE uuid IS NOT ?2 OR state IN (?10, ?11)",
                (disc.barcode, disc.uuid, int(VolumeState.SUSPECT), UNPROVEN, disc.capacity,
                 disc.used, disc.created_ns, disc.root_hash, inside,
                 int(VolumeState.BLANK), int(VolumeState.BURNING), disc.audit_head),
            )  # fmt: skip
            volume = int(
                self.db.execute("SELECT id FROM volumes WHERE barcode = ?", (disc.barcode,)).get
            )
            if fresh:
                self.db.execute("DELETE FROM copies WHERE volume = ?", (volume,))
                self.db.execute("DELETE FROM burns WHERE volume = ?", (volume,))
            if disc.set_name is not None:
                self._join(disc, volume)
        return volume

    def _join(self, disc: Disc, volume: int) -> None:
        """Sets are told apart by uuid: one that was adopted may bear the name of ours."""
        self.db.execute(
            "INSERT INTO volume_sets (name, uuid, k, m, copy_no, created_ns)"
            " SELECT iif(EXISTS (SELECT 1 FROM volume_sets WHERE name = ?1),"
            " ?1 || '-' || substr(?2, 1, 8), ?1), ?2, ?3, ?4, ?5, ?6"
            " WHERE NOT EXISTS (SELECT 1 FROM volume_sets WHERE uuid = ?2)",
            (disc.set_name, disc.set_uuid, disc.k, disc.m, disc.copy_no or 1, disc.created_ns),
        )
        self.db.execute(
            "UPDATE volumes SET set_index = ?, set_id ="
            " (SELECT id FROM volume_sets WHERE uuid = ?) WHERE id = ?",
            (disc.index - 1, disc.set_uuid, volume),
        )

    # Lines

    def _lay_on(self, batch: Iterable[Any], volume: int, disc: Disc) -> int:
        """One batch, in the open transaction; its lines.

        They go into temporary tables few at a time, as memory that is used again is still in the
        processor's cache, and then statements work on all.
        """
        lines = names = files = 0
        while some := list(islice(batch, FEW)):
            files += sum(x.sha256 is not None for x in some)
            names += self._stage(some, lines)
            lines += len(some)
        if not lines:
            return 0
        facts = {
            "volume": volume, "created": disc.created_ns, "copy": disc.copy_no,
            "next": self.fact("snapshot_next_ino") or 0, "names": NAMES, "folder": DIRECTORY_SIZE,
            "seq": self.fact("rebuild_seq"), "cookie": self.fact("rebuild_cookie"),
            "valid": int(CopyState.VALID), "dead": int(CopyState.DEAD),
        }  # fmt: skip
        self._apply(facts, files)
        self._count("rebuild_seq", lines)
        self._count("rebuild_cookie", names)
        return lines

    def _stage(self, lines: list[Any], before: int) -> int:
        """Put lines into the temporary tables, behind so many; how many names they have."""
        names, xattrs, targets, folders = [], [], [], self._folders
        for n, x in enumerate(lines, before + 1):
            ino = x.ino
            for path in x.names:
                folder, _, name = path.rpartition(b"/")
                parent = folders.get(folder)
                names.append((n, self._folder(folder) if parent is None else parent, name, ino))
            if x.xattrs:
                xattrs += [(n, ino, name, value) for name, value in x.xattrs]
            if x.target:
                targets.append((n, ino, x.target))
        draft_trust.lay(self.db, [(x.ino, x.kept) for x in lines if x.kept])
        many = self.db.executemany
        many(LINE, [x[:_ROW] for x in lines])
        many("INSERT INTO temp.nm VALUES (?, ?, ?, ?)", names)
        many("INSERT INTO temp.xa VALUES (?, ?, ?, ?)", xattrs)
        many("INSERT INTO temp.tg VALUES (?, ?, ?)", targets)
        return len(names)

    def _apply(self, facts: dict[str, Any], files: int) -> None:
        """The statements on all lines; what can have nothing to do is passed over."""

        def run(statements: Iterable[str]) -> int:
            before = int(self.db.total_changes())
            for statement in statements:
                self.db.execute(statement, facts)
            return int(self.db.total_changes()) - before

        if run(KNOWN):
            run(OLDER)
        run(NEWER)
        if run([PLACED]) != files:
            run([UNPLACED])
        run(CLEAR)

    def _count(self, key: str, more: int) -> None:
        self.db.execute("UPDATE meta SET value = value + ? WHERE key = ?", (more, key))

    def _folder(self, path: bytes) -> int:
        """A folder that the disc has no line of: by its path as known so far, or a new one."""
        known = self._folders.get(path)
        if known is not None:
            return known
        above, _, name = path.rpartition(b"/")
        parent = self._folder(above)
        found = self.db.execute(
            "SELECT d.ino FROM dentries d JOIN inodes i ON i.ino = d.ino"
            f" WHERE parent = ? AND name = ? AND i.mode & {_FMT} = {_DIR}",
            (parent, name),
        ).get
        self._folders[path] = int(found) if found else self._new_folder(parent, name)
        return self._folders[path]

    def _new_folder(self, parent: int, name: bytes) -> int:
        """A folder of which only the path is known; its number is given at the end."""
        lowest = self.db.execute("SELECT min(ino) FROM inodes WHERE ino < 0").get or 0
        ino = int(lowest) - 1
        now = self.fact("created_ns")
        self.db.execute(
            "INSERT INTO inodes (ino, mode, uid, gid, nlink, size, atime_ns, mtime_ns, ctime_ns,"
            " btime_ns, change_seq) VALUES (?1, ?2, 0, 0, 2, ?3, ?4, ?4, ?4, ?4, 0)",
            (ino, _DIR | 0o755, DIRECTORY_SIZE, now),
        )
        self.db.execute("DELETE FROM dentries WHERE parent = ? AND name = ?", (parent, name))
        self.db.execute(
            "INSERT INTO dentries VALUES (?, (SELECT value FROM meta WHERE key = 'rebuild_cookie'),"
            " ?, ?)",
            (parent, name, ino),
        )
        self._count("rebuild_cookie", 1)
        return ino


UNSEEN = "not in the library when the catalog was made again"
UNPROVEN = "its manifest was read by a rebuild, its files not yet: verify it"


def _prepare(db: Database, now_ns: int, owner: tuple[int, int], *, based: bool) -> None:
    """The tables of a rebuild, in the same transaction as what they start from."""
    db.execute(TABLES)
    if not based:
        db.execute(
            "INSERT INTO inodes (ino, mode, uid, gid, nlink, size, atime_ns, mtime_ns, ctime_ns,"
            " btime_ns, change_seq) VALUES (1, ?, ?, ?, 2, ?, ?, ?, ?, ?, 1)",
            (_DIR | 0o755, *owner, DIRECTORY_SIZE, *[now_ns] * 4),
        )
        db.execute("INSERT INTO meta VALUES ('created_ns', ?)", (now_ns,))
        drop_deferred(db)
    for key, value in (
        ("rebuild_seq", "SELECT coalesce(max(change_seq), 0) + 1 FROM inodes"),
        ("rebuild_cookie", f"SELECT max(coalesce(max(id), 0) + 1, {FIRST_COOKIE}) FROM dentries"),
    ):
        db.execute(f"INSERT INTO meta VALUES (?, ({value}))", (key,))


def drop_deferred(db: Database) -> None:
    """Do without the indexes that the end makes."""
    for name in DEFERRED:
        db.execute(f"DROP INDEX {name}")


def covered_in(snapshot: Path, scratch: Path) -> tuple[str | None, dict[str, str]]:
    """The archive of a snapshot, and discs whose every copy it holds: barcode to uuid.

    Two may have one uuid: a disc that was made anew, and, before it, the one that it replaced.

    scratch: a name for its plain form. Raises CatalogDamaged, SchemaTooNew, OSError.
    """
    try:
        unpack(snapshot, scratch)
        db: Database = apsw.Connection(str(scratch), flags=apsw.SQLITE_OPEN_READONLY)
        with faults(scratch):
            migrate.check(db, str(scratch))
            rows = db.execute(
                "SELECT barcode, uuid FROM volumes v WHERE uuid IS NOT NULL AND state NOT IN (?, ?)"
                " AND id NOT IN (SELECT volume FROM burns) ORDER BY state IN (?, ?) DESC",
                tuple(map(int, (_V.BLANK, _V.BURNING, _V.LOST, _V.RETIRED))),
            ).fetchall()
            archive: str | None = Sets(db).archive
        db.close()
        return archive, dict(rows)
    finally:
        scratch.unlink(missing_ok=True)
