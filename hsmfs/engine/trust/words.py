"""Words for people: paths and times in messages and records."""

from __future__ import annotations

from datetime import UTC, datetime

from ...catalog.catalog import Catalog
from ...catalog.retention import FOREVER
from ...logs import printable


def path_of(catalog: Catalog, ino: int) -> str:
    """A path of an inode, safe to print; its number if it has none."""
    paths = catalog.names.paths(ino, 1)
    return printable(b"/" + paths[0]) if paths else f"inode {ino}"


def date(time_ns: int) -> str:
    """A time in ISO 8601, UTC."""
    if time_ns >= FOREVER:
        return "for ever"
    return datetime.fromtimestamp(time_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def until_words(until_ns: int, now_ns: int) -> str:
    """What a retention says now."""
    if until_ns <= now_ns:
        return "it is a record, whose bytes never change"
    return "retained for ever" if until_ns >= FOREVER else f"retained until {date(until_ns)}"
