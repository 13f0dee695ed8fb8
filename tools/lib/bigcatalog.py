"""Fills a catalog with millions of files, in folders of a thousand, as years of scans leave them.

Rows are made by SQLite itself into the catalog's own schema, and its indexes are built at the end:
some ten million inodes in a few minutes. That what comes out is a true catalog is for fsck to say,
which the benchmark runs. Of each hundred files 60 are resident, 30 premigrated and 10 migrated.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import apsw

from hsmfs.catalog.catalog import FILE
from hsmfs.states import CopyState, FileState, VolumeState
from hsmfs.types import ROOT

FOLDER_FILES = 1000
DEPARTMENTS = 100
SIZE = 500_000
DAY_NS = 86_400 * 10**9
AGES_DAYS = 1100
FOLDERS_AT_ONCE = 500
DISC_USED = 290 * 10**9
FIRST_FOLDER = int(ROOT) + DEPARTMENTS + 1
FIRST_COOKIE = 16
"""Of a folder's names: no smaller one is given out."""

_DIR, _REG = 0o040755, 0o100644
_STATE = (
    f"CASE WHEN i % 10 < 6 THEN {int(FileState.RESIDENT)}"
    f" WHEN i % 10 < 9 THEN {int(FileState.PREMIGRATED)} ELSE {int(FileState.MIGRATED)} END"
)
_FILES = (  # k: folder, i: file in it, f: file in all
    "WITH RECURSIVE folders (k) AS (SELECT :first UNION ALL SELECT k + 1 FROM folders"
    " WHERE k + 1 < :last), names (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM names"
    f" WHERE i + 1 < {FOLDER_FILES})"
)
_INO = f"{FIRST_FOLDER} + k * {FOLDER_FILES + 1} + 1 + i"
_FOLDER = f"{FIRST_FOLDER} + k * {FOLDER_FILES + 1}"
_MTIME = f":now - ((k * {FOLDER_FILES} + i) * 48271 % {AGES_DAYS * 86_400}) * 1000000000 - i"
_COLUMNS = (
    "ino, mode, uid, gid, nlink, size, blocks, atime_ns, mtime_ns, ctime_ns, btime_ns, state, pool,"
    " change_seq"
)
_FILL = (
    f"{_FILES} INSERT INTO inodes ({_COLUMNS}) SELECT ino, {_REG}, 1000 + k % 7, 1000, 1, {SIZE},"
    f" iif(state = {int(FileState.MIGRATED)}, 128, 984), t, t, t, t, state, :pool, ino"
    f" FROM (SELECT {_INO} AS ino, {_STATE} AS state, {_MTIME} AS t, k, i FROM folders, names)",
    f"{_FILES} INSERT INTO dentries SELECT {_FOLDER}, {FIRST_COOKIE} + i,"
    f" CAST(printf('image-%06d.dcm', i) AS BLOB), {_INO} FROM folders, names",
    f"{_FILES} INSERT INTO absent SELECT {_INO}, 65536, {SIZE} FROM folders, names"
    " WHERE i % 10 = 9",
    f"{_FILES} INSERT INTO digests SELECT {_INO}, 1, {SIZE}, randomblob(32), x''"
    " FROM folders, names WHERE i % 10 >= 6",
    f"{_FILES} INSERT INTO copies (ino, version, copy_no, volume, state, part, parts, offset,"
    f" length, sector, stored) SELECT {_INO}, 1, 1, :disc + k % :discs, {int(CopyState.VALID)},"
    f" 0, 1, 0, {SIZE}, (k / :discs * {FOLDER_FILES} + i) * 245 % 140000000, {SIZE}"
    " FROM folders, names WHERE i % 10 >= 6",
)


def folder_ino(folder: int) -> int:
    """The inode of the folder of that number, from 0."""
    return FIRST_FOLDER + folder * (FOLDER_FILES + 1)


def folder_path(folder: int) -> str:
    """Its path from the root."""
    return f"/dept-{folder % DEPARTMENTS:02d}/study-{folder:07d}"


def fill(state: Path, count: int) -> float:
    """Add count files (a multiple of 1000) to the empty catalog in a folder; seconds it took.

    It must have a pool, and discs, which become full.
    """
    began = time.perf_counter()
    db: Any = apsw.Connection(str(state / FILE))
    db.pragma("journal_mode", "off")
    db.pragma("synchronous", "off")
    db.pragma("cache_size", -512 * 1024)
    indexes = db.execute(
        "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
        " AND tbl_name IN ('inodes', 'dentries', 'copies')"
    ).fetchall()
    for name, _ in indexes:
        db.execute(f"DROP INDEX {name}")
    disc, discs = db.execute("SELECT min(id), count(*) FROM volumes").fetchall()[0]
    facts = {
        "now": time.time_ns(), "disc": disc, "discs": discs,
        "pool": db.execute("SELECT min(id) FROM pools").get,
    }  # fmt: skip
    folders = count // FOLDER_FILES
    _folders(db, facts["now"], folders)
    for first in range(0, folders, FOLDERS_AT_ONCE):
        part = {"first": first, "last": min(folders, first + FOLDERS_AT_ONCE)}
        with db:
            for statement in _FILL:
                db.execute(statement, facts | part)
    with db:
        _counters(db, folders, facts["now"])
        for _, text in indexes:
            db.execute(text)
    db.pragma("journal_mode", "wal")
    db.close()
    with (state / FILE).open("rb+") as file:  # else the first to sync would wait for all of it
        os.fsync(file.fileno())
    return time.perf_counter() - began


def _folders(db: Any, now: int, folders: int) -> None:
    rows, names = [], []
    for n in range(DEPARTMENTS):
        ino, below = int(ROOT) + 1 + n, len(range(n, folders, DEPARTMENTS))
        rows.append((ino, _DIR, 0, 0, 2 + below, 4096, 0, now, now, now, now, None, None, ino))
        names.append((int(ROOT), FIRST_COOKIE + n, b"dept-%02d" % n, ino))
    with db:
        for n in range(folders):
            ino, parent = folder_ino(n), int(ROOT) + 1 + n % DEPARTMENTS
            rows.append((ino, _DIR, 0, 0, 2, 4096, 0, now, now, now, now, None, None, ino))
            names.append((parent, FIRST_COOKIE + n, b"study-%07d" % n, ino))
        db.executemany(f"INSERT INTO inodes ({_COLUMNS}) VALUES ({', '.join('?' * 14)})", rows)
        db.executemany("INSERT INTO dentries VALUES (?, ?, ?, ?)", names)


def _counters(db: Any, folders: int, now: int) -> None:
    ceilings = {
        "ino_ceiling": folder_ino(folders) + 1,
        "cookie_ceiling": FIRST_COOKIE + max(folders, FOLDER_FILES) + 1,
    }
    for key, value in ceilings.items():
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
    db.execute("UPDATE inodes SET nlink = 2 + ? WHERE ino = ?", (DEPARTMENTS, int(ROOT)))
    db.execute(
        "UPDATE volumes SET state = ?, uuid = 'uuid-' || id, used = ?, burned_ns = ?,"
        " verified_ns = ?, root_hash = 'none', capacity = max(capacity, ?)",
        (int(VolumeState.FULL), DISC_USED, now, now, DISC_USED),
    )
