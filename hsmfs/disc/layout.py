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
from typing import Any

from hsmfs.types import CHUNK, SECTOR, DataVersion, Digest, InodeNo

FORMAT_VERSION = 1
PATH_MAX = 1000
"""Bytes of a stored path from the root of the disc, or of a symlink's target: libisofs and many
readers of Rock Ridge stop at 1024."""
NAME_MAX = 253
"""Bytes of a stored name: most Linux kernels cut longer Rock Ridge names (fs/isofs/rock.c)."""
EXTENT_MAX = (1 << 32) - SECTOR
"""Bytes in one extent of a file; a longer file has several, one behind the other."""
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
    kept: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the manifest that say how long it is kept: retention, holds, retention_folder."""

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
    def records(self) -> int:
        """Directory records that each name takes: one for each extent."""
        return 1 + self.stored // EXTENT_MAX

    @property
    def chunks(self) -> range:
        """Indices into digest.chunks of the chunks in this part."""
        first = self.offset // CHUNK
        return range(first, first + -(-self.length // CHUNK))


def volume_id(barcode: str) -> str:
    """The volume identifier of the filesystem on the disc with that barcode (ECMA-119, 8.4.7)."""
    return re.sub("[^A-Z0-9_]", "_", f"HSM_{barcode}".upper())[:32]


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
    copy_no: int | None = None
    """Which copy of its files the disc holds, from 1; None on discs that do not say."""
    archive: str | None = None
    """UUID of the archive that wrote it; None on discs that do not say."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A staged file with the stored path of each of its names, None where there is only a line
    in the manifest."""

    file: StagedFile
    stored: tuple[bytes | None, ...]

    @property
    def names(self) -> list[bytes]:
        """The stored paths that it has."""
        return [path for path in self.stored if path is not None]

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
    tree = _Tree(_folders(files))
    stored: dict[Key, tuple[bytes | None, ...]] = {}
    for file in sorted(files, key=lambda file: bool(file.suffix)):
        stored[file.key] = _place_one(file, tree)
    return [Placed(file, stored[file.key]) for file in files]


def _place_one(file: StagedFile, tree: _Tree) -> tuple[bytes | None, ...]:
    result: list[bytes | None] = []
    for path in file.paths:
        name = FILES + b"/" + path + file.suffix
        # xorriso would store the bytes of a part once for each name.
        wanted = file.parts == 1 or not any(result)
        result.append(name if wanted and tree.take(name, file) else None)
    if file.kind is Kind.FILE and not any(result):
        result[0] = LONG + b"/%d-%d" % (file.ino, file.version) + file.suffix
    return tuple(result)


class _Tree:
    """The names under files/ so far, and the room that each folder has for long ones.

    What does not fit in a directory record of 254 bytes goes to the folder's continuation area.
    libisofs 1.5.4 (Debian 12) miscounts some areas of more than one sector and then fails with
    "tree end address mismatch", so each folder gets one sector of it.
    """

    def __init__(self, folders: set[bytes]) -> None:
        self._folders = folders
        self._taken: set[bytes] = set()
        self._seen: set[bytes] = {FILES}
        self._continued: dict[bytes, int] = {}

    def take(self, name: bytes, file: StagedFile) -> bool:
        """Claim a stored path if it is free, and fits."""
        if not _storable(name) or len(file.target) > PATH_MAX or name in self._taken:
            return False
        if file.kind is not Kind.DIR and name in self._folders:
            return False
        if not self._has_room(name, file):
            return False
        self._taken.add(name)
        return True

    def _has_room(self, name: bytes, file: StagedFile) -> bool:
        cost = continued(name, file.target) * file.records
        fresh = [] if name in self._seen else [(name, cost)]
        for folder in ancestors(name):
            if folder in self._seen:
                break
            fresh.append((folder, continued(folder)))
        for path, cost in fresh:
            if self._continued.get(path.rpartition(b"/")[0], 0) + cost > SECTOR:
                return False
        for path, cost in fresh:
            self._seen.add(path)
            if cost:
                parent = path.rpartition(b"/")[0]
                self._continued[parent] = self._continued.get(parent, 0) + cost
        return True


def continued(name: bytes, target: bytes = b"") -> int:
    """Upper bound of the bytes that an entry needs in its folder's continuation area.

    A record's 254 bytes hold 34 fixed ones, the plain identifier (up to 34), PX (44), TF (26) and,
    if it is continued, CE (28).
    """
    fields = 5 + len(name.rpartition(b"/")[2])
    if target:
        fields += 5 + len(target) + 2 * (target.count(b"/") + 1)
    return 0 if fields <= 110 else fields - 88 + 10 + fields // 40


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
