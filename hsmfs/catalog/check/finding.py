"""What a check yields: one thing that is not as it must be, and how it can be put right.

A repair looks again at what it changes, by the WHERE of its statement, so that one which comes late
does no harm. Relies on its caller for the write transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from ... import clock
from ...types import ROOT, InodeNo
from ..connection import Database

if TYPE_CHECKING:
    from ..catalog import Catalog

Fix = Callable[["Catalog"], None]
"""Called inside `catalog.write()`; changes a few rows."""
LOST_FOUND = b"lost+found"


class Severity(IntEnum):
    """How bad a finding is."""

    NOTE = 0
    """What a crash leaves behind; nothing is wrong for users, and a start or a repair tidies up."""
    ERROR = 1
    """The catalog contradicts itself or the disks."""
    LOSS = 2
    """Bytes are on no disk and on no readable disc."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it must be.

    Attributes:
        check: the invariant that does not hold, a name of `CHECKS`.
        object: what is wrong, such as "inode 42" or "volume S0001D03".
        message: what is wrong with it.
        repair: what a repair would do, or None if only a person can help.
        ino: the inode, if it is about one.
        fix: carries the repair out; None if `repair` is None or it is not the catalog's to do.
    """

    check: str
    severity: Severity
    object: str
    message: str
    repair: str | None = None
    ino: InodeNo | None = None
    fix: Fix | None = field(default=None, repr=False, compare=False)


Check = Callable[[Database], Iterable[Finding]]


def inode_finding(
    check: str,
    severity: Severity,
    ino: int,
    message: str,
    repair: str | None = None,
    fix: Fix | None = None,
) -> Finding:
    """A finding about an inode."""
    return Finding(check, severity, f"inode {ino}", message, repair, InodeNo(ino), fix)


def sql(statement: str, *values: object) -> Fix:
    """A fix by one statement."""

    def run(catalog: Catalog) -> None:
        catalog.db.execute(statement, values)

    return run


def each(db: Database, statement: str, *values: object) -> Iterator[tuple[Any, ...]]:
    """Rows of a statement."""
    yield from db.execute(statement, values)


def into_lost_found(ino: int) -> Fix:
    """Give an inode that cannot be reached the name '#number' in /lost+found, and only that."""

    def run(catalog: Catalog) -> None:
        now, names, inode = clock.now_ns(), catalog.names, InodeNo(ino)
        if catalog.inodes.get_raw(inode) is None:
            return
        folder = names.lookup(ROOT, LOST_FOUND)
        if folder is None:
            folder = names.create(ROOT, LOST_FOUND, 0o040700, 0, 0, now)
        catalog.db.execute("DELETE FROM dentries WHERE ino = ?", (ino,))
        catalog.trash.take(inode)
        name = b"#%d" % ino
        if folder.is_dir and names.lookup(folder.ino, name) is None:
            names.revive(inode, folder.ino, name, now)

    return run
