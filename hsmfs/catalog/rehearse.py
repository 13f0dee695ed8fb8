"""Compares what a disc says with a catalog in use: for the rehearsal of a rebuild."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import apsw

from .. import clock
from .check.ranges import WHOLE
from .connection import Database
from .draft import Draft, drop_deferred
from .draft_end import Ending, flatten


@dataclass(frozen=True, slots=True)
class BroughtBack:
    """Seconds that it took to make a catalog of a snapshot."""

    unpacking: float
    names: float
    pools: float
    """What the pools' files cost in the catalog, if all are as it says."""


def bring_back(packed: Path, path: Path, *, based: bool) -> BroughtBack:
    """Make a catalog at path of a snapshot, as a rebuild does. For threads.

    based: the rebuild begins with a snapshot, and so with its indexes.
    """
    times = [time.monotonic()]
    draft = Draft.begin(path, packed, clock.now_ns(), (0, 0))
    times.append(time.monotonic())
    ending = Ending(draft)
    if not based:
        drop_deferred(draft.db)
    ending.settle()
    times.append(time.monotonic())
    with draft.db:
        draft.db.execute(
            "INSERT INTO rebuild_pool SELECT ino, pool FROM inodes WHERE pool IS NOT NULL"
        )
    ending.drop_lost()
    times.append(time.monotonic())
    ending.seal()
    flatten(path)
    times.append(time.monotonic())
    unpacking, names, pools, sealing = (b - a for a, b in pairwise(times))
    return BroughtBack(unpacking, names + sealing, pools)


def in_pools(db: Database, since_ns: int) -> tuple[int, int]:
    """Files with bytes on disk, and bytes of those that changed since a time; looks at all."""
    row: tuple[int, int] = db.execute(
        "SELECT count(*), coalesce(sum(iif(ctime_ns >= ?, blocks * 512, 0)), 0)"
        " FROM inodes WHERE pool IS NOT NULL",
        (since_ns,),
    ).fetchall()[0]
    return row


def archived_files(db: Database) -> tuple[int, int]:
    """Files with a name, and those of which discs have a whole copy of the present version."""
    row: tuple[int, int] = db.execute(
        f"SELECT count(*), coalesce(sum(size = 0 OR {WHOLE}), 0)"
        " FROM inodes WHERE state IS NOT NULL AND nlink > 0"
    ).fetchall()[0]
    return row


def compare_disc(
    db: Database, volume: int, lines: Iterable[Any], places: Path
) -> tuple[int, int, list[str]]:
    """Compare a disc's manifest with a catalog: lines of files, those that agree, the others.

    lines: as `disc.lines.Line`; places: a database made by `places.write_places`.
    """
    disc: Database = apsw.Connection(str(places), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return _compare(db, volume, lines, disc)
    finally:
        disc.close()


def _compare(
    db: Database, volume: int, lines: Iterable[Any], disc: Database
) -> tuple[int, int, list[str]]:
    done, same, odd = 0, 0, list[str]()
    wanted = (
        "SELECT c.sector, c.stored, d.sha256 FROM copies c LEFT JOIN digests d ON d.ino = c.ino"
        " AND d.version = c.version WHERE c.ino = ? AND c.version = ? AND c.part = ?"
        " AND c.volume = ?"
    )
    for line in lines:
        if line.sha256 is None:
            continue
        done += 1
        rows = db.execute(wanted, (line.ino, line.version, line.part, volume)).fetchall()
        sector = disc.execute("SELECT sector FROM places WHERE path = ?", (line.stored_path,)).get
        if (sector, line.stored, line.sha256) in rows:
            same += 1
        elif len(odd) < 20:
            what = "other bytes or another place" if rows else "not in the catalog"
            odd.append(f"inode {line.ino} version {line.version}: {what}")
    return done, same, odd
