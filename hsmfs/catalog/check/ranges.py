"""Invariants of absent ranges and of the file's state, which must agree with copies on discs.

NOT INDEXED keeps SQLite off the index by state: in its order each inode is on another page.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...states import CopyState, FileState, VolumeState
from ..connection import Database
from .finding import Finding, Fix, Severity, each, inode_finding, sql

if TYPE_CHECKING:
    from ..catalog import Catalog

READABLE = ", ".join(
    str(int(state)) for state in (VolumeState.FULL, VolumeState.SUSPECT, VolumeState.EXPORTED)
)
_VALID = int(CopyState.VALID)
WHOLE = (
    "EXISTS (SELECT 1 FROM copies c JOIN volumes v ON v.id = c.volume WHERE c.ino = inodes.ino"
    f" AND c.version = inodes.version AND c.state = {_VALID} AND v.state IN ({READABLE})"
    " GROUP BY c.copy_no HAVING count(*) = max(c.parts))"
)
_ARCHIVED = (
    "(EXISTS (SELECT 1 FROM digests g WHERE g.ino = inodes.ino AND g.version = inodes.version)"
    f" AND {WHOLE})"
)
_ABSENT = "EXISTS (SELECT 1 FROM absent a WHERE a.ino = inodes.ino)"
_R, _P, _PART, _M = map(int, FileState)


def ranges_lie_in_the_file(db: Database) -> Iterator[Finding]:
    """An absent range is not empty and ends inside the file; a dirty one's size is not known."""
    for ino, start, end, size in each(
        db,
        'SELECT a.ino, a.start, a."end", i.size FROM absent a JOIN inodes i ON i.ino = a.ino'
        ' WHERE a.start < 0 OR a."end" <= a.start OR (i.dirty = 0 AND a."end" > i.size)',
    ):
        cut = 0 <= start < min(end, size)
        yield inode_finding(
            "ranges_lie_in_the_file", Severity.ERROR, ino,
            f"has the absent range {start}..{end}, its size is {size}",
            "clip it" if cut else "delete it",
            sql(
                'UPDATE absent SET "end" = ?3 WHERE ino = ?1 AND start = ?2', ino, start, size
            ) if cut else sql("DELETE FROM absent WHERE ino = ? AND start = ?", ino, start),
        )  # fmt: skip


def ranges_do_not_touch(db: Database) -> Iterator[Finding]:
    """Absent ranges of a file are apart, so that there is one way to write them down."""
    for ino, start, end, following, last in each(
        db,
        'SELECT a.ino, a.start, a."end", b.start, b."end" FROM absent a JOIN absent b'
        " ON b.ino = a.ino AND b.start = (SELECT min(start) FROM absent n"
        ' WHERE n.ino = a.ino AND n.start > a.start) WHERE b.start <= a."end"',
    ):
        yield inode_finding(
            "ranges_do_not_touch", Severity.ERROR, ino,
            f"has the absent ranges {start}..{end} and {following}..{last}", "join them",
            _join(ino, start, following, last),
        )  # fmt: skip


def states_agree_with_ranges(db: Database) -> Iterator[Finding]:
    """Resident and premigrated files have nothing absent, partial and migrated ones have."""
    for ino, state, absent in each(
        db,
        f"SELECT ino, state, {_ABSENT} AS gone FROM inodes NOT INDEXED"
        f" WHERE state IS NOT NULL AND (state IN ({_PART}, {_M})) != gone",
    ):
        name = FileState(state).name.lower()
        yield inode_finding(
            "states_agree_with_ranges", Severity.ERROR, ino,
            f"is {name} and has {'absent ranges' if absent else 'nothing absent'}",
            "set the state by its ranges and copies",
            sql(
                f"UPDATE inodes SET state = iif({_ABSENT}, {_PART}, iif({_ARCHIVED}, {_P}, {_R}))"
                " WHERE ino = ?",
                ino,
            ),
        )  # fmt: skip


def premigrated_are_on_discs(db: Database) -> Iterator[Finding]:
    """A premigrated file has checksums and a whole valid copy of its version on readable discs."""
    for (ino,) in each(
        db, f"SELECT ino FROM inodes NOT INDEXED WHERE state = {_P} AND NOT {_ARCHIVED}"
    ):
        yield inode_finding(
            "premigrated_are_on_discs", Severity.ERROR, ino,
            "is premigrated, but no whole copy is readable", "make it resident, to be archived",
            sql(
                f"UPDATE inodes SET state = {_R} WHERE ino = ? AND state = {_P}"
                f" AND NOT {_ARCHIVED}",
                ino,
            ),
        )  # fmt: skip


def absent_bytes_are_on_discs(db: Database) -> Iterator[Finding]:
    """Each absent byte is in a valid part of the base version on a readable disc."""
    for ino, start, end, version in each(
        db,
        'SELECT a.ino, a.start, min(a."end", iif(i.dirty, a."end", i.size)), i.base_version'
        " FROM absent a JOIN inodes i ON i.ino = a.ino WHERE NOT EXISTS (SELECT 1 FROM copies c"
        " JOIN volumes v ON v.id = c.volume WHERE c.ino = a.ino AND c.version = i.base_version"
        f" AND c.state = {_VALID} AND v.state IN ({READABLE}) AND c.offset <= a.start"
        ' AND c.offset + c.length >= min(a."end", iif(i.dirty, a."end", i.size)))',
    ):
        if at := _hole(db, ino, version, start, end):
            where = _volumes(db, ino, version)
            yield inode_finding(
                "absent_bytes_are_on_discs", Severity.LOSS, ino,
                f"byte {at - 1} of version {version} is not on disk and on no readable disc"
                + (f" (copies on {where})" if where else " (no copies)"),
            )  # fmt: skip


def base_versions_are_not_ahead(db: Database) -> Iterator[Finding]:
    """The version that holds the absent bytes is the present one or older."""
    for ino, version, base in each(
        db, "SELECT ino, version, base_version FROM inodes WHERE base_version > version"
        " OR base_version < 1",
    ):  # fmt: skip
        yield inode_finding(
            "base_versions_are_not_ahead", Severity.ERROR, ino,
            f"has version {version} and base version {base}", "make the base the version",
            sql("UPDATE inodes SET base_version = version WHERE ino = ?", ino),
        )  # fmt: skip


def _join(ino: int, start: int, following: int, last: int) -> Fix:
    def run(catalog: Catalog) -> None:
        catalog.db.execute("DELETE FROM absent WHERE ino = ? AND start = ?", (ino, following))
        catalog.db.execute(
            'UPDATE absent SET "end" = max("end", ?) WHERE ino = ? AND start = ?',
            (last, ino, start),
        )

    return run


def _hole(db: Database, ino: int, version: int, start: int, end: int) -> int:
    """1 + the first byte of [start, end) in no readable part; 0 if all are."""
    at = start
    for offset, length in each(
        db,
        "SELECT c.offset, c.length FROM copies c JOIN volumes v ON v.id = c.volume WHERE c.ino = ?"
        f" AND c.version = ? AND c.state = {_VALID} AND v.state IN ({READABLE}) ORDER BY c.offset",
        ino, version,
    ):  # fmt: skip
        if offset <= at:
            at = max(at, offset + length)
    return 0 if at >= end else at + 1


def _volumes(db: Database, ino: int, version: int) -> str:
    rows = db.execute(
        "SELECT DISTINCT v.barcode, v.state FROM copies c JOIN volumes v ON v.id = c.volume"
        " WHERE c.ino = ? AND c.version = ? ORDER BY v.barcode",
        (ino, version),
    )
    return ", ".join(f"{code} ({VolumeState(state).name.lower()})" for code, state in rows)
