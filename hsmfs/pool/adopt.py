"""Takes files of an existing tree into a pool and gives them back by name: no byte is copied.

Paths are bytes. Blocking, so called in threads; the order of steps that makes it safe against a
crash is the caller's (engine/adopt.py).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..types import InodeNo
from .examine import set_aside
from .store import Pool

_DATA_MODE = 0o700
_STAT_ONLY = (errno.ENOTSUP, errno.EPERM, errno.ENODATA)


@dataclass(frozen=True, slots=True)
class Item:
    """One path of a tree, below its top, as it was found."""

    path: bytes
    stat: os.stat_result
    xattrs: dict[bytes, bytes]
    target: bytes | None
    """Of a symbolic link."""

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.stat.st_mode)

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.stat.st_mode)


@dataclass(slots=True)
class Survey:
    """What is in a tree; sizes in bytes."""

    entries: int = 0
    files: int = 0
    size: int = 0
    foreign: list[bytes] = field(default_factory=list)
    """Paths on another filesystem."""
    linked_outside: int = 0
    """Files that have names outside the tree too, through which others could change them."""


def survey(top: bytes, device: int) -> Survey:
    """Count a tree whose files must lie on one device."""
    found = Survey()
    links: dict[int, int] = {}
    for path, seen in _walk(top, device):
        if seen.st_dev != device:
            found.foreign.append(path)
            continue
        found.entries += 1
        if stat.S_ISREG(seen.st_mode):
            found.files += 1
            if seen.st_nlink == 1:
                found.size += seen.st_size
            else:
                if seen.st_ino not in links:
                    found.size += seen.st_size
                links[seen.st_ino] = links.get(seen.st_ino, seen.st_nlink) - 1
    found.linked_outside = sum(1 for left in links.values() if left)
    return found


def walk(top: bytes, device: int) -> Iterator[Item]:
    """A tree in the order of its names, each folder before what is in it."""
    for path, seen in _walk(top, device):
        if seen.st_dev == device:
            yield item(top, path, seen)


def _walk(top: bytes, device: int) -> Iterator[tuple[bytes, os.stat_result]]:
    todo = [b""]
    while todo:
        folder = todo.pop()
        folders: list[bytes] = []
        with os.scandir(os.path.join(top, folder)) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            path = os.path.join(folder, name)
            try:
                seen = os.lstat(os.path.join(top, path))
            except FileNotFoundError:
                continue  # moved by us since the folder was read
            yield path, seen
            if stat.S_ISDIR(seen.st_mode) and seen.st_dev == device:
                folders.append(path)
        todo += reversed(folders)


def item(top: bytes, path: bytes, seen: os.stat_result | None = None) -> Item:
    """One path with its attributes. Raises OSError."""
    full = os.path.join(top, path)
    seen = seen or os.lstat(full)
    target = os.readlink(full) if stat.S_ISLNK(seen.st_mode) else None
    return Item(path, seen, xattrs(full), target)


def xattrs(path: bytes) -> dict[bytes, bytes]:
    """Extended attributes, ACLs among them; empty if the filesystem has none."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
        return {
            os.fsencode(name): os.getxattr(path, name, follow_symlinks=False) for name in names
        }
    except OSError as fault:
        if fault.errno in _STAT_ONLY:
            return {}
        raise


def close_to_others(pool: Pool) -> None:
    """Adopted files keep their modes in the pool: only its owner may get at them there."""
    os.chmod(pool.path / "data", _DATA_MODE)


def take(pool: Pool, ino: InodeNo, source: bytes, *, link: bool) -> None:
    """Make a file of the tree the bytes of ino, whose number is new. Raises OSError.

    A file that has the number in the pool already is left from a power cut: it is set aside.
    """
    if os.path.lexists(pool.path_of(ino)):
        set_aside(pool, Path(pool.path_of(ino)))
    pool.take(ino, Path(os.fsdecode(source)), link=link)


def held(pool: Pool, ino: InodeNo, src_ino: int) -> os.stat_result | None:
    """The pool file of ino, if it is the file that had this inode number in the tree."""
    try:
        seen = os.lstat(pool.path_of(ino))
    except FileNotFoundError:
        return None
    return seen if seen.st_ino == src_ino else None


def is_same(path: bytes, src_ino: int) -> bool:
    """True if the path still names the inode that it named."""
    try:
        return os.lstat(path).st_ino == src_ino
    except FileNotFoundError:
        return False


def remove_name(path: bytes, src_ino: int) -> None:
    """Take a name out of the tree, if it still is what was adopted."""
    if is_same(path, src_ino):
        os.unlink(path)


def remove_folders(top: bytes, folders: Sequence[bytes]) -> int:
    """Remove folders of a tree, deepest first, if they are empty; how many are left."""
    left = 0
    for path in sorted(folders, reverse=True):
        try:
            os.rmdir(os.path.join(top, path))
        except FileNotFoundError:
            continue
        except OSError as fault:
            if fault.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
                raise
            left += 1
    return left


# Giving back


def make(path: bytes, mode: int, rdev: int, target: bytes | None) -> None:
    """A folder, symbolic link or special file in the tree, unless it is there. Raises OSError."""
    try:
        if stat.S_ISDIR(mode):
            os.mkdir(path, 0o700)
        elif target is not None:
            os.symlink(target, path)
        else:
            os.mknod(path, stat.S_IFMT(mode) | 0o600, rdev)
    except FileExistsError:
        if stat.S_IFMT(os.lstat(path).st_mode) != stat.S_IFMT(mode):
            raise


def dress(
    path: bytes,
    mode: int,
    uid: int,
    gid: int,
    times_ns: tuple[int, int],
    attributes: dict[bytes, bytes],
) -> None:
    """Give a path its owner, mode, extended attributes and times. Raises OSError."""
    os.chown(path, uid, gid, follow_symlinks=False)
    if not stat.S_ISLNK(mode):
        os.chmod(path, stat.S_IMODE(mode))
    present = xattrs(path)
    for name in present.keys() - attributes.keys():
        os.removexattr(path, name, follow_symlinks=False)
    for name, value in attributes.items():
        if present.get(name) != value:
            os.setxattr(path, name, value, follow_symlinks=False)
    os.utime(path, ns=times_ns, follow_symlinks=False)


def give_back(pool: Pool, ino: InodeNo, paths: Sequence[bytes]) -> None:
    """Make the pool file's names those in the tree again. Raises FileExistsError if one is taken.

    Names in the tree first, the pool's last, so that a crash leaves at least one.
    """
    source = os.fsencode(pool.path_of(ino))
    number = os.lstat(source).st_ino
    for path in paths:
        try:
            os.link(source, path)
        except FileExistsError:
            if not is_same(path, number):
                raise
    os.unlink(source)
