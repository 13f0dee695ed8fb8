"""The catalog: one SQLite database that holds the namespace, where every byte is, and the queues.

How it is durable without an fsync on the event loop (docs/durability.md):

- All writes happen on the loop's thread, inside `async with catalog.write()`, a transaction that
  must not await. When it is left, its statements are in the redo log (redo.py), which is a copy in
  memory: kill -9 loses nothing. SQLite's own transaction stays open over many of them and is
  committed now and then, by a thread while the disks are busy (`commit`).
- `sync()` makes everything acknowledged before the call durable, shared by all who wait: what is
  new in the log is synced, and now and then a commit is made and the WAL synced (`_sync_wal`).
- The loop's connection never syncs. SQLite must sync the WAL's header when a checkpointed WAL
  starts anew (an old header before new frames would replay old pages). So a reader (`_pin`) keeps
  it from that, but in `checkpoint()`: in a thread, while the gate keeps writers waiting.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import apsw
import trio

from .. import clock, crash, durable, pressure
from ..errors import CatalogDamaged, CatalogInUse, HsmError, NotFound
from ..types import ROOT
from . import migrate, redo
from .adoptions import Adoptions
from .audit import AuditLog
from .connection import connect, connect_loop, damaged, faults
from .copies import Copies
from .foreign import Foreign
from .health import Health
from .history import History
from .inodes import Inodes
from .kept import Kept
from .lock import lock
from .namespace import Namespace
from .queues import Queues
from .redo import RedoLog
from .refreshes import Refreshes
from .reports import Reports
from .sets import Sets
from .studies import Studies
from .trash import Trash
from .vault import Vault
from .volumes import Volumes
from .xattrs import Xattrs

T = TypeVar("T")
FILE = "catalog.db"
READERS = 3
TOGETHER = 512
"""Transactions that one commit of SQLite's takes together; some milliseconds of work."""
WAL_HEADER = 32
"""Bytes of the WAL before its first frame."""
CACHE_KIB = 64 * 1024
"""Pages that the loop's connection keeps: the folders in use and the ends of the indices."""


class Catalog:
    """An open catalog. Made by `Catalog.create` or `Catalog.open`; closed by `close`.

    Attributes:
        inodes, names, xattrs, copies, volumes, sets, health, refreshes, queues, studies, trash,
            history, kept, adoptions, audit: tables by job; what writes needs `write()`.
        commits: transactions acknowledged since the catalog was opened.
        durable: those of them that a power cut cannot undo any more.
    """

    def __init__(self, state: Path, lock_fd: int) -> None:
        self.path = state / FILE
        self._lock_fd = lock_fd
        self.db = connect_loop(self.path, CACHE_KIB)
        self._keeper = connect(self.path, synchronous="FULL")
        with faults(self.path):
            migrate.upgrade(self._keeper, str(self.path))
            self._redo = RedoLog(state)
            self._recover()
        self._pins = [connect(self.path, readonly=True, cache=64) for _ in range(2)]
        self._readers = [connect(self.path, readonly=True) for _ in range(READERS)]
        self._free_readers = trio.Semaphore(READERS)
        self._gate, self._idle = trio.Event(), trio.Event()
        self._gate.set()
        self._lent: trio.Event | None = None
        self._committer = clock.Beside("committer")
        self._wal_fd = os.open(f"{self.path}-wal", os.O_RDWR | os.O_CREAT, 0o600)
        self._syncing: trio.Event | None = None
        self._checkpoint_lock = trio.Lock()
        self.commits = self.durable = self._depth = self._pending = self._reading = 0
        self._undone = self._torn = False
        self._acts: list[Callable[[], object]] = []
        self._write = Transaction(self)
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
        self.studies = Studies(self.db)
        self.trash = Trash(self.db, self.inodes)
        self.history = History(self.db)
        self.kept = Kept(self.db)
        self.adoptions = Adoptions(self.db)
        self.vault = Vault(self.db)
        self.foreign = Foreign(self.db)
        self.audit = AuditLog(self.db)

    @classmethod
    def create(cls, state: Path, *, uid: int = 0, gid: int = 0) -> Catalog:
        """Make an empty catalog in the folder state, durable when this returns.

        One whose making was cut off is finished. Raises CatalogInUse if there is one already.
        """
        if cls.complete(state):
            raise CatalogInUse(
                f"{state} holds a catalog already", next_step="choose an empty folder"
            )
        state.mkdir(parents=True, exist_ok=True)
        catalog = cls(state, lock(state))
        if catalog.inodes.get_raw(ROOT) is None:
            catalog._enter()
            now = clock.now_ns()
            catalog.inodes.insert_root(uid, gid, now)
            for fact in ("created_ns", now), ("archive", str(uuid.uuid4())):
                catalog.db.execute("INSERT INTO meta VALUES (?, ?)", fact)
            catalog._acknowledge()
            catalog._commit_here()
        os.fsync(catalog._wal_fd)
        durable.sync(state)
        return catalog

    @staticmethod
    def complete(state: Path) -> bool:
        """True if the folder holds a catalog, be it damaged; one never finished is none."""
        path = state / FILE
        if not path.exists():
            return False
        try:
            db = connect(path, readonly=True)
            try:
                return bool(db.execute("SELECT 1 FROM meta WHERE key = 'created_ns'").fetchall())
            finally:
                db.close()
        except apsw.SQLError:  # no such table
            return False
        except (apsw.Error, HsmError):
            return True

    @classmethod
    def open(cls, state: Path) -> Catalog:
        """Open the catalog in the folder state.

        Raises NotFound, CatalogInUse, SchemaTooNew or CatalogDamaged.
        """
        if not (state / FILE).exists():
            raise NotFound(f"no catalog in {state}", next_step="make one with 'hsmctl init'")
        lock_fd = lock(state)
        try:
            catalog = cls(state, lock_fd)
            with faults(catalog.path):
                root = catalog.inodes.get_raw(1)
            if root is None:
                if cls.complete(state):
                    raise CatalogDamaged(f"catalog {catalog.path} has no root folder")
                raise NotFound(
                    f"the catalog in {state} was never finished",
                    next_step="run 'hsmctl init' again",
                )
            return catalog
        except BaseException:
            os.close(lock_fd)
            raise

    def write(self) -> Transaction:
        """`async with catalog.write():` a transaction; the body must not await. Nests.

        Entering may wait; leaving does not, and nothing that was done is lost to kill -9 then.
        """
        return self._write

    def if_undone(self, act: Callable[[], object]) -> None:
        """Inside `write()`: act puts memory back if the transaction fails; it must not raise.

        The last one given runs first, before any other task.
        """
        assert self._depth, "outside a transaction"
        self._acts.append(act)

    @property
    def committing(self) -> bool:
        """True while a thread commits: a query would wait for it."""
        return self._lent is not None

    async def settled(self) -> None:
        """Return when no thread commits: until this task awaits again, no query has to wait."""
        while self._lent is not None:
            await self._lent.wait()

    def _may_write(self) -> bool:
        return self._lent is None and self._gate.is_set() and self._pending < TOGETHER

    async def _writable(self) -> None:
        """Wait for what keeps writers off, or do it."""
        await self._gate.wait()
        with trio.CancelScope(shield=True):
            await self.settled()
            if self._pending >= TOGETHER and self._gate.is_set():
                await self.commit()

    def _enter(self) -> None:
        if self._undone:
            self._again()
        self.db.noted = []
        if not self.db.in_transaction:
            self.db.control("BEGIN IMMEDIATE")

    def _acknowledge(self) -> None:
        """The changes are in the redo log, or committed."""
        changes = self.db.noted
        if changes and self._redo.append(changes):
            self._pending += 1
            crash.point("catalog.noted")
        elif changes:
            self._commit_here(self._redo.beyond())
        elif not self._pending:
            self.db.control("ROLLBACK")
        self.db.noted = None
        self._acts.clear()
        self.commits += 1

    def _undo(self) -> None:
        """Undo the transaction that failed, and keep those before it."""
        changes, self.db.noted = self.db.noted, None
        while self._acts:
            self._acts.pop()()
        if changes or not self._pending or not self.db.in_transaction:
            self._again()

    def _again(self) -> None:
        """Back to what was acknowledged: the last commit, and what the redo log says came after.

        If that fails nothing is committed until it was tried again.
        """
        self._undone = True
        if self.db.in_transaction:
            self.db.control("ROLLBACK")
        self.inodes.rolled_back()
        self.names.rolled_back()
        self.audit.rolled_back()
        if self._pending:
            self.db.control("BEGIN IMMEDIATE")
            for statements in self._redo.records(self._redo.committed):
                for sql, values in statements:
                    self.db.control(sql, values)
        self._undone = False

    def _recover(self) -> None:
        """Commit what the log has and the database has not; durable."""
        found = self._keeper.execute("SELECT value FROM meta WHERE key = 'redo'").get
        with self._keeper:
            if found is not None:
                for statements in self._redo.records(found):
                    for sql, values in statements:
                        self._keeper.execute(sql, values)
            place = redo.new_place()
            self._keeper.execute("INSERT OR REPLACE INTO meta VALUES ('redo', ?)", (place,))
        self._redo.begin(place)

    async def commit(self) -> None:
        """Commit what is pending, for readers and the sync; by a thread while the disks are busy.

        A commit that fails changes nothing: all of it is still to be committed.
        """
        await self.settled()
        if not self._pending:
            return
        if pressure.DISK.busy():
            await self._commit_aside()
        else:
            sleeps = pressure.DISK.begin()
            self._commit_here()
            pressure.DISK.ended(sleeps)

    def _commit_here(self, place: int | None = None) -> None:
        """place: of the redo log, up to which it goes; its end by default."""
        if self._undone:
            self._again()
        place = place or self._redo.end
        try:
            self._end_transaction(place)
        except BaseException:
            self._again()
            raise
        self._pending = 0
        self._redo.commit(place)

    def _end_transaction(self, place: int) -> None:
        """On whichever thread has the connection."""
        with faults(self.path):
            self.db.control("UPDATE meta SET value = ? WHERE key = 'redo'", (place,))
            crash.point("catalog.commit.begun")
            self.db.control("COMMIT")
            crash.point("catalog.commit.done")

    async def _commit_aside(self) -> None:
        def commit() -> None:
            try:
                self._commit_here()
            finally:
                self.db.give_back()

        self._lent = over = trio.Event()
        self.db.lend()
        try:
            await self._committer.run(commit)
        finally:
            self._lent = None
            over.set()

    async def read(self, f: Callable[[Reports], T]) -> T:
        """Run f in a thread on a read-only snapshot, and return what it returns."""
        async with self._free_readers:
            await self._gate.wait()
            self._reading += 1
            reader = self._readers.pop()
            try:
                await self.commit()
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
        """Return when everything committed before the call is durable.

        Who comes while others wait for the disk is served with those who come until that is over.
        """
        wanted = self.commits
        while self.durable < wanted:
            if self._syncing is None:
                await self._sync_now()
            else:
                await self._syncing.wait()

    async def _sync_now(self) -> None:
        self._syncing = over = trio.Event()
        try:
            commits = self.commits
            if self._torn or not self._redo.whole or not await self._redo.flush():
                await self._sync_wal()
            self.durable = commits
        finally:
            self._syncing = None
            over.set()

    async def _sync_wal(self) -> None:
        # The kernel tells once of a page that it lost: what the WAL held goes another way.
        if self._torn and not await self.checkpoint():
            raise OSError("a sync of the catalog's WAL failed, and readers keep the WAL")
        await self.commit()
        place = self._redo.committed
        self._torn = True
        await durable.flushed(self._wal_fd, data_only=True)
        self._torn = False
        self._redo.anchor(place)

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
                await self.commit()
                if not await self._readers_left(patience):
                    return False
                return await clock.blocking(self._start_anew)
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

    def _start_anew(self) -> bool:
        before = self._wal_header()
        for pin in self._pins:
            if pin.in_transaction:
                pin.execute("ROLLBACK")
        self._copy_frames()
        self._mark()
        self._pin()
        return self._wal_header() != before

    def _wal_header(self) -> bytes:
        """Its salt changes when the WAL starts anew (sqlite.org/fileformat2.html section 4.1)."""
        return os.pread(self._wal_fd, WAL_HEADER, 0)

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

    def close(self) -> None:
        """Close; what was committed but not synced is as durable as the page cache."""
        self._committer.end()
        if self._pending:
            self._commit_here()
        self._redo.close()
        for db in (*self._pins, *self._readers, self.db, self._keeper):
            db.close()
        os.close(self._wal_fd)
        os.close(self._lock_fd)


class Transaction:
    """The write transaction of a catalog, entered by `async with`; nested entries join."""

    __slots__ = ("_catalog",)

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def __aenter__(self) -> None:
        catalog = self._catalog
        if not catalog._depth:
            while not catalog._may_write():
                await catalog._writable()
            catalog._enter()
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
            try:
                catalog._acknowledge()
            except BaseException:
                catalog._undo()
                raise
        else:
            catalog._undo()
            if error := damaged(catalog.path, fault):
                raise error from fault
