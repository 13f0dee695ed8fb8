"""Invariants of work that is waiting: each request and burn has something left to do."""

from __future__ import annotations

from collections.abc import Iterator

from ...states import BurnState, CopyState, VolumeState
from ..connection import Database
from .finding import Finding, Severity, each, inode_finding, sql

_B, _V = BurnState, VolumeState
_AGREE: dict[BurnState, tuple[VolumeState, ...]] = {
    _B.PLANNED: (_V.BLANK, _V.BURNING),
    _B.STAGED: (_V.BLANK, _V.BURNING),
    _B.BURNING: (_V.BURNING,),
    _B.VERIFYING: (_V.BURNING,),
    _B.VERIFIED: tuple(v for v in _V if v not in (_V.BLANK, _V.BURNING)),
    _B.DONE: tuple(v for v in _V if v not in (_V.BLANK, _V.BURNING)),
}
"""States that a burn's volume may be in; a failed burn leaves any."""


def recalls_have_something_to_bring(db: Database) -> Iterator[Finding]:
    """A file that is asked for has absent bytes in the range."""
    for (ino,) in each(
        db,
        "SELECT r.ino FROM recalls r JOIN inodes i ON i.ino = r.ino WHERE NOT EXISTS"
        ' (SELECT 1 FROM absent a WHERE a.ino = r.ino AND a.start < r."end" AND a."end" > r.start)',
    ):
        yield inode_finding(
            "recalls_have_something_to_bring", Severity.NOTE, ino,
            "is asked for, but its bytes are on disk", "end the request",
            sql(
                "DELETE FROM recalls WHERE ino = ?1 AND NOT EXISTS (SELECT 1 FROM absent a"
                ' WHERE a.ino = ?1 AND a.start < recalls."end" AND a."end" > recalls.start)',
                ino,
            ),
        )  # fmt: skip


def migrations_are_of_this_version(db: Database) -> Iterator[Finding]:
    """A file that is to be archived is a regular file with a name, in the version asked for."""
    stale = (
        "NOT EXISTS (SELECT 1 FROM inodes i WHERE i.ino = migrations.ino AND i.nlink > 0"
        " AND i.state IS NOT NULL AND i.version = migrations.version)"
    )
    for ino, version in each(
        db, f"SELECT ino, version FROM migrations WHERE {stale} AND ino IN (SELECT ino FROM inodes)"
    ):
        yield inode_finding(
            "migrations_are_of_this_version", Severity.NOTE, ino,
            f"is to be archived in version {version}, which has passed", "end the request",
            sql(f"DELETE FROM migrations WHERE ino = ? AND {stale}", ino),
        )  # fmt: skip


def burns_agree_with_volumes(db: Database) -> Iterator[Finding]:
    """A burn's volume exists and is in a state that the burn's step explains."""
    for volume, step, state, barcode in each(
        db,
        "SELECT b.volume, b.state, v.state, v.barcode FROM burns b"
        " LEFT JOIN volumes v ON v.id = b.volume",
    ):
        name = f"volume {barcode or f'number {volume}'}"
        if state is None:
            yield Finding(
                "burns_agree_with_volumes", Severity.ERROR, name, "is being burned, but not known",
                "forget the burn", fix=sql("DELETE FROM burns WHERE volume = ?", volume),
            )  # fmt: skip
        elif step in _AGREE and state not in _AGREE[BurnState(step)]:
            burned = step in (_B.VERIFIED, _B.DONE)
            yield Finding(
                "burns_agree_with_volumes", Severity.ERROR, name,
                f"is {VolumeState(state).name.lower()}, but its burn is"
                f" {BurnState(step).name.lower()}",
                None if burned else "end the burn as failed",
                fix=None if burned else sql(
                    "UPDATE burns SET state = ?, error = 'ended by fsck' WHERE volume = ?"
                    " AND state = ?",
                    int(_B.FAILED), volume, step,
                ),
            )  # fmt: skip


def burning_volumes_have_a_burn(db: Database) -> Iterator[Finding]:
    """A volume is being burned only while the burn is on the list."""
    for volume, barcode in each(
        db,
        "SELECT id, barcode FROM volumes WHERE state = ? AND id NOT IN (SELECT volume FROM burns)",
        int(_V.BURNING),
    ):
        yield Finding(
            "burning_volumes_have_a_burn", Severity.ERROR, f"volume {barcode}",
            "is being burned, but nothing burns it", "mark it damaged: it may not be blank",
            fix=sql(
                "UPDATE volumes SET state = ?, reason = 'a burn was begun and never ended'"
                " WHERE id = ? AND state = ? AND id NOT IN (SELECT volume FROM burns)",
                int(_V.DAMAGED), volume, int(_V.BURNING),
            ),
        )  # fmt: skip


def volumes_are_described(db: Database) -> Iterator[Finding]:
    """A full volume has the uuid that is on the disc; a blank one holds nothing."""
    for (barcode,) in each(
        db, "SELECT barcode FROM volumes WHERE state = ? AND uuid IS NULL", int(_V.FULL)
    ):
        yield Finding(
            "volumes_are_described", Severity.ERROR, f"volume {barcode}", "is full without a uuid"
        )
    for barcode, count in each(
        db,
        "SELECT v.barcode, count(*) FROM volumes v JOIN copies c ON c.volume = v.id"
        " WHERE v.state = ? AND c.state = ? GROUP BY v.id",
        int(_V.BLANK), int(CopyState.DEAD),
    ):  # fmt: skip
        yield Finding(
            "volumes_are_described", Severity.ERROR, f"volume {barcode}",
            f"is blank, but {count} dead copies are on it",
        )


def moves_have_ended(db: Database) -> Iterator[Finding]:
    """No move of the robot is open; after a crash the next start compares and ticks off."""
    for _, barcode, src, dst in each(
        db, "SELECT id, barcode, src, dst FROM moves WHERE finished_ns IS NULL"
    ):
        yield Finding(
            "moves_have_ended", Severity.NOTE, f"volume {barcode}",
            f"was being moved from element {src} to {dst}",
        )  # fmt: skip


def adoptions_have_ended(db: Database) -> Iterator[Finding]:
    """No tree is half adopted; 'hsmctl adopt' with the same tree goes on."""
    for _, source, open_paths in each(
        db,
        "SELECT id, source, (SELECT count(*) FROM adopted d WHERE d.state = 0"
        " AND d.adoption = a.id) FROM adoptions a WHERE state != 1",
    ):
        yield Finding(
            "adoptions_have_ended", Severity.NOTE,
            f"tree {bytes(source).decode('utf-8', 'backslashreplace')}",
            f"is half adopted; {open_paths} files are being moved",
        )  # fmt: skip
