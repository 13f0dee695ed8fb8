"""Invariants of the tree: every name names something, and everything can be reached by its names.

What cannot be reached is never deleted: a repair gives it a name in /lost+found.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...types import ROOT
from ..connection import Database
from .finding import Finding, Severity, each, inode_finding, into_lost_found, sql

_DIR = "(mode & 61440) = 16384"


def names_have_inodes(db: Database) -> Iterator[Finding]:
    """Every name names an inode: no phantom."""
    for parent, cookie, ino in each(
        db, "SELECT parent, id, ino FROM dentries WHERE ino NOT IN (SELECT ino FROM inodes)"
    ):
        yield inode_finding(
            "names_have_inodes", Severity.ERROR, ino,
            f"has a name in folder {parent}, but no row", "take the name away",
            sql(
                "DELETE FROM dentries WHERE parent = ? AND id = ?"
                " AND ino NOT IN (SELECT ino FROM inodes)",
                parent, cookie,
            ),
        )  # fmt: skip


def names_lie_in_folders(db: Database) -> Iterator[Finding]:
    """Every name lies in an inode that exists and is a folder."""
    for parent, cookie, ino, others in each(
        db,
        "SELECT d.parent, d.id, d.ino, (SELECT count(*) FROM dentries o WHERE o.ino = d.ino)"
        f" FROM dentries d LEFT JOIN inodes i ON i.ino = d.parent WHERE NOT coalesce({_DIR}, 0)",
    ):
        alone = others == 1
        take = sql("DELETE FROM dentries WHERE parent = ? AND id = ?", parent, cookie)
        yield inode_finding(
            "names_lie_in_folders", Severity.ERROR, ino,
            f"has a name in inode {parent}, which is no folder",
            "move it to /lost+found" if alone else "take the name away",
            into_lost_found(ino) if alone else take,
        )  # fmt: skip


def folders_have_one_name(db: Database) -> Iterator[Finding]:
    """A folder has not more than one name."""
    for ino, count, keep in each(
        db,
        "SELECT d.ino, count(*), min(d.id) FROM dentries d JOIN inodes i ON i.ino = d.ino"
        f" WHERE {_DIR} GROUP BY d.ino HAVING count(*) > 1",
    ):
        yield inode_finding(
            "folders_have_one_name", Severity.ERROR, ino, f"is a folder with {count} names",
            "keep the oldest name", sql("DELETE FROM dentries WHERE ino = ? AND id > ?", ino, keep),
        )  # fmt: skip


def names_are_legal(db: Database) -> Iterator[Finding]:
    """A name is 1 to 255 bytes without '/' and NUL, and not '.' or '..'."""
    for parent, cookie, ino in each(
        db,
        "SELECT parent, id, ino FROM dentries WHERE length(name) NOT BETWEEN 1 AND 255"
        " OR instr(name, x'2f') OR instr(name, x'00') OR name IN (x'2e', x'2e2e')",
    ):
        yield inode_finding(
            "names_are_legal", Severity.ERROR, ino, f"has an illegal name in folder {parent}",
            f"rename it to '#{ino}.{cookie}'",
            sql(
                "UPDATE OR IGNORE dentries SET name = CAST(? AS BLOB) WHERE parent = ? AND id = ?",
                f"#{ino}.{cookie}", parent, cookie,
            ),
        )  # fmt: skip


def folders_are_reachable(db: Database) -> Iterator[Finding]:
    """Every folder that has a name, or names in it, lies below the root: no cycle, no island."""
    islands = {
        ino
        for (ino,) in each(
            db,
            "WITH RECURSIVE reached (ino) AS (VALUES (1) UNION SELECT d.ino FROM reached r"
            " JOIN dentries d ON d.parent = r.ino JOIN inodes i ON i.ino = d.ino"
            f" WHERE {_DIR}) SELECT ino FROM inodes i WHERE {_DIR} AND"
            " (nlink > 0 OR EXISTS (SELECT 1 FROM dentries d WHERE d.parent = i.ino))"
            " AND ino NOT IN reached",
        )
    }
    for ino in sorted(_tops(db, islands)):
        yield inode_finding(
            "folders_are_reachable", Severity.ERROR, ino, "is a folder not below the root",
            "move it to /lost+found", into_lost_found(ino),
        )  # fmt: skip


def _tops(db: Database, islands: set[int]) -> set[int]:
    """The highest folder of each island, or the smallest number of a cycle."""
    tops: set[int] = set()
    done: set[int] = set()
    for start in islands:
        way: list[int] = []
        ino = start
        while ino in islands and ino not in done and ino not in way:
            way.append(ino)
            ino = db.execute("SELECT parent FROM dentries WHERE ino = ?", (ino,)).get or 0
        if ino in way:
            tops.add(min(way[way.index(ino) :]))
        elif ino not in islands and way:
            tops.add(way[-1])
        done.update(way)
    return tops


def inodes_have_names(db: Database) -> Iterator[Finding]:
    """An inode with links has a name; folders are looked at by folders_are_reachable."""
    for ino, trashed in each(
        db,
        "SELECT ino, ino IN (SELECT ino FROM trash) FROM inodes i WHERE nlink > 0"
        f" AND NOT {_DIR} AND NOT EXISTS (SELECT 1 FROM dentries d WHERE d.ino = i.ino)",
    ):
        keep = sql("UPDATE inodes SET nlink = 0 WHERE ino = ?", ino)
        yield inode_finding(
            "inodes_have_names", Severity.ERROR, ino, "has links, but no name",
            "leave it to the trash" if trashed else "move it to /lost+found",
            keep if trashed else into_lost_found(ino),
        )  # fmt: skip


def link_counts_are_right(db: Database) -> Iterator[Finding]:
    """nlink is the number of names; of a folder 2 and its folders, 0 if it was removed."""
    right = (
        f"iif({_DIR}, iif(i.ino = {ROOT} OR EXISTS (SELECT 1 FROM dentries d WHERE d.ino = i.ino),"
        " 2 + (SELECT count(*) FROM dentries d JOIN inodes s ON s.ino = d.ino"
        "      WHERE d.parent = i.ino AND (s.mode & 61440) = 16384), 0),"
        " (SELECT count(*) FROM dentries d WHERE d.ino = i.ino))"
    )
    for ino, nlink, count in each(
        db,
        f"SELECT ino, nlink, {right} AS names FROM inodes i WHERE nlink != names"
        " AND (names > 0 OR nlink < 0)",
    ):
        yield inode_finding(
            "link_counts_are_right", Severity.ERROR, ino, f"has {nlink} links instead of {count}",
            "correct the count",
            sql(f"UPDATE inodes AS i SET nlink = {right} WHERE ino = ?", ino),
        )  # fmt: skip


def unlinked_are_in_the_trash(db: Database) -> Iterator[Finding]:
    """An inode without links is in the trash, has an older version of a file, or is open: after a
    crash it is an orphan.
    """
    for (ino,) in each(
        db,
        "SELECT ino FROM inodes i WHERE nlink = 0 AND ino NOT IN (SELECT ino FROM trash)"
        " AND ino NOT IN (SELECT holder FROM kept)"
        " AND NOT EXISTS (SELECT 1 FROM dentries d WHERE d.ino = i.ino)"
        " AND NOT EXISTS (SELECT 1 FROM dentries d WHERE d.parent = i.ino)",
    ):
        yield inode_finding(
            "unlinked_are_in_the_trash", Severity.NOTE, ino,
            "is an orphan: it was deleted for good while open", "delete it",
        )  # fmt: skip


def trash_holds_the_unlinked(db: Database) -> Iterator[Finding]:
    """What is in the trash has no name any more."""
    for (ino,) in each(
        db,
        "SELECT t.ino FROM trash t WHERE EXISTS (SELECT 1 FROM dentries d WHERE d.ino = t.ino)",
    ):
        yield inode_finding(
            "trash_holds_the_unlinked", Severity.ERROR, ino, "is in the trash, but has a name",
            "take it out of the trash",
            sql(
                "DELETE FROM trash WHERE ino = ?1 AND ?1 IN (SELECT ino FROM dentries)", ino
            ),
        )  # fmt: skip
