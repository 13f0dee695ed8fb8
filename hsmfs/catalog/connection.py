"""Opens SQLite connections the way the catalog needs them, and turns SQLite's faults into ours."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import apsw

from ..errors import CatalogDamaged, CatalogInUse
from .redo import Statement

Database: TypeAlias = Any
"""An apsw.Connection. apsw types every column as a union of all SQLite types, so the tables' own
methods state what they return instead."""
DAMAGE = (apsw.CorruptError, apsw.NotADBError)
_LENT = ("execute", "one", "change")
_READING = frozenset("SWEP")
"""How SELECT, WITH (never before a change here), EXPLAIN and PRAGMA begin."""


class Connection(apsw.Connection):
    """One of SQLite's, with calls for what runs for each request.

    They share a cursor: to make one costs as much as most statements do.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._cursor = self.cursor()

    def one(self, sql: str, values: Any) -> Any:
        """The only row that a SELECT finds, as a tuple; None if there is none."""
        rows = self._cursor.execute(sql, values).fetchall()
        return rows[0] if rows else None

    def change(self, sql: str, values: Any) -> None:
        """Run a statement that changes something and returns nothing."""
        self._cursor.execute(sql, values)


class LoopConnection(Connection):
    """The event loop's connection. It notes what changes the catalog, for the redo log.

    A thread may borrow it to commit on. Meanwhile statements wait for it to come back, so nobody
    sees half a commit; who can wait without holding the loop up does so before (`Catalog.settled`).

    Attributes:
        noted: the changing statements since `Catalog.write` was entered; None outside.
        unknown: how often `execute` changed something, whatever it was.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._back = threading.Event()
        self.noted: list[Statement] | None = None
        self.unknown = 0

    def execute(self, sql: str, values: Any = (), **kwargs: Any) -> apsw.Cursor:  # type: ignore[override]
        """As apsw's. A statement that changes something must be inside `Catalog.write`."""
        if sql[0] in _READING:
            return super().execute(sql, values, **kwargs)
        assert self.noted is not None, f"outside a transaction: {sql}"
        self.unknown += 1
        cursor = super().execute(sql, values, **kwargs)
        self.noted.append((sql, values))
        return cursor

    def change(self, sql: str, values: Any) -> None:
        """As `execute`, of a statement that returns nothing and does what the caller knows: if it
        changes an inode, `Inodes` must be who runs it."""
        assert self.noted is not None, f"outside a transaction: {sql}"
        self._cursor.execute(sql, values)
        self.noted.append((sql, values))

    def control(self, sql: str, values: Any = ()) -> None:
        """Run what the redo log must not repeat: the ends of transactions, and its own records."""
        super().execute(sql, values)

    def lend(self) -> None:
        """On the loop, before the thread is asked."""
        self._back.clear()
        for name in _LENT:
            setattr(self, name, partial(self._later, name))

    def give_back(self) -> None:
        """By the thread, when it is done."""
        for name in _LENT:
            delattr(self, name)
        self._back.set()

    def _later(self, name: str, *args: Any, **kwargs: Any) -> Any:
        self._back.wait()
        return getattr(LoopConnection, name)(self, *args, **kwargs)


C = TypeVar("C", bound=Connection)


def connect(
    path: Path, *, readonly: bool = False, synchronous: str = "OFF", cache: int = 8 * 1024
) -> Connection:
    """An open connection in WAL mode without automatic checkpoints.

    cache: KiB of pages that it keeps.

    Raises CatalogDamaged if the file is not a sound SQLite database.
    """
    return _connect(Connection, path, readonly, synchronous, cache)


def connect_loop(path: Path, cache: int) -> LoopConnection:
    """As `connect`, for the event loop: it never syncs. docs/durability.md says who does."""
    return _connect(LoopConnection, path, readonly=False, synchronous="OFF", cache=cache)


def _connect(kind: type[C], path: Path, readonly: bool, synchronous: str, cache: int) -> C:
    flags = apsw.SQLITE_OPEN_URI | (
        apsw.SQLITE_OPEN_READONLY
        if readonly
        else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    )
    with faults(path):
        db = kind(str(path), flags=flags, statementcachesize=256)
        db.set_busy_timeout(10_000)
        if not readonly:
            db.pragma("journal_mode", "wal")
            db.pragma("wal_autocheckpoint", 0)
            db.pragma("synchronous", synchronous)
        db.pragma("cache_size", -cache)
        db.pragma("temp_store", "memory")
        # NORMAL checks cell sizes on each page read, so damage is an error and not a wrong answer.
        db.pragma("cell_size_check", 1)
    return db


def damaged(path: Path, fault: BaseException) -> CatalogDamaged | None:
    """The error of ours for a fault of SQLite that says so; None for all others."""
    if isinstance(fault, DAMAGE):
        return CatalogDamaged(f"catalog {path} is damaged: {fault}")
    return None


@contextmanager
def faults(path: Path) -> Iterator[None]:
    """Map SQLite's faults in the block to ours, naming the file."""
    try:
        yield
    except DAMAGE as fault:
        raise CatalogDamaged(f"catalog {path} is damaged: {fault}") from fault
    except apsw.BusyError as fault:
        raise CatalogInUse(f"catalog {path} is locked by another program: {fault}") from fault
    except apsw.CantOpenError as fault:
        raise CatalogDamaged(f"catalog {path} cannot be opened: {fault}") from fault
