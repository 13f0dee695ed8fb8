"""Invariants of the file itself: SQLite's own, the schema, the root folder and the counters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import apsw

from ...types import ROOT
from .. import migrate
from ..connection import Database
from .finding import Finding, Severity, each, inode_finding, sql

_OBJECTS = "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL"


_P = (1 << 31) - 1
_MOST = 100
"""Lines that SQLite tells of a broken file."""


def file_is_sound(db: Database) -> Iterator[Finding]:
    """SQLite finds no fault in any page or row of the file (PRAGMA quick_check)."""
    yield from _told(db, "file_is_sound", f"PRAGMA quick_check({_MOST})")


def indexes_hold_their_tables(db: Database) -> Iterator[Finding]:
    """Each index has the rows of its table, and no others.

    SQLite's integrity_check looks each row up in each index, which is slow where they lie in
    another order. So indexes of numbers are read from end to end and their fingerprint is compared
    with the table's; integrity_check is left the others.
    """
    for table, bare in db.execute(
        "SELECT name, wr FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
        " AND name NOT LIKE 'sqlite_%'"
    ).fetchall():
        indexes = _indexes(db, table, without_rowid=bool(bare))
        if all(index.numbers for index in indexes):
            yield from _compare(db, table, indexes)
        else:
            yield from _told(db, "indexes_hold_their_tables", f"PRAGMA integrity_check({table})")


@dataclass(frozen=True, slots=True)
class _Index:
    """An index, the SQL of a row's fingerprint in it, which rows it has, and if all are numbers."""

    name: str
    mark: str
    where: str
    numbers: bool


def _indexes(db: Database, table: str, *, without_rowid: bool) -> list[_Index]:
    kinds = dict(db.execute("SELECT name, type FROM pragma_table_info(?)", (table,)))
    found = []
    for name, origin, text in db.execute(
        "SELECT l.name, l.origin, s.sql FROM pragma_index_list(?) l"
        " JOIN sqlite_schema s ON s.name = l.name",
        (table,),
    ).fetchall():
        if origin == "pk" and without_rowid:
            continue  # the table itself
        rows = db.execute("SELECT name FROM pragma_index_xinfo(?)", (name,)).fetchall()
        columns = [column or "rowid" for (column,) in rows]
        numbers = all(kinds.get(column, "INTEGER") == "INTEGER" for column in columns)
        where = text.partition(" WHERE ")[2] if text else ""
        found.append(_Index(name, _mark(columns), where or "1", numbers))
    return found


def _mark(columns: list[str]) -> str:
    """A number below _P that tells a row's numbers from any others' but once in two thousand
    millions. A square, as rows could have changed numbers among each other with the same sum."""
    terms = [
        f'coalesce("{name}" % {_P}, -7) * {48271 + 69621 * at}' for at, name in enumerate(columns)
    ]
    mixed = f"(({' + '.join(terms)}) % {_P})"
    return f"({mixed} * {mixed} % {_P})"


def _compare(db: Database, table: str, indexes: list[_Index]) -> Iterator[Finding]:
    if not indexes:
        return
    sums = ", ".join(
        f"count(*) FILTER (WHERE {one.where}), sum({one.mark}) FILTER (WHERE {one.where})"
        for one in indexes
    )
    ((*wanted,),) = db.execute(f"SELECT {sums} FROM {table} NOT INDEXED").fetchall()
    for at, index in enumerate(indexes):
        ((count, total),) = db.execute(
            f"SELECT count(*), sum({index.mark}) FROM {table} INDEXED BY {index.name}"
            f" WHERE {index.where}"
        ).fetchall()
        if [count, total] != wanted[2 * at : 2 * at + 2]:
            yield Finding(
                "indexes_hold_their_tables", Severity.ERROR, "catalog",
                f"index {index.name} does not hold the rows of table {table}",
                "build the index anew", fix=sql(f"REINDEX {index.name}"),
            )  # fmt: skip


def _told(db: Database, check: str, pragma: str) -> Iterator[Finding]:
    """What SQLite says of the file."""
    for (text,) in db.execute(pragma):
        if text != "ok":
            index = text.startswith(("row ", "wrong # of entries"))
            yield Finding(
                check, Severity.ERROR, "catalog", text, "build the indexes anew" if index else None,
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
