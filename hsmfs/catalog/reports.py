"""Queries that look at many rows: only run in a thread, on a snapshot, through `Catalog.read`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from stat import S_IFDIR
from typing import NamedTuple

from ..states import CopyState, FileState
from ..types import Attr, InodeNo, PoolId
from .adoptions import Adoptions
from .audit import AuditLog
from .connection import Database
from .copies import Copies
from .health import Health
from .history import History
from .holds import Holds
from .inodes import PREFIXED, Inodes
from .kept import Kept
from .namespace import Namespace
from .paths import PathCache
from .queues import Queues
from .refreshes import Refreshes
from .retention import Retentions
from .sets import Sets
from .studies import Studies
from .trash import Trash
from .vault import Vault
from .volumes import Volumes
from .xattrs import Xattrs

_USED = "max(i.atime_ns, i.mtime_ns, i.btime_ns)"
"""When an inode i was used last."""
SCAN_SHARE = 1 / 8
"""If more of all rows are wanted, reading all of them in their order is faster."""


@dataclass(frozen=True, slots=True)
class Query:
    """What `find` looks for; None or () means any. Ages are UTC ns bounds, sizes bytes."""

    states: tuple[FileState, ...] = ()
    modified_before_ns: int | None = None
    modified_after_ns: int | None = None
    accessed_before_ns: int | None = None
    min_size: int | None = None
    max_size: int | None = None
    uids: tuple[int, ...] = ()
    gids: tuple[int, ...] = ()
    volume: int | None = None
    pool: int | None = None
    pinned: bool | None = None
    unqueued: bool = False
    """Only files that do not wait for a disc already."""


class Entry(NamedTuple):
    """A name in a folder: what `in_folder` says of it."""

    cookie: int
    name: bytes
    ino: InodeNo
    nlink: int
    size: int
    folder: int
    """1: it is a folder itself."""


@dataclass(frozen=True, slots=True)
class Place:
    """How far a search has come in the index by state and mtime."""

    dirty: int = 0
    state: int = 0
    mtime_ns: int = -(2**63)
    ino: int = 0


class Reports:
    """Long queries on one read-only connection; valid only inside the call that got it.

    Its tables are made when they are asked for: most reads need one, and to make them all costs as
    much as a short query.
    """

    def __init__(self, db: Database) -> None:
        self.db = db

    @cached_property
    def inodes(self) -> Inodes:
        return Inodes(self.db)

    @cached_property
    def names(self) -> Namespace:
        return Namespace(self.db, self.inodes)

    @cached_property
    def copies(self) -> Copies:
        return Copies(self.db)

    @cached_property
    def queues(self) -> Queues:
        return Queues(self.db)

    @cached_property
    def studies(self) -> Studies:
        return Studies(self.db)

    @cached_property
    def volumes(self) -> Volumes:
        return Volumes(self.db)

    @cached_property
    def vault(self) -> Vault:
        return Vault(self.db)

    @cached_property
    def sets(self) -> Sets:
        return Sets(self.db)

    @cached_property
    def health(self) -> Health:
        return Health(self.db)

    @cached_property
    def refreshes(self) -> Refreshes:
        return Refreshes(self.db)

    @cached_property
    def xattrs(self) -> Xattrs:
        return Xattrs(self.db)

    @cached_property
    def audit(self) -> AuditLog:
        return AuditLog(self.db)

    @cached_property
    def retention(self) -> Retentions:
        return Retentions(self.db)

    @cached_property
    def holds(self) -> Holds:
        return Holds(self.db)

    @cached_property
    def trash(self) -> Trash:
        return Trash(self.db, self.inodes)

    @cached_property
    def history(self) -> History:
        return History(self.db)

    @cached_property
    def kept(self) -> Kept:
        return Kept(self.db)

    def files(self, query: Query, *, limit: int = -1) -> Iterator[Attr]:
        """Regular files with a name that match, oldest mtime first within one state."""
        states = query.states or tuple(FileState)
        where, values = _conditions(query)
        where.append("i.dirty IN (0, 1)")
        where.append(f"i.state IN ({', '.join(str(int(s)) for s in states)})")
        sql = (
            f"SELECT {PREFIXED} FROM inodes i WHERE {' AND '.join(where)}"
            " ORDER BY i.state, i.mtime_ns LIMIT ?"
        )
        for row in self.db.execute(sql, (*values, limit)):
            yield Attr(*row)

    def page(self, query: Query, place: Place, limit: int) -> tuple[list[Attr], Place | None]:
        """Files that match, after a place, and the place to go on from; None at the end.

        Each page costs only its own rows: it follows the index by state and mtime.
        """
        states = sorted(query.states or tuple(FileState))
        found: list[Attr] = []
        for dirty, state in ((d, s) for d in (0, 1) for s in states):
            if (dirty, state) < (place.dirty, place.state):
                continue
            if (dirty, state) > (place.dirty, place.state):
                place = Place(dirty, state)
            # Two ranges of the index, and not one by (mtime_ns, ino) > (?, ?): SQLite takes the
            # first column of that alone, and files of one mtime may be millions.
            for step in ("i.mtime_ns = ? AND i.ino > ?", "i.mtime_ns > ?"):
                at = (place.mtime_ns, place.ino)[: step.count("?")]
                found += self._step(query, (dirty, int(state), *at), step, limit - len(found))
                if len(found) == limit:
                    return found, Place(dirty, state, found[-1].mtime_ns, found[-1].ino)
        return found, None

    def _step(
        self, query: Query, at: tuple[int, ...], step: str, limit: int
    ) -> list[Attr]:
        """Files that match in one range of the index by dirty, state and mtime."""
        where, values = _conditions(query)
        rows = self.db.execute(
            f"SELECT {PREFIXED} FROM inodes i WHERE i.dirty = ? AND i.state = ? AND {step}"
            f" AND {' AND '.join(where)} ORDER BY i.mtime_ns, i.ino LIMIT ?",
            (*at, *values, limit),
        )
        return [Attr(*row) for row in rows]

    def in_folder(self, query: Query, folder: InodeNo, after: int, limit: int) -> list[Entry]:
        """Names in one folder: all folders, and files that match; cookies greater than after."""
        where, values = _conditions(query)
        states = ", ".join(str(int(s)) for s in query.states or tuple(FileState))
        rows = self.db.execute(
            "SELECT d.id, d.name, i.ino, i.nlink, i.size, i.state IS NULL"
            " FROM dentries d CROSS JOIN inodes i ON i.ino = d.ino"
            " WHERE d.parent = ? AND d.id > ? AND"
            f" (i.state IS NULL AND (i.mode & 61440) = {S_IFDIR}"
            f" OR i.state IN ({states}) AND {' AND '.join(where)}) ORDER BY d.id LIMIT ?",
            (folder, after, *values, limit),
        )
        return [Entry(*row) for row in rows]

    def at_least(self, query: Query, number: int) -> bool:
        """True if so many files match, or more; looks at no more of them."""
        where, values = _conditions(query)
        states = ", ".join(str(int(s)) for s in query.states or tuple(FileState))
        count: int = self.db.execute(
            "SELECT count(*) FROM (SELECT 1 FROM inodes i WHERE i.dirty IN (0, 1)"
            f" AND i.state IN ({states}) AND {' AND '.join(where)} LIMIT ?)",
            (*values, number),
        ).get
        return count >= number

    def weigh(self, query: Query) -> tuple[int, int]:
        """Files that match, and their bytes; by the index alone if state, mtime and size decide."""
        where, values = _conditions(query)
        states = ", ".join(str(int(s)) for s in query.states or tuple(FileState))
        found: tuple[int, int] = self.db.execute(
            "SELECT count(*), coalesce(sum(i.size), 0) FROM inodes i"
            f" WHERE i.dirty IN (0, 1) AND i.state IN ({states}) AND {' AND '.join(where)}",
            values,
        ).fetchall()[0]
        return found

    def longest_unused(self, pool: PoolId, limit: int) -> list[Attr]:
        """Files of a pool, the one first that was read or written last longest ago."""
        states = ", ".join(str(int(state)) for state in FileState)
        rows = self.db.execute(
            f"SELECT {PREFIXED} FROM inodes i WHERE i.state IN ({states}) AND i.nlink > 0"
            " AND i.pool = ? ORDER BY max(i.atime_ns, i.mtime_ns), i.ino LIMIT ?",
            (pool, limit),
        )
        return [Attr(*row) for row in rows]

    def least_worth(
        self, pool: PoolId, now_ns: int, idle_since_ns: int, after: tuple[int, int] | None,
        limit: int,
    ) -> list[tuple[int, InodeNo]]:
        """Files of a pool that could be released, as (worth, inode), by seconds idle x blocks.

        Premigrated ones, and those of which a part came back. The most idle and largest first;
        those after the one that is given. Not those that were used after idle_since_ns. One pass
        over the premigrated files, or over all, in SQLite.
        """
        worth = f"(:now - {_USED}) / 1000000000 * i.blocks"
        further = f"AND ({worth}, i.ino) < (:worth, :ino)" if after else ""
        # By the index rows are read here and there, each from a page of its own: good for few.
        how = "NOT INDEXED" if self._share(FileState.PREMIGRATED) > SCAN_SHARE else ""
        rows = self.db.execute(
            f"SELECT {worth} AS worth, i.ino FROM inodes i {how} WHERE i.dirty IN (0, 1)"
            f" AND i.state IN ({int(FileState.PREMIGRATED)}, {int(FileState.PARTIAL)})"
            f" AND (i.state = {int(FileState.PREMIGRATED)} OR i.version = i.base_version)"
            f" AND i.mtime_ns <= :idle"
            f" AND i.nlink > 0 AND i.pinned = 0 AND i.pool = :pool AND i.blocks > 0"
            f" AND {_USED} <= :idle {further} ORDER BY worth DESC, i.ino DESC LIMIT :limit",
            {"now": now_ns, "idle": idle_since_ns, "pool": pool, "limit": limit}
            | ({"worth": after[0], "ino": after[1]} if after else {}),
        )
        found: list[tuple[int, InodeNo]] = rows.fetchall()
        return found

    def with_head(
        self, pool: PoolId, state: FileState, since_ns: int, idle_since_ns: int
    ) -> Iterator[InodeNo]:
        """Files in a state with bytes in a pool, not modified before since_ns (UTC), oldest first.

        Not those that were used after idle_since_ns. In the order of an index, and looked up as
        they are asked for.
        """
        for (ino,) in self.db.execute(
            "SELECT i.ino FROM inodes i WHERE i.dirty = 0 AND i.state = ? AND i.mtime_ns >= ?"
            " AND i.nlink > 0 AND i.pinned = 0 AND i.pool = ? AND i.blocks > 0"
            f" AND {_USED} <= ? ORDER BY i.mtime_ns",
            (int(state), since_ns, pool, idle_since_ns),
        ):
            yield InodeNo(ino)

    def _share(self, state: FileState) -> float:
        """Which share of all inode numbers is in a state."""
        found, last = self.db.execute(
            "SELECT (SELECT count(*) FROM inodes WHERE dirty IN (0, 1) AND state = ?"
            " AND nlink > 0),"
            " (SELECT max(ino) FROM inodes)",
            (int(state),),
        ).fetchall()[0]
        return found / last if last else 0.0

    def regular(self, after: int, limit: int) -> list[Attr]:
        """All regular files, in the trash or not, in the order of numbers greater than after."""
        rows = self.db.execute(
            f"SELECT {PREFIXED} FROM inodes i WHERE i.ino > ? AND i.state IS NOT NULL"
            " ORDER BY i.ino LIMIT ?",
            (after, limit),
        )
        return [Attr(*row) for row in rows]

    def not_in_pool(self, pool: PoolId, inos: Sequence[InodeNo]) -> list[InodeNo]:
        """Those of inos that are no regular files of the pool and not just moving into it."""
        adoptions = Adoptions(self.db)
        return [
            ino
            for ino in inos
            if ((attr := self.inodes.get_raw(ino)) is None or attr.pool != pool or not attr.is_file)
            and not adoptions.intended(ino)
        ]

    def adopted_folders(self, adoption: int) -> list[bytes]:
        """Paths of the folders of an adopted tree, in order."""
        return [row.path for row in Adoptions(self.db).folders(adoption)]

    def adopted_and_migrated(self, adoption: int) -> list[bytes]:
        """Paths of an adopted tree whose file has, or is getting, a copy; up to 1000."""
        return Adoptions(self.db).migrated(adoption)

    def was_adopted(self, adoption: int, path: bytes, src_ino: int) -> bool:
        """True if that path of the tree is in the namespace by that adoption."""
        row = Adoptions(self.db).path(adoption, path)
        return row is not None and row.src_ino == src_ino

    def ino_ceiling(self) -> int:
        """No inode number from here on was ever given."""
        return self.db.execute("SELECT value FROM meta WHERE key = 'ino_ceiling'").get or 1

    def by_state(self) -> dict[FileState, tuple[int, int]]:
        """Files and bytes in each state."""
        rows = self.db.execute(
            "SELECT state, count(*), sum(size) FROM inodes WHERE state IS NOT NULL AND nlink > 0"
            " GROUP BY state"
        )
        return {FileState(state): (count, size) for state, count, size in rows}

    def inode_count(self, below: int) -> int:
        """Inodes of all kinds with smaller numbers; looks at all of them."""
        return int(self.db.execute("SELECT count(*) FROM inodes WHERE ino < ?", (below,)).get)

    def holds_files(self, pool: PoolId) -> bool:
        """True if bytes of any inode are in the pool; looks at all inodes if there are none."""
        return bool(self.db.execute("SELECT 1 FROM inodes WHERE pool = ? LIMIT 1", (pool,)).get)

    def pool_blocks(self) -> dict[int, int]:
        """Bytes on disk in each pool, by the catalog; looks at all inodes."""
        rows = self.db.execute(
            "SELECT pool, sum(blocks) * 512 FROM inodes WHERE pool IS NOT NULL GROUP BY pool"
        )
        return dict(rows)

    def path_cache(self) -> PathCache:
        """Paths of many inodes of this snapshot, with the folders remembered."""
        return PathCache(self.db)


def _conditions(query: Query) -> tuple[list[str], list[object]]:
    """The WHERE clauses of a query but its states, with their values."""
    where, values = ["i.nlink > 0"], list[object]()
    for clause, value in (
        ("i.mtime_ns < ?", query.modified_before_ns),
        ("i.mtime_ns > ?", query.modified_after_ns),
        ("i.atime_ns < ?", query.accessed_before_ns),
        ("i.size >= ?", query.min_size),
        ("i.size <= ?", query.max_size),
        ("i.pool = ?", query.pool),
        ("i.pinned = ?", query.pinned),
    ):
        if value is not None:
            where.append(clause)
            values.append(value)
    for column, numbers in (("uid", query.uids), ("gid", query.gids)):
        if numbers:
            where.append(f"i.{column} IN ({', '.join('?' * len(numbers))})")
            values += numbers
    if query.unqueued:
        where.append("NOT EXISTS (SELECT 1 FROM migrations m WHERE m.ino = i.ino)")
    if query.volume is not None:
        where.append(
            "i.ino IN (SELECT ino FROM copies WHERE volume = ? AND state ="
            f" {int(CopyState.VALID)})"
        )
        values.append(query.volume)
    return where, values
