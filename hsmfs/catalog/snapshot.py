"""A compressed copy of the whole catalog as of one moment, for the discs.

Made by SQLite's backup on a reader's connection, so that writers go on meanwhile; blocking.
"""

from __future__ import annotations

from pathlib import Path

import apsw
import zstandard

from .reports import Reports

_PAGES = 4096
"""Pages copied at a time."""


def pages_bytes(reports: Reports) -> int:
    """Bytes of the catalog before compression."""
    return int(reports.db.pragma("page_count") * reports.db.pragma("page_size"))


def write(reports: Reports, dest: Path, *, level: int = 3) -> int:
    """Write the catalog as reports sees it to dest, compressed with zstd; its bytes.

    For use inside `Catalog.read`. The plain copy lies beside dest meanwhile. Raises OSError.
    """
    plain = dest.with_suffix(".plain")
    plain.unlink(missing_ok=True)
    copy = apsw.Connection(str(plain))
    try:
        with copy.backup("main", reports.db, "main") as backup:
            while not backup.done:
                backup.step(_PAGES)
        copy.pragma("journal_mode", "delete")
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
