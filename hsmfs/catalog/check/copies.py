"""Invariants of copies: whole, apart from one another, and only on discs that can hold them.

CROSS JOIN has SQLite read the copies in their order and not disc by disc.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...states import CopyState, VolumeState
from ..connection import Database
from .finding import Finding, Severity, each, inode_finding, sql

_PENDING, _VALID, _DEAD, _DAMAGED = map(int, CopyState)
_BLANK, _BURNING, _FULL = map(int, (VolumeState.BLANK, VolumeState.BURNING, VolumeState.FULL))
_SET_STATE = "UPDATE copies SET state = ? WHERE id = ? AND state = ?"


def copies_have_volumes(db: Database) -> Iterator[Finding]:
    """A copy is on a volume that the catalog knows."""
    for copy, ino, volume in each(
        db, "SELECT id, ino, volume FROM copies WHERE volume NOT IN (SELECT id FROM volumes)"
    ):
        yield inode_finding(
            "copies_have_volumes", Severity.ERROR, ino,
            f"has a copy on volume number {volume}, which does not exist", "forget the copy",
            sql(
                "DELETE FROM copies WHERE id = ? AND volume NOT IN (SELECT id FROM volumes)", copy
            ),
        )  # fmt: skip


def valid_copies_are_on_burned_volumes(db: Database) -> Iterator[Finding]:
    """No copy counts on a disc that is blank or whose burn was not verified."""
    for copy, ino, barcode, state in each(
        db,
        "SELECT c.id, c.ino, v.barcode, v.state FROM copies c"
        " CROSS JOIN volumes v ON v.id = c.volume"
        f" WHERE c.state = {_VALID} AND v.state IN ({_BLANK}, {_BURNING})",
    ):
        yield inode_finding(
            "valid_copies_are_on_burned_volumes", Severity.ERROR, ino,
            f"has a copy on volume {barcode}, which is {VolumeState(state).name.lower()}",
            "mark the copy damaged", sql(_SET_STATE, _DAMAGED, copy, _VALID),
        )  # fmt: skip


def pending_copies_have_a_burn(db: Database) -> Iterator[Finding]:
    """A copy is pending only while its volume's burn is on the list."""
    for copy, ino, volume in each(
        db,
        f"SELECT id, ino, volume FROM copies WHERE state = {_PENDING}"
        " AND volume NOT IN (SELECT volume FROM burns)",
    ):
        yield inode_finding(
            "pending_copies_have_a_burn", Severity.ERROR, ino,
            f"has a copy pending on volume number {volume}, which is not being burned",
            "forget the copy; the file is archived again",
            sql(
                f"DELETE FROM copies WHERE id = ? AND state = {_PENDING}"
                " AND volume NOT IN (SELECT volume FROM burns)",
                copy,
            ),
        )  # fmt: skip


def copies_are_contiguous(db: Database) -> Iterator[Finding]:
    """The parts of a copy are numbered from 0 and follow one another from byte 0 to the end.

    Parts that are still to be burned may be missing: such a copy does not count.
    """
    last: tuple[int, ...] = ()
    previous: tuple[int, ...] | None = None
    for row in each(
        db,
        "SELECT ino, version, copy_no, part, parts, offset, length FROM copies"
        f" WHERE state IN ({_PENDING}, {_VALID})"
        # Of most files all copies are in one piece, and right: SQLite passes over them.
        " AND ino IN (SELECT ino FROM copies WHERE parts != 1 OR part != 0 OR offset != 0"
        "   OR length < 0) ORDER BY ino, version, copy_no, part, id",
    ):
        ino, version, copy_no, part, parts, offset, length = row
        key = row[:3]
        before = previous if key == last else None
        wrong = (
            not 0 <= part < parts
            or length < 0
            or (part == 0 and offset != 0)
            or (before is not None and before[4] != parts)
            or (before is not None and before[3] + 1 == part and before[5] + before[6] != offset)
        )
        if wrong:
            yield inode_finding(
                "copies_are_contiguous", Severity.ERROR, ino,
                f"part {part} of {parts} of copy {copy_no} of version {version}"
                f" does not fit: bytes {offset}..{offset + length}",
                "mark the copy damaged",
                sql(
                    f"UPDATE copies SET state = {_DAMAGED} WHERE ino = ? AND version = ?"
                    f" AND copy_no = ? AND state IN ({_PENDING}, {_VALID})",
                    ino, version, copy_no,
                ),
            )  # fmt: skip
        last, previous = key, row


def copies_end_with_the_version(db: Database) -> Iterator[Finding]:
    """The last part of a copy ends where its version ends, by the checksums."""
    for ino, version, copy_no, end, size in each(
        db,
        "SELECT c.ino, c.version, c.copy_no, c.offset + c.length, g.size FROM copies c"
        " LEFT JOIN digests g ON g.ino = c.ino AND g.version = c.version"
        f" WHERE c.state = {_VALID} AND c.part = c.parts - 1"
        " AND coalesce(g.size, -1) != c.offset + c.length",
    ):
        yield inode_finding(
            "copies_end_with_the_version", Severity.ERROR, ino,
            f"copy {copy_no} of version {version} has {end} bytes,"
            + (" and there are no checksums" if size is None else f" the version {size}"),
            "mark the copy damaged",
            sql(
                f"UPDATE copies SET state = {_DAMAGED} WHERE ino = ? AND version = ?"
                f" AND copy_no = ? AND state = {_VALID}",
                ino, version, copy_no,
            ),
        )  # fmt: skip


def copies_are_told_apart(db: Database) -> Iterator[Finding]:
    """A part of a copy is listed once, and two copies of a version are on different volumes."""
    for copy, ino, version, copy_no, other in each(
        db,
        "SELECT c.id, c.ino, c.version, c.copy_no, o.copy_no FROM copies c JOIN copies o"
        " ON o.ino = c.ino AND o.version = c.version AND o.id < c.id AND o.state = c.state"
        " AND ((o.copy_no = c.copy_no AND o.part = c.part)"
        "   OR (o.copy_no != c.copy_no AND o.volume = c.volume))"
        f" WHERE c.state = {_VALID} GROUP BY c.id",
    ):
        same = copy_no == other
        yield inode_finding(
            "copies_are_told_apart", Severity.ERROR, ino,
            f"copy {copy_no} of version {version} is "
            + ("listed twice" if same else f"on the same volume as copy {other}"),
            "mark the later one dead", sql(_SET_STATE, _DEAD, copy, _VALID),
        )  # fmt: skip


def copies_lie_on_the_disc(db: Database) -> Iterator[Finding]:
    """A copy's sectors are inside the closed image of its volume."""
    for ino, barcode, sector in each(
        db,
        "SELECT c.ino, v.barcode, c.sector FROM copies c CROSS JOIN volumes v ON v.id = c.volume"
        f" WHERE c.state = {_VALID} AND v.state = {_FULL} AND v.used > 0"
        " AND (c.sector < 0 OR c.stored < 0 OR c.sector * 2048 + c.stored > v.used)",
    ):
        yield inode_finding(
            "copies_lie_on_the_disc", Severity.ERROR, ino,
            f"has a copy at sector {sector} of volume {barcode}, beyond the image's end",
        )  # fmt: skip
