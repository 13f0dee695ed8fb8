"""Time that has passed for an archive: all that it remembers is made so much older.

For tests and proofs of what is looked at from a later time; nobody has to wait, and no clock is
turned. The daemon is stopped for it and started again.
"""

from __future__ import annotations

import contextlib
import os

import apsw

from .tempfs import TempFs

_COLUMNS = {
    "inodes": ("atime_ns", "mtime_ns", "ctime_ns", "btime_ns"),
    "trash": ("deleted_ns", "purge_ns"),
    "name_moves": ("moved_ns",),
    "versions": ("mtime_ns", "ended_ns"),
    "kept": ("since_ns", "purge_ns"),
    "volumes": ("created_ns", "burned_ns", "verified_ns"),
}


def age(fs: TempFs, seconds: float) -> None:
    """Make inodes, trash, moves, versions, discs and pool files of a running hsmfs that much older.
    """
    fs.stop()
    by_ns = int(seconds * 1e9)
    with contextlib.closing(apsw.Connection(str(fs.folder / "state/catalog.db"))) as db, db:
        for table, columns in _COLUMNS.items():
            changes = ", ".join(f"{column} = {column} - {by_ns}" for column in columns)
            db.execute(f"UPDATE {table} SET {changes}")
    for path in (fs.pool / "data").rglob("*"):
        if path.is_file():
            then = path.stat().st_mtime_ns - by_ns
            os.utime(path, ns=(then, then))
    fs.start()
