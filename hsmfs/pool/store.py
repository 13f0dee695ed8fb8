"""Pools: directories that hold resident bytes, one sparse file an inode.

A file is named by its inode number in folders of 1,024 below `data/`, so that files made one after
the other share a folder. A marker file with the pool's uuid proves that the directory is the one it
was, so that an unmounted filesystem is not taken for an empty pool. Nothing here knows who calls
it; blocking, so called in threads.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .. import crash, durable
from ..errors import PoolReadOnly, PoolUnavailable
from ..types import InodeNo, PoolId
from .fallocate import punch_hole, syncfs

MARKER = ".hsmfs-pool"
BLOCK = 4096
"""Holes are punched in whole blocks of this many bytes."""
_MODE = 0o600


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes of a pool."""

    capacity: int
    used: int

    @property
    def percent(self) -> float:
        return 100.0 * self.used / self.capacity if self.capacity else 100.0


class Pool:
    """An open pool.

    Attributes:
        id: its number in the catalog; 0 until the caller registered it.
        capacity: bytes, or None for as much as the filesystem has.
        high, low: percent of the capacity at which releasing begins and ends.
        used: bytes on disk by the catalog; kept by the caller, counts only if capacity is set.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        tier: str = "disk",
        capacity: int | None = None,
        high: int = 90,
        low: int = 80,
    ) -> None:
        self.id = PoolId(0)
        self.name, self.path, self.tier = name, path, tier
        self.capacity, self.high, self.low = capacity, high, low
        self.used = 0
        self.uuid = self.uuid_at(path)
        self._data = path / "data"

    @classmethod
    def create(cls, path: Path) -> str:
        """Make the directory a pool; return its uuid. One that is a pool already stays as it is."""
        try:
            (path / "data").mkdir(parents=True, exist_ok=True)
            marker = path / MARKER
            if not marker.exists():
                found = str(uuid.uuid4())
                part = path / f"{MARKER}.new"
                part.write_text(json.dumps({"hsmfs_pool": 1, "uuid": found}) + "\n")
                os.chmod(part, _MODE)
                durable.sync(part)
                part.rename(marker)
                durable.sync(path)
        except OSError as fault:
            raise PoolUnavailable(f"pool {path} cannot be made: {fault.strerror}") from fault
        return cls.uuid_at(path)

    @staticmethod
    def uuid_at(path: Path) -> str:
        """The uuid in the marker. Raises PoolUnavailable."""
        try:
            found = json.loads((path / MARKER).read_text())["uuid"]
        except (OSError, ValueError, KeyError, TypeError) as fault:
            raise PoolUnavailable(f"{path} is not a pool: {MARKER}: {fault}") from fault
        return str(found)

    def check(self) -> None:
        """Raise PoolUnavailable unless the pool is still there, the same, and writable."""
        if self.uuid_at(self.path) != self.uuid:
            raise PoolUnavailable(f"pool {self.name}: {self.path} is another pool now")
        if os.statvfs(self.path).f_flag & os.ST_RDONLY:
            raise self.read_only()

    # Files

    def path_of(self, ino: InodeNo) -> str:
        """Where the bytes of an inode lie."""
        return f"{self._data}/{ino >> 20:x}/{ino >> 10 & 0x3FF:03x}/{ino:x}"

    def open(self, ino: InodeNo, *, create: bool = True) -> int:
        """A descriptor for reading and writing; for reading only if the pool is read-only.

        Raises FileNotFoundError if not create, PoolReadOnly if it had to be made and cannot be.
        """
        try:
            return self._open(ino, create=create)
        except OSError as fault:
            if fault.errno != errno.EROFS:
                raise
            with contextlib.suppress(FileNotFoundError):
                return os.open(self.path_of(ino), os.O_RDONLY | os.O_CLOEXEC | os.O_NOATIME)
            raise self.read_only() from fault

    def read_only(self) -> PoolReadOnly:
        """The error for a write to a pool that takes none."""
        return PoolReadOnly(f"pool {self.name}: {self.path} is mounted read-only")

    def _open(self, ino: InodeNo, *, create: bool) -> int:
        path = self.path_of(ino)
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOATIME | (os.O_CREAT if create else 0)
        try:
            return os.open(path, flags, _MODE)
        except FileNotFoundError:
            if not create:
                raise
            # A vanished pool must not be made anew on the filesystem below its mountpoint.
            if not (self.path / MARKER).exists():
                raise PoolUnavailable(f"pool {self.name}: {self.path} has vanished") from None
            os.makedirs(os.path.dirname(path), exist_ok=True)
            return os.open(path, flags, _MODE)

    def remove(self, ino: InodeNo) -> None:
        """Delete the bytes of an inode, if there are any."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path_of(ino))

    def take(self, ino: InodeNo, source: Path, *, link: bool) -> None:
        """Make an existing file of the same filesystem the bytes of ino, by rename or hard link."""
        path = self.path_of(ino)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if link:
            os.link(source, path)
        else:
            os.rename(source, path)

    def share(self, ino: InodeNo, new: InodeNo) -> None:
        """Make the bytes of ino those of another inode too, until `part`. Raises OSError."""
        path = self.path_of(new)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.link(self.path_of(ino), path)

    def part(self, ino: InodeNo, new: InodeNo, fd: int) -> None:
        """What `share` made one becomes two: ino gets no bytes, and fd is its new file; durable.

        Whoever reads through fd meanwhile reads what he began to read.
        """
        self.fsync_folder(new)
        os.unlink(self.path_of(ino))
        crash.point("keeping.unlinked")
        empty = self._open(ino, create=True)
        try:
            os.dup2(empty, fd, inheritable=False)
        finally:
            os.close(empty)
        self.fsync_folder(ino)

    def fsync_folder(self, ino: InodeNo) -> None:
        """Make the name of an inode's file durable."""
        durable.sync(Path(os.path.dirname(self.path_of(ino))))

    def sync(self) -> None:
        """Make all bytes written so far durable, in one call for all files. Raises OSError."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            syncfs(fd)
        finally:
            os.close(fd)

    def release(self, fd: int, start: int, end: int) -> int:
        """Punch the whole blocks of [start, end) out; return the 512-byte units left on disk."""
        punch_hole(fd, start, end)
        return os.fstat(fd).st_blocks

    def inodes(self) -> Iterator[InodeNo]:
        """Inode numbers that have a file here, in no order."""
        for folder, _, names in os.walk(self._data):
            for name in names:
                with contextlib.suppress(ValueError):
                    ino = InodeNo(int(name, 16))
                    if self.path_of(ino) == f"{folder}/{name}":
                        yield ino

    def strangers(self) -> Iterator[Path]:
        """Files below data/ that no inode number explains."""
        for folder, _, names in os.walk(self._data):
            for name in names:
                try:
                    known = self.path_of(InodeNo(int(name, 16))) == f"{folder}/{name}"
                except ValueError:
                    known = False
                if not known:
                    yield Path(folder, name)

    # Space

    def usage(self) -> Usage:
        """Capacity and use: of the pool's own bound if one is set, else of its filesystem."""
        disk = shutil.disk_usage(self.path)
        if self.capacity is None:
            return Usage(disk.used + disk.free, disk.used)
        return Usage(min(self.capacity, self.used + disk.free), self.used)


def writable(fd: int) -> bool:
    """Whether a descriptor may be written to; of a read-only pool it may not."""
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE)
