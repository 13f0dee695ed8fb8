"""The words every room shares: identifiers that cannot be mixed and frozen values.

Units are always bytes, 2048-byte sectors, or UTC nanoseconds, and the field's name says which.
This module imports nothing of hsmfs.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from typing import NamedTuple, NewType

InodeNo = NewType("InodeNo", int)
PoolId = NewType("PoolId", int)
VolumeId = NewType("VolumeId", int)
SetId = NewType("SetId", int)
CopyId = NewType("CopyId", int)
HoldId = NewType("HoldId", int)
DataVersion = NewType("DataVersion", int)
Barcode = NewType("Barcode", str)
ElementAddress = NewType("ElementAddress", int)

ROOT = InodeNo(1)
SECTOR = 2048
"""Bytes in a sector of a disc (ECMA-119 section 6.1.2)."""
CHUNK = 4 * 1024 * 1024
"""Bytes of file content under one checksum, and in one zstd frame."""


@dataclass(frozen=True, slots=True)
class Range:
    """The half-open byte range [start, end) of a file."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"bad range {self.start}..{self.end}")

    @property
    def length(self) -> int:
        return self.end - self.start

    def overlaps(self, other: Range) -> bool:
        return self.start < other.end and other.start < self.end


class Attr(NamedTuple):
    """An inode as the catalog holds it; times are UTC nanoseconds, sizes bytes.

    A tuple and not a dataclass, because one is built for each directory entry listed.
    """

    ino: InodeNo
    mode: int
    uid: int
    gid: int
    nlink: int
    rdev: int
    size: int
    blocks: int
    """512-byte units that are on disk, as st_blocks."""
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int
    state: int | None
    """A value of states.FileState; None for whatever is not a regular file."""
    pool: PoolId | None
    version: DataVersion
    base_version: DataVersion
    """The version whose copies hold the absent ranges; meaningful only if there are any."""
    dirty: bool
    """The pool file's size and times are truer than these (see catalog/inodes.py)."""
    pinned: bool
    locked: int
    """states.Lock: why bytes and names must not change; 0 of most files."""
    change_seq: int

    def with_links(self, nlink: int, mtime_ns: int, ctime_ns: int, change_seq: int) -> Attr:
        """As `_replace` of these, at a third of its cost: each change of names asks for three."""
        ino, mode, uid, gid, _, rdev, size, blocks, atime_ns, _, _, btime_ns, *rest, _ = self
        return tuple.__new__(
            Attr,
            (ino, mode, uid, gid, nlink, rdev, size, blocks, atime_ns, mtime_ns, ctime_ns,
             btime_ns, *rest, change_seq),
        )  # fmt: skip

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)


@dataclass(frozen=True, slots=True)
class Digest:
    """Checksums of one data version: SHA-256 of the whole and of each CHUNK of its bytes.

    For a file of at most one chunk the two are the same; an empty file has no chunks.
    """

    sha256: bytes
    chunks: tuple[bytes, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Requester:
    """Who asks: for waiters' lists, the log and the guard."""

    pid: int = 0
    """The process, not its thread; 0 for one of another pid namespace, and for hsmfs itself."""
    uid: int = 0
    gid: int = 0
    process: str = "hsmfs"
    nfs: bool = False
    client: str = ""
    """Address of the SMB client that smbd asks for."""

    @property
    def via(self) -> str:
        """How the request came in: local, nfs or smb."""
        return "nfs" if self.nfs else "smb" if self.process.startswith("smbd") else "local"

    def __str__(self) -> str:
        return f"{self.process}[{self.pid}] uid {self.uid}" if self.pid else self.process


@dataclass(frozen=True, slots=True)
class StoredPart:
    """Where the bytes [offset, offset+length) of one data version lie on one volume.

    Plain parts lie as they are at sector*2048. Compressed parts are zstd frames, one a chunk of
    the part; frame_ends holds the end of each, counted in stored bytes from the part's start.
    """

    volume: VolumeId
    part: int
    parts: int
    offset: int
    length: int
    sector: int
    stored: int
    """Bytes on the disc."""
    compressed: bool = False
    frame_ends: tuple[int, ...] = field(default=())
