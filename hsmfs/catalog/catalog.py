"""The catalog: one SQLite database that holds the namespace, where every byte is, and the queues.

How it is durable without an fsync on the event loop (docs/durability.md):

- All writes happen on the loop's thread, inside `async with catalog.write()`, a transaction that
  must not await. Its commit is a write to the page cache: kill -9 loses nothing. While the disks
  are busy even that may wait for them, so then a thread makes it (`write(aside=True)`).
- `sync()` makes everything committed before the call durable: fdatasync of the WAL in a thread,
  shared by all who wait.
- The loop's connection never syncs. SQLite would otherwise sync the WAL's header on the loop each
  time a checkpointed WAL starts anew, and that sync is needed: an old header before new frames
  would replay old pages. So a reader (`_pin`) keeps the WAL from starting anew, except inside
  `checkpoint()`, which does it in a thread while the gate keeps writers waiting, not blocked.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import apsw
import trio

from .. import clock, durable, pressure
from ..errors import CatalogDamaged, CatalogInUse, NotFound
from . import migrate
from .adoptions import Adoptions
from .connection import connect, connect_loop, damaged, faults
from .copies import Copies
from .foreign import Foreign
from .health import Health
from .inodes import Inodes
from .namespace import Namespace
from .queues import Queues
from .refreshes import Refreshes
from .reports import Reports
from .sets import Sets
from .trash import Trash
from .vault import Vault
from .volumes import Volumes
from .xattrs import Xattrs

T = TypeVar("T")
FILE = "catalog.db"
READERS = 3
CACHE_KIB = 64 * 1024
"""Pages that the loop's connection keeps: the folders in use and the ends of the indices."""


class Catalog:
    """An open catalog. Made by `Catalog.create` or `Catalog.open`; closed by `close`.

    Attributes:
        inodes, names, xattrs, copies, volumes, sets, health, refreshes, queues, trash, adoptions:
            the tables by job; their writing methods must be called inside `write()`.
        commits: transactions committed since the catalog was opened.
        durable: those of them that a power cut cannot undo any more.
    """

    def __init__(self, state: Path, lock_fd: int) -> None:
        self.path = state / FILE
        self._lock_fd = lock_fd
        self.db = connect_loop(self.path, CACHE_KIB)
        self._keeper = connect(self.path, synchronous="FULL")
        with faults(self.path):
            migrate.upgrade(self._keeper, str(self.path))
        self._pins = [connect(self.path, readonly=True, cache=64) for _ in range(2)]
        self._readers = [connect(self.path, readonly=True) for _ in range(READERS)]
        self._free_readers = trio.Semaphore(READERS)
        self._gate = trio.Event()
        self._gate.set()
        self._lent: trio.Event | None = None
        self._committer = clock.Beside("committer")
        self._reading = 0
        self._idle = trio.Event()
        self._wal_fd = os.open(f"{self.path}-wal", os.O_RDWR | os.O_CREAT, 0o600)
        self._sync_lock = trio.Lock()
        self._checkpoint_lock = trio.Lock()
        self._wanted = self._synced = 0
        self.commits = self.durable = 0
        self._depth = 0
        self._write = Transaction(self, aside=False)
        self._write_aside = Transaction(self, aside=True)
        self._mark()
        self._pin()
        self.inodes = Inodes(self.db)
        with faults(self.path), self._keeper:
            self.inodes.set_aside(self._keeper)
        self.xattrs = Xattrs(self.db)
        self.names = Namespace(self.db, self.inodes)
        self.copies = Copies(self.db)
        self.volumes = Volumes(self.db)
        self.sets = Sets(self.db)
        self.health = Health(self.db)
        self.refreshes = Refreshes(self.db)
        self.queues = Queues(self.db)
        self.trash = Trash(self.db, self.inodes)
        self.adoptions = Adoptions(self.db)
        self.vault = Vault(self.db)
        self.foreign = Foreign(self.db)

    @classmethod
    def create(cls, state: Path, *, uid: int = 0, gid: int = 0) -> Catalog:
        """Make an empty catalog in the folder state, durable when this returns.

        Raises Conflict by CatalogInUse if there is one already.
        """
        if (state / FILE).exists():
            raise CatalogInUse(
                f"{state} holds a catalog already", next_step="choose an empty folder"
            )
        state.mkdir(parents=True, exist_ok=True)
        catalog = cls(state, _lock(state))
        now = clock.now_ns()
        with catalog.db:
            catalog.inodes.insert_root(uid, gid, now)
            catalog.db.execute("INSERT INTO meta VALUES ('created_ns', ?)", (now,))
        os.fsync(catalog._wal_fd)
        durable.sync(state)
        return catalog

    @classmethod
    def open(cls, state: Path) -> Catalog:
        """Open the catalog in the folder state.

        Raises NotFound, CatalogInUse, SchemaTooNew or CatalogDamaged.
        """
        if not (state / FILE).exists():
            raise NotFound(f"no catalog in {state}", next_step="make one with 'hsmctl init'")
        lock_fd = _lock(state)
        try:
            catalog = cls(state, lock_fd)
            with faults(catalog.path):
                root = catalog.inodes.get_raw(1)
            if root is None:
                raise CatalogDamaged(f"catalog {catalog.path} has no root folder")
            return catalog
        except BaseException:
            os.close(lock_fd)
            raise

    def write(self, *, aside: bool = False) -> Transaction:
        """`async with catalog.write():` a transaction; the body must not await. Nests.

        aside: while the disks are busy it is committed in a thread, so leaving the block may let
        others run. They see the rows as they will be, so what is kept in memory about them must be
        changed in the body. The outermost block decides.
        """
        return self._write_aside if aside else self._write

    @property
    def committing(self) -> bool:
        """True while a thread commits: a query would wait for it."""
        return self._lent is not None

    async def settled(self) -> None:
        """Return when no thread commits: until this task awaits again, no query has to wait."""
        while self._lent is not None:
            await self._lent.wait()

    async def _may_write(self) -> None:
        while not (self._gate.is_set() and self._lent is None):
            await self._gate.wait()
            with trio.CancelScope(shield=True):
                await self.settled()

    async def _commit(self, *, aside: bool) -> None:
        try:
            if aside and pressure.DISK.busy():
                await self._commit_aside()
            else:
                began = time.monotonic_ns()
                with faults(self.path):
                    self.db.commit()
                pressure.DISK.took(time.monotonic_ns() - began)
        except BaseException:
            self._undo()
            raise
        self.commits += 1

    def _undo(self) -> None:
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")
        self.inodes.rolled_back()
        self.names.rolled_back()

    async def _commit_aside(self) -> None:
        """Others that wait run after this task, which is told first."""
        self._lent = over = trio.Event()
        committed, token = trio.Event(), trio.lowlevel.current_trio_token()
        fault: list[BaseException] = []

        def commit() -> None:
            try:
                with faults(self.path):
                    self.db.commit()
            except BaseException as found:
                fault.append(found)
            finally:
                self.db.give_back()
                token.run_sync_soon(committed.set)

        self.db.lend()
        self._committer.do(commit)
        with trio.CancelScope(shield=True):
            await committed.wait()
        self._lent = None
        over.set()
        if fault:
            raise fault[0]

    async def read(self, f: Callable[[Reports], T]) -> T:
        """Run f in a thread on a read-only snapshot, and return what it returns."""
        await self._gate.wait()
        async with self._free_readers:
            self._reading += 1
            reader = self._readers.pop()
            try:
                return await clock.blocking(lambda: self._read(reader, f))
            finally:
                self._readers.append(reader)
                self._reading -= 1
                if not self._reading:
                    self._idle.set()

    def _read(self, reader: apsw.Connection, f: Callable[[Reports], T]) -> T:
        with faults(self.path):
            reader.execute("BEGIN")
            try:
                return f(Reports(reader))
            finally:
                reader.execute("ROLLBACK")
        raise AssertionError("faults() swallows nothing")

    async def sync(self) -> None:
        """Return when everything committed before the call is durable."""
        self._wanted += 1
        mine = self._wanted
        async with self._sync_lock:
            if self._synced >= mine:
                return
            upto, commits = self._wanted, self.commits
            await clock.blocking(lambda: os.fdatasync(self._wal_fd))
            self._synced, self.durable = upto, commits

    def wal_bytes(self) -> int:
        """Bytes of the WAL file; it is reused, so this does not shrink."""
        return os.fstat(self._wal_fd).st_size

    async def checkpoint(self, *, patience: float = 1.0) -> bool:
        """Copy the WAL into the database and let it start anew. False if readers kept it busy.

        The bulk is copied while writers go on; only the last frames are copied behind the gate.
        """
        async with self._checkpoint_lock:
            self._pin()
            await clock.blocking(self._copy_frames)
            self._gate = trio.Event()
            try:
                await self.settled()
                if not await self._readers_left(patience):
                    return False
                await clock.blocking(self._start_anew)
                return True
            finally:
                self._gate.set()

    async def _readers_left(self, patience: float) -> bool:
        if self._reading:
            self._idle = trio.Event()
            with trio.move_on_after(patience):
                await self._idle.wait()
        return not self._reading

    def _copy_frames(self) -> None:
        with faults(self.path):
            self._keeper.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

    def _start_anew(self) -> None:
        for pin in self._pins:
            if pin.in_transaction:
                pin.execute("ROLLBACK")
        self._copy_frames()
        self._mark()
        self._pin()

    def _mark(self) -> None:
        """A write on the syncing connection: starts the WAL anew, header first, if it may."""
        with faults(self.path), self._keeper:
            self._keeper.execute(
                "INSERT INTO meta VALUES ('marks', 1)"
                " ON CONFLICT (key) DO UPDATE SET value = value + 1"
            )

    def _pin(self) -> None:
        """Hold a read mark at the WAL's end, so that no writer on the loop starts it anew."""
        old, new = self._pins
        new.execute("BEGIN")
        new.execute("SELECT value FROM meta WHERE key = 'marks'").fetchall()
        if old.in_transaction:
            old.execute("ROLLBACK")
        self._pins.reverse()
        assert self._pins[0].in_transaction

    def close(self) -> None:
        """Close; what was committed but not synced is as durable as the page cache."""
        self._committer.end()
        for db in (*self._pins, *self._readers, self.db, self._keeper):
            db.close()
        os.close(self._wal_fd)
        os.close(self._lock_fd)


class Transaction:
    """The write transaction of a catalog, entered by `async with`; nested entries join."""

    __slots__ = ("_aside", "_catalog")

    def __init__(self, catalog: Catalog, *, aside: bool) -> None:
        self._catalog, self._aside = catalog, aside

    async def __aenter__(self) -> None:
        catalog = self._catalog
        if not catalog._depth:
            if catalog._lent is not None or not catalog._gate.is_set():
                await catalog._may_write()
            catalog.db.execute("BEGIN IMMEDIATE")
        catalog._depth += 1

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        catalog = self._catalog
        catalog._depth -= 1
        if catalog._depth:
            return
        if fault is None:
            await catalog._commit(aside=self._aside)
        else:
            catalog._undo()
            if error := damaged(catalog.path, fault):
                raise error from fault


def _lock(state: Path) -> int:
    """The lock that keeps a second daemon off; held as long as the descriptor is open."""
    fd = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise CatalogInUse(f"catalog in {state} is in use by process {holder}") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Keep daemons and others off the folder. Raises CatalogInUse."""
    fd = _lock(state)
    try:
        yield
    finally:
        os.close(fd)
