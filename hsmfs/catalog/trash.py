"""What was unlinked and can be brought back, until it is purged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..types import Attr, InodeNo
from .connection import Database
from .inodes import PREFIXED, Inodes
from .paths import PathCache


@dataclass(frozen=True, slots=True)
class Trashed:
    """An inode in the trash, with the folder and name it had last."""

    attr: Attr
    parent: InodeNo
    name: bytes
    deleted_ns: int
    purge_ns: int


_SELECT = (
    f"SELECT t.parent, t.name, t.deleted_ns, t.purge_ns, {PREFIXED}"
    " FROM trash t JOIN inodes i ON i.ino = t.ino"
)


def _trashed(row: tuple) -> Trashed:  # type: ignore[type-arg]
    return Trashed(Attr(*row[4:]), row[0], row[1], row[2], row[3])


class Trash:
    """Rows of `trash`; an inode in it has nlink 0 and keeps xattrs, ranges and copies."""

    def __init__(self, db: Database, inodes: Inodes) -> None:
        self._db = db
        self._inodes = inodes

    def put(self, ino: InodeNo, parent: InodeNo, name: bytes, now_ns: int, keep_ns: int) -> None:
        """Keep an inode that just lost its last name for keep_ns."""
        self._db.change(
            "INSERT OR REPLACE INTO trash VALUES (?, ?, ?, ?, ?)",
            (ino, parent, name, now_ns, now_ns + keep_ns),
        )

    def get(self, ino: InodeNo) -> Trashed | None:
        """What is kept of ino, or None."""
        for row in self._db.execute(f"{_SELECT} WHERE t.ino = ?", (ino,)):
            return _trashed(row)
        return None

    def kept(self, after: int = 0, limit: int = 1000) -> list[Trashed]:
        """What is kept, in the order of inode numbers greater than after."""
        rows = self._db.execute(f"{_SELECT} WHERE t.ino > ? ORDER BY t.ino LIMIT ?", (after, limit))
        return [_trashed(row) for row in rows]

    def due(
        self, now_ns: int, limit: int = 100, after: tuple[int, int] = (0, 0)
    ) -> list[tuple[int, InodeNo]]:
        """What may be purged now, as (purge_ns, inode), oldest first and behind after."""
        rows = self._db.execute(
            "SELECT purge_ns, ino FROM trash WHERE purge_ns <= ? AND (purge_ns, ino) > (?, ?)"
            " ORDER BY purge_ns, ino LIMIT ?",
            (now_ns, *after, limit),
        )
        return [(purge_ns, InodeNo(ino)) for purge_ns, ino in rows]

    def below(self, folder: InodeNo) -> list[Trashed]:
        """What is kept and had its last name in that folder, the newest first."""
        rows = self._db.execute(
            f"{_SELECT} WHERE t.parent = ? ORDER BY t.deleted_ns DESC, t.ino DESC", (folder,)
        )
        return [_trashed(row) for row in rows]

    def named(self, folder: InodeNo, name: bytes) -> list[Trashed]:
        """What is kept and had this last name, the newest first."""
        rows = self._db.execute(
            f"{_SELECT} WHERE t.parent = ? AND t.name = ? ORDER BY t.deleted_ns DESC, t.ino DESC",
            (folder, name),
        )
        return [_trashed(row) for row in rows]

    def since(self, time_ns: int) -> list[Trashed]:
        """What was deleted after that time; looks at all of it."""
        rows = self._db.execute(f"{_SELECT} WHERE t.deleted_ns > ?", (time_ns,))
        return [_trashed(row) for row in rows]

    @property
    def frozen(self) -> bool:
        """True if nothing is to be purged because its time is over."""
        return self._frozen_ns is not None

    @property
    def _frozen_ns(self) -> int | None:
        """Since when, UTC ns; 1 if an older release froze it; None: it is not frozen."""
        value = self._db.execute("SELECT value FROM meta WHERE key = 'trash_frozen'").get
        return None if value is None else int(value)

    def freeze(self, now_ns: int) -> None:
        """Nothing is purged from now on; if it was frozen before, it is since then."""
        self._db.execute("INSERT OR IGNORE INTO meta VALUES ('trash_frozen', ?)", (now_ns,))

    def thaw(self) -> None:
        """What is due is purged again."""
        self._db.execute("DELETE FROM meta WHERE key = 'trash_frozen'")

    def reach(self, now_ns: int, keep_ns: int) -> int:
        """UTC ns after which all that was deleted is there still, if so long is kept: while it is
        frozen that time stands still.
        """
        since = self._frozen_ns
        return (now_ns if since is None or since == 1 else min(since, now_ns)) - keep_ns

    def restored(self, ino: InodeNo, parent: InodeNo, name: bytes, now_ns: int) -> None:
        """No longer in the trash, for it has that name: when it had none is remembered."""
        self._db.execute(
            "INSERT INTO name_moves (ino, parent, name, new_parent, new_name, moved_ns)"
            " SELECT ino, parent, name, 0, x'', deleted_ns FROM trash WHERE ino = ?1"
            " UNION ALL SELECT ino, 0, x'', ?2, ?3, ?4 FROM trash WHERE ino = ?1",
            (ino, parent, name, now_ns),
        )
        self.take(ino)

    def keep_paths(self, inos: Iterable[InodeNo]) -> None:
        """Remember where these were: they are about to be purged, and discs have bytes of them."""
        paths = PathCache(self._db)
        for ino in inos:
            if (path := paths.last(ino)) is not None:
                self._db.execute("INSERT OR REPLACE INTO gone_paths VALUES (?, ?)", (ino, path))

    def take(self, ino: InodeNo) -> None:
        """No longer in the trash."""
        self._db.execute("DELETE FROM trash WHERE ino = ?", (ino,))
