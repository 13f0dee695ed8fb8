"""A compressed copy of the whole catalog as of one moment, for the discs: when, and how.

Made by SQLite's backup on a reader's connection, so that writers go on meanwhile; blocking.
"""

from __future__ import annotations

import os
from pathlib import Path

import apsw
import zstandard

from ..errors import CatalogDamaged
from .connection import Database
from .reports import Reports

_PAGES = 4096
"""Pages copied at a time."""


def pages_bytes(reports: Reports) -> int:
    """Bytes of the catalog before compression."""
    return int(reports.db.pragma("page_count") * reports.db.pragma("page_size"))


def due(reports: Reports, every: int, small: int) -> int | None:
    """Discs that were burned since the last snapshot, if the next one shall carry one; else None.

    every: so many discs carry one. small: bytes of a catalog that costs next to nothing, and goes
    on every disc.
    """
    last = reports.db.execute("SELECT value FROM meta WHERE key = 'last_snapshot_ns'").get
    burned: int = reports.db.execute(
        "SELECT count(*) FROM volumes WHERE burned_ns > ?", (last or 0,)
    ).get
    due_ = last is None or burned + 1 >= every or pages_bytes(reports) <= small
    return burned if due_ else None


def note(db: Database, now_ns: int) -> None:
    """A disc with a snapshot was burned; in a write transaction."""
    db.execute("INSERT OR REPLACE INTO meta VALUES ('last_snapshot_ns', ?)", (now_ns,))


def write(
    reports: Reports, dest: Path, *, level: int = 3, next_ino: int | None = None, now_ns: int = 0
) -> int:
    """Write the catalog as reports sees it to dest, compressed with zstd; its bytes.

    For use inside `Catalog.read`. The plain copy lies beside dest meanwhile. Raises OSError.
    next_ino and now_ns: what a rebuild wants to know of the moment, before the snapshot was begun:
    an inode with a smaller number that is not in it had been deleted.
    """
    plain = dest.with_suffix(".plain")
    copy(reports, plain, next_ino=next_ino, now_ns=now_ns)
    return pack(plain, dest, level=level)


def pack(plain: Path, dest: Path, *, level: int = 3) -> int:
    """Compress a plain copy, which goes; bytes of dest. Raises OSError."""
    try:
        with plain.open("rb") as source, dest.open("wb") as out:
            zstandard.ZstdCompressor(level=level).copy_stream(
                source, out, size=plain.stat().st_size
            )
            return out.tell()
    finally:
        plain.unlink()


def copy(reports: Reports, plain: Path, *, next_ino: int | None, now_ns: int) -> None:
    """Copy the catalog as reports sees it to a plain database; see `write`. Raises OSError."""
    plain.unlink(missing_ok=True)
    db = apsw.Connection(str(plain))
    try:
        with db.backup("main", reports.db, "main") as backup:
            while not backup.done:
                backup.step(_PAGES)
        db.pragma("journal_mode", "delete")
        # The redo log that it names is not for the copy. Nor are tokens: one that is revoked later
        # must not come back with a rebuild.
        db.execute("DELETE FROM meta WHERE key = 'redo'")
        db.execute("DELETE FROM tokens")
        db.execute("DELETE FROM approvals")
        for key, value in (("snapshot_next_ino", next_ino), ("snapshot_ns", now_ns or None)):
            if value is not None:
                db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
    finally:
        db.close()


def unpack(snapshot: Path, dest: Path) -> None:
    """The catalog in a snapshot, as a plain file, durable. Raises CatalogDamaged, OSError."""
    try:
        with snapshot.open("rb") as source, dest.open("wb") as out:
            zstandard.ZstdDecompressor().copy_stream(source, out)
            out.flush()
            os.fsync(out.fileno())
    except zstandard.ZstdError as fault:
        raise CatalogDamaged(f"snapshot {snapshot} does not unpack: {fault}") from fault
