"""Invariants of the file itself: SQLite's own, the schema, the root folder and the counters."""

from __future__ import annotations

from collections.abc import Iterator

import apsw

from ...types import ROOT
from .. import migrate
from ..connection import Database
from .finding import Finding, Severity, each, inode_finding, sql

_OBJECTS = "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL"


def file_is_sound(db: Database) -> Iterator[Finding]:
    """SQLite finds no fault in any page or index of the file (PRAGMA integrity_check)."""
    for (text,) in db.execute("PRAGMA integrity_check(100)"):
        if text != "ok":
            index = text.startswith(("row ", "wrong # of entries"))
            yield Finding(
                "file_is_sound", Severity.ERROR, "catalog", text,
                "build the indexes anew" if index else None,
                fix=sql("REINDEX") if index else None,
            )  # fmt: skip


def schema_is_expected(db: Database) -> Iterator[Finding]:
    """Every table and index is there and defined as this program defines it."""
    model = apsw.Connection(":memory:")
    for _, text in migrate.steps():
        model.execute(text)
    wanted = {(kind, name): text for kind, name, text in model.execute(_OBJECTS)}
    found = {(kind, name): text for kind, name, text in db.execute(_OBJECTS)}
    model.close()
    for (kind, name), text in wanted.items():
        if (kind, name) not in found:
            repairable = kind == "index"
            yield Finding(
                "schema_is_expected", Severity.ERROR, f"{kind} {name}", "is missing",
                "create it" if repairable else None,
                fix=sql(str(text)) if repairable else None,
            )  # fmt: skip
        elif found[kind, name] != text:
            yield Finding(
                "schema_is_expected", Severity.ERROR, f"{kind} {name}",
                "is not defined as this version of hsmfs defines it",
            )  # fmt: skip


def root_is_a_folder(db: Database) -> Iterator[Finding]:
    """Inode 1 is a folder and has no name."""
    for mode, names in each(
        db,
        "SELECT mode, (SELECT count(*) FROM dentries d WHERE d.ino = i.ino) FROM inodes i"
        " WHERE ino = ?",
        ROOT,
    ):
        if mode & 0o170000 != 0o040000:
            yield inode_finding(
                "root_is_a_folder", Severity.ERROR, ROOT, f"the root has mode {mode:o}",
                "make it a folder",
                sql("UPDATE inodes SET mode = 16384 | (mode & 4095), state = NULL WHERE ino = 1"),
            )  # fmt: skip
        if names:
            yield inode_finding(
                "root_is_a_folder", Severity.ERROR, ROOT, f"the root has {names} names",
                "take them away", sql("DELETE FROM dentries WHERE ino = 1"),
            )  # fmt: skip
        return
    yield inode_finding(
        "root_is_a_folder", Severity.ERROR, ROOT, "the root has no row",
        "make one, owned by root",
        sql(
            "INSERT OR IGNORE INTO inodes (ino, mode, uid, gid, nlink, size, atime_ns, mtime_ns,"
            " ctime_ns, btime_ns, change_seq) SELECT 1, 16877, 0, 0, 2, 4096, value, value, value,"
            " value, (SELECT coalesce(max(change_seq), 0) + 1 FROM inodes) FROM meta"
            " WHERE key = 'created_ns'"
        ),
    )  # fmt: skip


def counters_are_ahead(db: Database) -> Iterator[Finding]:
    """Inode numbers and cookies in use are below what was set aside, so none is given twice."""
    for key, table, column in (
        ("ino_ceiling", "inodes", "ino"),
        ("ino_ceiling", "adopted", "ino"),
        ("cookie_ceiling", "dentries", "id"),
    ):
        highest = db.execute(f"SELECT coalesce(max({column}), 0) FROM {table}").get
        ceiling = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).get or 0
        if highest and highest >= ceiling:
            yield Finding(
                "counters_are_ahead", Severity.ERROR, f"counter {key}",
                f"is {ceiling}, but {highest} is in use", "raise it",
                fix=sql(
                    "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (key)"
                    " DO UPDATE SET value = max(value, ?2)",
                    key, highest + 1,
                ),
            )  # fmt: skip
