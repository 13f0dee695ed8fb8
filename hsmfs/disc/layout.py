"""What one volume is to hold, as frozen values, and where each thing gets its place in the tree.

Stored names follow docs/disc-format.md section 3: `files/PATH` where that is possible, else
`files.long/INO-VERSION`, else (links, folders, specials) the manifest alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from hsmfs.types import CHUNK, DataVersion, Digest, InodeNo

FORMAT_VERSION = 1
PATH_MAX = 1000
"""Bytes of a stored path from the root of the disc, or of a symlink's target: libisofs and many
readers of Rock Ridge stop at 1024."""
NAME_MAX = 253
"""Bytes of a stored name: most Linux kernels cut longer Rock Ridge names (fs/isofs/rock.c)."""
FILES = b"files"
LONG = b"files.long"

Key = tuple[InodeNo, DataVersion, int]
"""(inode, data version, part): what names one stored thing on a volume."""


class Kind(StrEnum):
    """What an inode is."""

    FILE = "file"
    DIR = "dir"
    SYMLINK = "symlink"
    FIFO = "fifo"
    SOCKET = "socket"
    CHAR = "char"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class StagedFile:
    """One inode, or one part of a large file, as it goes on a volume.

    Paths are relative to the mount, bytes, all hard-link names at the time. Times are UTC ns;
    mode holds the permission bits only. For files: source holds the bytes to store from
    source_offset on (plain, or a finished .zst if compressed), stored of them; they are the bytes
    [offset, offset+length) of the version, and offset is a multiple of CHUNK.
    """

    ino: InodeNo
    version: DataVersion
    paths: tuple[bytes, ...]
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    atime_ns: int
    ctime_ns: int
    btime_ns: int
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)
    digest: Digest | None = None
    source: Path | None = None
    source_offset: int = 0
    part: int = 1
    parts: int = 1
    offset: int = 0
    length: int = 0
    stored: int = 0
    stored_sha256: bytes | None = None
    """Checksum of the stored bytes; None lets the image builder find it, by reading if it must."""
    compressed: bool = False
    frame_ends: tuple[int, ...] = ()
    target: bytes = b""
    rdev: int = 0

    def __post_init__(self) -> None:
        if not self.paths or not all(_relative(path) for path in self.paths):
            raise ValueError(f"inode {self.ino}: paths must be relative and clean: {self.paths!r}")
        if self.kind is not Kind.FILE:
            return
        if self.digest is None:
            raise ValueError(f"inode {self.ino}: a file needs its digest")
        if self.offset % CHUNK or self.offset + self.length > self.digest.size:
            raise ValueError(
                f"inode {self.ino}: part {self.offset}+{self.length} is not whole chunks"
            )
        if not 1 <= self.part <= self.parts <= 9999 or (self.parts == 1) != (
            self.length == self.digest.size
        ):
            raise ValueError(f"inode {self.ino}: part {self.part} of {self.parts} is no part")
        if not self.compressed and self.stored != self.length:
            raise ValueError(f"inode {self.ino}: {self.stored} bytes stored of {self.length}")

    @property
    def key(self) -> Key:
        return self.ino, self.version, self.part

    @property
    def suffix(self) -> bytes:
        """What the stored name has more than the true one."""
        packed = b".zst" if self.compressed else b""
        return packed + (b".part-%04d-of-%04d" % (self.part, self.parts) if self.parts > 1 else b"")

    @property
    def chunks(self) -> range:
        """Indices into digest.chunks of the chunks in this part."""
        first = self.offset // CHUNK
        return range(first, first + -(-self.length // CHUNK))


@dataclass(frozen=True, slots=True)
class VolumeLabel:
    """Who a volume is: its place in a set of k data and m parity discs, counted from 1."""

    uuid: str
    barcode: str
    set_name: str
    set_uuid: str
    index: int
    k: int
    m: int
    created_ns: int
    format_version: int = FORMAT_VERSION
    previous_root: str | None = None
    """Root hash (hex) of the set before, which chains the sets."""
    audit_head: str | None = None
    """Head of the audit chain when the image was made, if there is one."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A staged file with the stored path of each of its names, None where there is only a line
    in the manifest."""

    file: StagedFile
    stored: tuple[bytes | None, ...]

    @property
    def data(self) -> bytes | None:
        """The stored path to read the bytes by."""
        return next((path for path in self.stored if path is not None), None)


def place(files: Sequence[StagedFile]) -> list[Placed]:
    """Give every name its stored path. Raises ValueError if a key is there twice.

    True names come first; a derived one (.zst, .part-) that meets a true one gives way.
    """
    if len({file.key for file in files}) != len(files):
        raise ValueError("the same part of the same version is staged twice")
    folders = _folders(files)
    taken: set[bytes] = set()
    stored: dict[Key, tuple[bytes | None, ...]] = {}
    for file in sorted(files, key=lambda file: bool(file.suffix)):
        stored[file.key] = _place_one(file, folders, taken)
    return [Placed(file, stored[file.key]) for file in files]


def _place_one(
    file: StagedFile, folders: set[bytes], taken: set[bytes]
) -> tuple[bytes | None, ...]:
    result: list[bytes | None] = []
    for path in file.paths:
        name = FILES + b"/" + path + file.suffix
        fits = _storable(name) and len(file.target) <= PATH_MAX
        if not fits or name in taken or (file.kind is not Kind.DIR and name in folders):
            result.append(None)
        elif file.parts > 1 and any(result):
            # xorriso would store the bytes of a part once for each name.
            result.append(None)
        else:
            taken.add(name)
            result.append(name)
    if file.kind is Kind.FILE and not any(result):
        result[0] = LONG + b"/%d-%d" % (file.ino, file.version) + file.suffix
    return tuple(result)


def _folders(files: Iterable[StagedFile]) -> set[bytes]:
    found: set[bytes] = set()
    for file in files:
        for path in file.paths:
            name = FILES + b"/" + path
            if file.kind is Kind.DIR and _storable(name):
                found.add(name)
            if _storable(name + file.suffix):
                found.update(ancestors(name))
    return found


def ancestors(path: bytes) -> Iterable[bytes]:
    """Every folder above a stored path, nearest first."""
    while b"/" in path:
        path = path.rpartition(b"/")[0]
        yield path


def _storable(name: bytes) -> bool:
    return len(name) <= PATH_MAX and all(len(part) <= NAME_MAX for part in name.split(b"/"))


def _relative(path: bytes) -> bool:
    return b"\0" not in path and not re.search(rb"(\A|/)(\.{0,2})(/|\Z)", path)
