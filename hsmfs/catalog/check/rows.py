"""Invariants of rows that belong to an inode: they refer to one that exists and is of that kind."""

from __future__ import annotations

from collections.abc import Iterator

from ...states import CopyState, FileState, Lock
from ..connection import Database
from .finding import Finding, Severity, each, inode_finding, sql

_OWNED = ("symlinks", "xattrs", "absent", "recalls", "migrations", "trash", "held",
          "retention_wishes", "mismatches", "kept")  # fmt: skip


def rows_have_inodes(db: Database) -> Iterator[Finding]:
    """Targets, attributes, ranges, requests and trash refer to inodes that exist."""
    for table in _OWNED:
        for ino, count in each(
            db,
            f"SELECT ino, count(*) FROM {table} WHERE ino NOT IN (SELECT ino FROM inodes)"
            " GROUP BY ino",
        ):
            yield inode_finding(
                "rows_have_inodes", Severity.ERROR, ino,
                f"does not exist, but has {count} rows in {table}", "delete them",
                sql(
                    f"DELETE FROM {table} WHERE ino = ?1 AND ?1 NOT IN (SELECT ino FROM inodes)",
                    ino,
                ),
            )  # fmt: skip


def kept_versions_have_their_bytes(db: Database) -> Iterator[Finding]:
    """An older version that is kept without a disc is in an inode that exists and is as long."""
    for ino, version, holder, size in each(
        db,
        "SELECT k.ino, k.version, k.holder, i.size FROM kept k LEFT JOIN inodes i"
        " ON i.ino = k.holder WHERE k.holder != 0 AND (i.ino IS NULL"
        " OR i.version < k.holder_version"
        " OR (i.version = k.holder_version AND i.dirty = 0 AND i.size < k.size))",
    ):
        yield inode_finding(
            "kept_versions_have_their_bytes", Severity.ERROR, ino,
            f"had version {version}, which is to be in inode {holder}: "
            + ("that does not exist" if size is None else f"that has only {size} bytes"),
            "forget where it is", sql(
                "UPDATE kept SET holder = 0 WHERE ino = ? AND version = ? AND holder = ?",
                ino, version, holder,
            ),
        )  # fmt: skip


def locks_have_reasons(db: Database) -> Iterator[Finding]:
    """A file is locked as a record if it is one, and as held if a hold names it."""
    record, held = int(Lock.RECORD), int(Lock.HELD)
    is_record = "ino IN (SELECT ino FROM retained)"
    is_held = "ino IN (SELECT h.ino FROM held h JOIN holds o ON o.id = h.hold)"
    for ino, locked in each(
        db,
        f"SELECT ino, locked FROM inodes WHERE ((locked & {record}) != 0) != ({is_record})"
        f" OR ((locked & {held}) != 0) != ({is_held})",
    ):
        yield inode_finding(
            "locks_have_reasons", Severity.ERROR, ino,
            f"is locked as {locked}, which is not what retention and holds say", "lock it so",
            sql(
                f"UPDATE inodes SET locked = (locked & ~{record | held})"
                f" | iif({is_record}, {record}, 0) | iif({is_held}, {held}, 0) WHERE ino = ?",
                ino,
            ),
        )  # fmt: skip


def copies_have_inodes(db: Database) -> Iterator[Finding]:
    """A copy of a file that is gone is dead; one being burned is settled when the burn ends."""
    for ino, count in each(
        db,
        "SELECT ino, count(*) FROM copies WHERE ino NOT IN (SELECT ino FROM inodes)"
        " AND state NOT IN (?, ?) GROUP BY ino",
        int(CopyState.DEAD), int(CopyState.PENDING),
    ):  # fmt: skip
        yield inode_finding(
            "copies_have_inodes", Severity.ERROR, ino,
            f"does not exist, but {count} parts of copies count as alive", "mark them dead",
            sql(
                "UPDATE copies SET state = ?2 WHERE ino = ?1 AND state != ?3"
                " AND ?1 NOT IN (SELECT ino FROM inodes)",
                ino, int(CopyState.DEAD), int(CopyState.PENDING),
            ),
        )  # fmt: skip


def digests_have_a_use(db: Database) -> Iterator[Finding]:
    """Checksums are of a present version, or of one that has a copy somewhere."""
    for ino, version in each(
        db,
        "SELECT g.ino, g.version FROM digests g LEFT JOIN inodes i ON i.ino = g.ino"
        " WHERE (i.ino IS NULL OR g.version NOT IN (i.version, i.base_version)) AND NOT EXISTS"
        " (SELECT 1 FROM copies c WHERE c.ino = g.ino AND c.version = g.version)",
    ):
        yield inode_finding(
            "digests_have_a_use", Severity.NOTE, ino,
            f"has checksums of version {version}, which is nowhere", "delete them",
            sql(
                "DELETE FROM digests WHERE ino = ?1 AND version = ?2 AND NOT EXISTS"
                " (SELECT 1 FROM copies WHERE ino = ?1 AND version = ?2) AND NOT EXISTS"
                " (SELECT 1 FROM inodes WHERE ino = ?1 AND ?2 IN (version, base_version))",
                ino, version,
            ),
        )  # fmt: skip


def digests_are_whole(db: Database) -> Iterator[Finding]:
    """A checksum has 32 bytes, and there is one for each chunk of 4 MiB if there is more than one.

    Of a clean file that was archived the size is the checksums' size.
    """
    for ino, version, size in each(
        db,
        "SELECT ino, version, size FROM digests WHERE length(sha256) != 32 OR length(chunks) !="
        " iif(size > 4194304, (size + 4194303) / 4194304 * 32, 0)",
    ):
        yield inode_finding(
            "digests_are_whole", Severity.ERROR, ino,
            f"has broken checksums of version {version} ({size} bytes)",
        )  # fmt: skip
    for ino, size, summed in each(
        db,
        "SELECT i.ino, i.size, g.size FROM digests g JOIN inodes i ON i.ino = g.ino"
        " AND i.version = g.version WHERE i.dirty = 0 AND i.size != g.size",
    ):
        yield inode_finding(
            "digests_are_whole", Severity.ERROR, ino,
            f"has {size} bytes, but its checksums are of {summed}",
        )  # fmt: skip


def links_have_targets(db: Database) -> Iterator[Finding]:
    """A symbolic link has a target as long as its size, and nothing else has one."""
    for ino, mode in each(
        db,
        "SELECT i.ino, i.mode FROM inodes i LEFT JOIN symlinks s ON s.ino = i.ino"
        " WHERE ((i.mode & 61440) = 40960) != (s.ino IS NOT NULL)",
    ):
        link = mode & 0o170000 == 0o120000
        yield inode_finding(
            "links_have_targets", Severity.LOSS if link else Severity.ERROR, ino,
            "is a symbolic link without a target" if link else "has a target, but is no link",
            None if link else "delete the target",
            None if link else sql("DELETE FROM symlinks WHERE ino = ?", ino),
        )  # fmt: skip
    for ino, size, length in each(
        db,
        "SELECT i.ino, i.size, length(s.target) FROM inodes i JOIN symlinks s ON s.ino = i.ino"
        " WHERE i.size != length(s.target) AND (i.mode & 61440) = 40960",
    ):
        yield inode_finding(
            "links_have_targets", Severity.ERROR, ino,
            f"has size {size}, but a target of {length} bytes", "correct the size",
            sql("UPDATE inodes SET size = ? WHERE ino = ?", length, ino),
        )  # fmt: skip


def only_files_have_a_state(db: Database) -> Iterator[Finding]:
    """A state is kept of regular files, and only of them."""
    states = ", ".join(str(int(state)) for state in FileState)
    regular = "(mode & 61440) = 32768"
    for ino, is_file in each(
        db,
        f"SELECT ino, {regular} FROM inodes WHERE iif({regular},"
        f" state IS NULL OR state NOT IN ({states}), state IS NOT NULL)",
    ):
        absent = "EXISTS (SELECT 1 FROM absent a WHERE a.ino = inodes.ino)"
        value = f"iif({absent}, {int(FileState.PARTIAL)}, {int(FileState.RESIDENT)})"
        yield inode_finding(
            "only_files_have_a_state", Severity.ERROR, ino,
            "is a file without a state" if is_file else "is no file, but has a state",
            "set the state by its ranges" if is_file else "take the state away",
            sql(f"UPDATE inodes SET state = {value if is_file else 'NULL'} WHERE ino = ?", ino),
        )  # fmt: skip
