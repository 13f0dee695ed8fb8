"""Directory entries: the operations of POSIX on names, each to be called inside one transaction.

Raises PosixError with the errno that POSIX prescribes. Permissions, sticky bits and set-group-id
are the kernel's and the filesystem layer's concern (mount option default_permissions).
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable

import apsw

from ..errors import PosixError
from ..limits import LINKS, NAME_BYTES
from ..types import ROOT, Attr, InodeNo, PoolId
from .connection import Database
from .inodes import COLUMNS, PREFIXED, Inodes

_LOOKUP = (  # not a join: measured to be four times as dear for one row
    f"SELECT {COLUMNS} FROM inodes"
    " WHERE ino = (SELECT ino FROM dentries WHERE parent = ? AND name = ?)"
)
_LIST = (
    f"SELECT d.id, d.name, {PREFIXED} FROM dentries d JOIN inodes i ON i.ino = d.ino"
    " WHERE d.parent = ? AND d.id > ? ORDER BY d.id LIMIT ?"
)
_INSERT = "INSERT INTO dentries (parent, id, name, ino) VALUES (?, ?, ?, ?)"
_DELETE = "DELETE FROM dentries WHERE parent = ? AND name = ?"
_CEILING = (
    "INSERT INTO meta VALUES ('cookie_ceiling', ?)"
    " ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)
FIRST_COOKIE = 16
"""Smaller ones are the filesystem layer's own, for '.' and '..'."""
COOKIES = 4096
"""Cookies set aside at a time."""
FOLDERS = 4096
"""Folders whose paths are remembered."""


class Namespace:
    """Names of inodes. `now_ns` is the time each change bears.

    Attributes:
        named: told of an inode that was given a name otherwise than by a user, and of its folder.
    """

    def __init__(self, db: Database, inodes: Inodes) -> None:
        self._db = db
        self._inodes = inodes
        self.named: Callable[[Attr, InodeNo], None] = lambda attr, parent: None
        self._folders: dict[int, bytes] = {}
        newest = db.execute("SELECT max(value) FROM meta WHERE key = 'cookie_ceiling'").get
        self._cookie = self._cookie_ceiling = newest or FIRST_COOKIE

    # Reading

    def lookup(self, parent: int, name: bytes) -> Attr | None:
        """The inode of that name, or None."""
        row = self._db.one(_LOOKUP, (parent, name))
        return Attr._make(row) if row else None

    def entries(self, parent: int, after: int, limit: int) -> list[tuple[int, bytes, Attr]]:
        """Up to limit entries whose cookie is greater than after, as (cookie, name, inode)."""
        rows = self._db.execute(_LIST, (parent, after, limit))
        return [(row[0], row[1], Attr(*row[2:])) for row in rows]

    def not_files(self, parent: int) -> list[tuple[bytes, Attr]]:
        """Entries of a directory that are no regular files: folders, links, special files."""
        rows = self._db.execute(
            f"SELECT d.name, {PREFIXED} FROM dentries d JOIN inodes i ON i.ino = d.ino"
            " WHERE d.parent = ? AND i.state IS NULL ORDER BY d.id",
            (parent,),
        )
        return [(row[0], Attr(*row[1:])) for row in rows]

    def has_files(self, parent: int) -> bool:
        """True if a regular file is directly in the directory."""
        return bool(
            self._db.execute(
                "SELECT 1 FROM dentries d JOIN inodes i ON i.ino = d.ino"
                " WHERE d.parent = ? AND i.state IS NOT NULL LIMIT 1",
                (parent,),
            ).fetchall()
        )

    def parents(self, ino: int) -> list[InodeNo]:
        """The directories that hold a name of ino."""
        rows = self._db.execute("SELECT DISTINCT parent FROM dentries WHERE ino = ?", (ino,))
        return [InodeNo(parent) for (parent,) in rows]

    def links(self, ino: int) -> list[tuple[InodeNo, bytes]]:
        """Every name of ino, with the directory that it is in."""
        rows = self._db.execute("SELECT parent, name FROM dentries WHERE ino = ?", (ino,))
        return [(InodeNo(parent), bytes(name)) for parent, name in rows.fetchall()]

    def parent(self, ino: int) -> InodeNo | None:
        """A directory that holds a name of ino; the root is its own parent."""
        if ino == ROOT:
            return ROOT
        for (parent,) in self._db.execute(
            "SELECT parent FROM dentries WHERE ino = ? ORDER BY parent, id LIMIT 1", (ino,)
        ):
            return InodeNo(parent)
        return None

    def paths(self, ino: int, limit: int = 64) -> list[bytes]:
        """Paths from the root, without the leading slash; b'' for the root itself."""
        if ino == ROOT:
            return [b""]
        found = []
        for parent, name in self._db.execute(
            "SELECT parent, name FROM dentries WHERE ino = ? ORDER BY parent, id LIMIT ?",
            (ino, limit),
        ).fetchall():
            above = self.folder_path(parent)
            if above is not None:
                found.append(above + name)
        return found

    def folders_changed(self) -> None:
        """Folders were moved, removed or brought back: forget the paths of all."""
        self._folders.clear()

    def folder_path(self, ino: int) -> bytes | None:
        """Path of a folder with a trailing slash, b'' for the root, None if it was removed.

        It is remembered: a burst of deletions asks for the same folder each time.
        """
        path = self._folders.get(ino)
        if path is None:
            path = self._path_up(ino)
            if path is not None:
                if len(self._folders) >= FOLDERS:
                    self._folders.clear()
                self._folders[ino] = path
        return path

    def _path_up(self, ino: int) -> bytes | None:
        names: list[bytes] = []
        while ino != ROOT:
            for parent, name in self._db.execute(
                "SELECT parent, name FROM dentries WHERE ino = ?", (ino,)
            ):
                names.append(name)
                ino = parent
                break
            else:
                return None
        return b"".join(name + b"/" for name in reversed(names))

    def resolve(self, path: bytes) -> Attr | None:
        """The inode at a path from the root; symbolic links are not followed."""
        attr = self._inodes.get_raw(ROOT)
        for name in path.split(b"/"):
            if not name or attr is None:
                continue
            attr = self.lookup(attr.ino, name)
        return attr

    def is_empty(self, ino: int) -> bool:
        """True if the directory holds no name."""
        return not self._db.execute(
            "SELECT 1 FROM dentries WHERE parent = ? LIMIT 1", (ino,)
        ).fetchall()

    # Writing

    def create(
        self,
        parent: InodeNo,
        name: bytes,
        mode: int,
        uid: int,
        gid: int,
        now_ns: int,
        *,
        rdev: int = 0,
        target: bytes | None = None,
        pool: PoolId | None = None,
    ) -> Attr:
        """A new file, folder, symbolic link or special file.

        Raises PosixError EEXIST, ENAMETOOLONG, or ENOENT if the folder was removed.
        """
        self._open_folder(parent)
        is_dir = stat.S_ISDIR(mode)
        size = 0 if target is None else len(target)
        links = 2 if is_dir else 1
        attr = self._inodes.insert(
            mode, uid, gid, rdev, now_ns, nlink=links, size=size, pool=pool
        )
        self._insert(parent, name, attr.ino)
        if target is not None:
            self._db.execute("INSERT INTO symlinks VALUES (?, ?)", (attr.ino, target))
        self._inodes.touch(parent, now_ns, int(is_dir))
        return attr

    def link(self, ino: InodeNo, parent: InodeNo, name: bytes, now_ns: int) -> Attr:
        """One more name for a file. Raises PosixError EPERM, EMLINK, EEXIST or ENOENT."""
        self._open_folder(parent)
        attr = self._must(ino)
        if attr.is_dir:
            raise PosixError(errno.EPERM)
        if attr.nlink >= LINKS:
            raise PosixError(errno.EMLINK)
        if attr.nlink == 0:
            raise PosixError(errno.ENOENT)
        self._insert(parent, name, ino)
        self._inodes.touch(parent, now_ns)
        return self._inodes.add_links(attr, 1, now_ns)

    def revive(self, ino: InodeNo, parent: InodeNo, name: bytes, now_ns: int) -> Attr:
        """The first name of an inode that has none, whatever its nlink says: out of the trash.

        Raises PosixError EEXIST, ENAMETOOLONG, or ENOENT if the folder was removed.
        """
        self._open_folder(parent)
        attr = self._must(ino)
        self._insert(parent, name, ino)
        links = 2 if attr.is_dir else 1
        self._inodes.touch(parent, now_ns, int(attr.is_dir))
        self.named(attr, parent)
        return self._inodes.add_links(attr, links - attr.nlink, now_ns)

    def adopt(self, parent: InodeNo, name: bytes, attr: Attr, now_ns: int) -> None:
        """The first name of an inode just inserted.

        The folder keeps its mtime, which came with it or is what users know; clients of NFS learn
        from its ctime that what they remember of it is old.
        """
        self._open_folder(parent)
        self._insert(parent, name, attr.ino)
        self._db.execute(
            "UPDATE inodes SET nlink = nlink + ?, ctime_ns = max(ctime_ns, ?) WHERE ino = ?",
            (int(attr.is_dir), now_ns, parent),
        )
        self.named(attr, parent)

    def discard(self, ino: InodeNo) -> list[tuple[InodeNo, bytes]]:
        """Take all names of an inode away, leaving times as they are; what they were, and where."""
        attr = self._must(ino)
        names: list[tuple[InodeNo, bytes]] = self._db.execute(
            "SELECT parent, name FROM dentries WHERE ino = ?", (ino,)
        ).fetchall()
        self._db.execute("DELETE FROM dentries WHERE ino = ?", (ino,))
        if attr.is_dir:
            self.folders_changed()
            for parent, _ in names:
                self._db.execute("UPDATE inodes SET nlink = nlink - 1 WHERE ino = ?", (parent,))
        return names

    def set_target(self, ino: InodeNo, target: bytes) -> None:
        """Where a symbolic link points."""
        self._db.execute("INSERT OR REPLACE INTO symlinks VALUES (?, ?)", (ino, target))

    def unlink(self, parent: InodeNo, name: bytes, now_ns: int) -> Attr:
        """Take the name away; return the inode as it is then (nlink 0: that was the last one).

        Raises PosixError ENOENT or EISDIR.
        """
        attr = self.lookup(parent, name)
        if attr is None:
            raise PosixError(errno.ENOENT)
        if attr.is_dir:
            raise PosixError(errno.EISDIR)
        return self._drop(parent, name, attr, now_ns)

    def rmdir(self, parent: InodeNo, name: bytes, now_ns: int) -> Attr:
        """Remove an empty folder; return its inode. Raises ENOENT, ENOTDIR or ENOTEMPTY."""
        attr = self.lookup(parent, name)
        if attr is None:
            raise PosixError(errno.ENOENT)
        if not attr.is_dir:
            raise PosixError(errno.ENOTDIR)
        if not self.is_empty(attr.ino):
            raise PosixError(errno.ENOTEMPTY)
        return self._drop(parent, name, attr, now_ns)

    def rename(
        self,
        parent: InodeNo,
        name: bytes,
        new_parent: InodeNo,
        new_name: bytes,
        now_ns: int,
        *,
        no_replace: bool = False,
    ) -> tuple[Attr, Attr | None]:
        """Move a name; return the moved inode and the one it replaced, if any.

        Raises PosixError ENOENT, EEXIST, EISDIR, ENOTDIR, ENOTEMPTY or EINVAL (into itself).
        """
        moved = self.lookup(parent, name)
        if moved is None:
            raise PosixError(errno.ENOENT)
        self._open_folder(new_parent)
        target = self.lookup(new_parent, new_name)
        if target is not None and no_replace:
            raise PosixError(errno.EEXIST)
        if target is not None and target.ino == moved.ino:
            return moved, None
        if moved.is_dir:
            self._refuse_loop(moved.ino, new_parent)
            self.folders_changed()
        replaced = None
        if target is not None:
            self._refuse_replacement(moved, target)
            replaced = self._drop(new_parent, new_name, target, now_ns)
        self._db.change(_DELETE, (parent, name))
        self._insert(new_parent, new_name, moved.ino)
        shift = int(moved.is_dir and new_parent != parent)
        self._inodes.touch(parent, now_ns, -shift)
        self._inodes.touch(new_parent, now_ns, shift)
        return self._inodes.add_links(moved, 0, now_ns), replaced

    def exchange(
        self, parent: InodeNo, name: bytes, new_parent: InodeNo, new_name: bytes, now_ns: int
    ) -> tuple[Attr, Attr]:
        """Swap two names (RENAME_EXCHANGE). Raises PosixError ENOENT or EINVAL."""
        one, two = self.lookup(parent, name), self.lookup(new_parent, new_name)
        if one is None or two is None:
            raise PosixError(errno.ENOENT)
        for attr, folder in ((one, new_parent), (two, parent)):
            if attr.is_dir:
                self._refuse_loop(attr.ino, folder)
                self.folders_changed()
        update = "UPDATE dentries SET ino = ? WHERE parent = ? AND name = ?"
        self._db.execute(update, (two.ino, parent, name))
        self._db.execute(update, (one.ino, new_parent, new_name))
        shift = int(two.is_dir) - int(one.is_dir) if parent != new_parent else 0
        self._inodes.touch(parent, now_ns, shift)
        self._inodes.touch(new_parent, now_ns, -shift)
        add = self._inodes.add_links
        return add(one, 0, now_ns), add(two, 0, now_ns)

    def rolled_back(self) -> None:
        """A transaction was undone, perhaps the one that raised the ceiling: raise it again."""
        self._cookie_ceiling = self._cookie
        self.folders_changed()

    # Parts

    def _must(self, ino: int) -> Attr:
        attr = self._inodes.get_raw(ino)
        if attr is None:
            raise PosixError(errno.ENOENT)
        return attr

    def _open_folder(self, ino: int) -> Attr:
        attr = self._must(ino)
        if not attr.is_dir:
            raise PosixError(errno.ENOTDIR)
        if attr.nlink == 0:
            raise PosixError(errno.ENOENT)
        return attr

    def _insert(self, parent: int, name: bytes, ino: int) -> None:
        if len(name) > NAME_BYTES:
            raise PosixError(errno.ENAMETOOLONG)
        if self._cookie >= self._cookie_ceiling:
            self._cookie_ceiling = self._cookie + COOKIES
            self._db.execute(_CEILING, (self._cookie_ceiling,))
        self._cookie += 1
        try:
            self._db.change(_INSERT, (parent, self._cookie - 1, name, ino))
        except apsw.ConstraintError as fault:
            raise PosixError(errno.EEXIST) from fault

    def _drop(self, parent: int, name: bytes, attr: Attr, now_ns: int) -> Attr:
        folder = attr.is_dir
        if folder:
            self.folders_changed()
        self._db.change(_DELETE, (parent, name))
        self._inodes.touch(parent, now_ns, -int(folder))
        return self._inodes.add_links(attr, -2 if folder else -1, now_ns)

    def _refuse_replacement(self, moved: Attr, target: Attr) -> None:
        if target.is_dir and not moved.is_dir:
            raise PosixError(errno.EISDIR)
        if moved.is_dir and not target.is_dir:
            raise PosixError(errno.ENOTDIR)
        if target.is_dir and not self.is_empty(target.ino):
            raise PosixError(errno.ENOTEMPTY)

    def _refuse_loop(self, ino: int, folder: int) -> None:
        """EINVAL if folder is ino or lies below it."""
        while folder != ROOT:
            if folder == ino:
                raise PosixError(errno.EINVAL)
            above = self.parent(folder)
            if above is None:
                raise PosixError(errno.ENOENT)
            folder = above


