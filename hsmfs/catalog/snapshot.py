"""A compressed copy of the whole catalog as of one moment, for the discs.

Made by SQLite's backup on a reader's connection, so that writers go on meanwhile; blocking.
"""

from __future__ import annotations

import os
from pathlib import Path

import apsw
import zstandard

from ..errors import CatalogDamaged
from .reports import Reports

_PAGES = 4096
"""Pages copied at a time."""


def pages_bytes(reports: Reports) -> int:
    """Bytes of the catalog before compression."""
    return int(reports.db.pragma("page_count") * reports.db.pragma("page_size"))


def write(
    reports: Reports, dest: Path, *, level: int = 3, next_ino: int | None = None, now_ns: int = 0
) -> int:
    """Write the catalog as reports sees it to dest, compressed with zstd; its bytes.

    For use inside `Catalog.read`. The plain copy lies beside dest meanwhile. Raises OSError.
    next_ino and now_ns: what a rebuild wants to know of the moment, before the snapshot was begun:
    an inode with a smaller number that is not in it had been deleted.
    """
    plain = dest.with_suffix(".plain")
    plain.unlink(missing_ok=True)
    copy = apsw.Connection(str(plain))
    try:
        with copy.backup("main", reports.db, "main") as backup:
            while not backup.done:
                backup.step(_PAGES)
        copy.pragma("journal_mode", "delete")
        for key, value in (("snapshot_next_ino", next_ino), ("snapshot_ns", now_ns or None)):
            if value is not None:
                copy.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
    finally:
        copy.close()
    try:
        with plain.open("rb") as source, dest.open("wb") as out:
            zstandard.ZstdCompressor(level=level).copy_stream(
                source, out, size=plain.stat().st_size
            )
            return out.tell()
    finally:
        plain.unlink()


def unpack(snapshot: Path, dest: Path) -> None:
    """The catalog in a snapshot, as a plain file, durable. Raises CatalogDamaged, OSError."""
    try:
        with snapshot.open("rb") as source, dest.open("wb") as out:
            zstandard.ZstdDecompressor().copy_stream(source, out)
            out.flush()
            os.fsync(out.fileno())
    except zstandard.ZstdError as fault:
        raise CatalogDamaged(f"snapshot {snapshot} does not unpack: {fault}") from fault
