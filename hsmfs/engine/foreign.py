"""Lines of another catalog's manifests, put below a folder: inodes, names, stubs and copies.

What is there already is left as it is, so that an adoption can be repeated. Every step is one line
inside the caller's transaction; what the kernel must be told of is collected for after it.
"""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass

from .. import clock
from ..catalog.catalog import Catalog
from ..disc.lines import Line
from ..errors import PosixError
from ..states import CopyState, FileState
from ..types import CHUNK, Attr, DataVersion, Digest, InodeNo, Range, StoredPart, VolumeId

_FIRST = DataVersion(1)
_SUM = 32


@dataclass(slots=True)
class Tally:
    """How far an adoption is."""

    disc: str = ""
    discs: int = 0
    discs_done: int = 0
    lines: int = 0
    made: int = 0
    copies: int = 0
    older: int = 0
    """Files that a newer disc holds in a newer version."""
    refused: int = 0
    """Names that were taken by something else."""


class Taker:
    """Puts lines below one folder.

    Attributes:
        tally: what was made.
        named: names that were made since the caller emptied it, with their folders.
    """

    def __init__(self, catalog: Catalog, folder: InodeNo, tally: Tally) -> None:
        self._catalog, self._root, self.tally = catalog, folder, tally
        self.named: list[tuple[InodeNo, bytes]] = []

    def take(self, line: Line, part: StoredPart | None, copy_no: int) -> None:
        """One line of a manifest; inside a transaction. part: where its bytes lie."""
        if stat.S_ISDIR(line.mode):
            self._take_folder(line)
            return
        table = self._catalog.foreign
        known = table.own(self._root, line.ino)
        if known is None:
            ino = self._make(line)
            if ino is None:
                return
            table.remember(self._root, line.ino, line.version, ino)
        elif known[1] != line.version:
            self.tally.older += 1
            return
        elif self._catalog.inodes.get_raw(known[0]) is None:
            return  # it was deleted here since
        else:
            ino = known[0]
        if part is not None:
            self._add(ino, part, copy_no)

    def _add(self, ino: InodeNo, part: StoredPart, copy_no: int) -> None:
        copies = self._catalog.copies
        have = copies.of(ino, _FIRST)
        if any(c.where.volume == part.volume and c.where.part == part.part for c in have):
            return
        if any(c.copy_no == copy_no and c.where.part == part.part for c in have):
            copy_no = max(c.copy_no for c in have) + 1  # its burn was repeated: each is a copy
        copies.add(ino, _FIRST, copy_no, part, CopyState.VALID)
        self.tally.copies += 1

    def _take_folder(self, line: Line) -> None:
        for path in line.names:
            if path in (b"", b"."):
                continue
            try:
                attr = self._folder(path)
            except PosixError:
                self.tally.refused += 1
                continue
            if self._catalog.foreign.own(self._root, line.ino) is None:
                self._catalog.foreign.remember(self._root, line.ino, line.version, attr.ino)
                self._catalog.inodes.put(
                    attr._replace(
                        mode=line.mode, uid=line.uid, gid=line.gid, atime_ns=line.atime_ns,
                        mtime_ns=line.mtime_ns, ctime_ns=line.ctime_ns,
                    )
                )  # fmt: skip
                for name, value in line.xattrs:
                    self._catalog.xattrs.set(attr.ino, name, value)

    def _folder(self, path: bytes) -> Attr:
        """The folder at a path, made if it is not there. Raises PosixError."""
        names = self._catalog.names
        attr = self._catalog.inodes.get_raw(self._root)
        assert attr is not None
        for name in filter(None, path.split(b"/")):
            found = names.lookup(attr.ino, name)
            if found is None:
                found = names.create(
                    attr.ino, name, stat.S_IFDIR | 0o755, attr.uid, attr.gid, clock.now_ns()
                )
                self.named.append((attr.ino, name))
            attr = found
        return attr

    def _make(self, line: Line) -> InodeNo | None:
        """The inode with all its names; None if every name is taken."""
        free: list[tuple[InodeNo, bytes]] = []
        for path in line.names:
            parent, _, name = path.rpartition(b"/")
            try:
                above = self._folder(parent)
                taken = self._catalog.names.lookup(above.ino, name) is not None
            except PosixError:
                taken = True
            if taken:
                self.tally.refused += 1
            else:
                free.append((above.ino, name))
        if not free:
            return None
        ino = self._catalog.inodes.reserve()
        regular = line.sha256 is not None
        state = (FileState.MIGRATED if line.size else FileState.PREMIGRATED) if regular else None
        attr = Attr(
            ino, line.mode, line.uid, line.gid, len(free), line.rdev, line.size, 0, line.atime_ns,
            line.mtime_ns, line.ctime_ns, line.btime_ns, state, None, _FIRST, _FIRST, False, False,
            0, 0,
        )  # fmt: skip
        self._catalog.inodes.insert_as(attr)
        for parent_ino, name in free:
            self._catalog.names.adopt(parent_ino, name, attr, clock.now_ns())
        self.named += free
        if stat.S_ISLNK(line.mode):
            self._catalog.names.set_target(ino, line.target)
        for name, value in line.xattrs:
            self._catalog.xattrs.set(ino, name, value)
        if line.sha256 is not None:
            self._catalog.copies.set_digest(ino, _FIRST, digest_of(line))
            if line.size:
                self._catalog.inodes.set_absent(ino, [Range(0, line.size)])
        self.tally.made += 1
        return ino


def digest_of(line: Line) -> Digest:
    """Checksums of a regular file."""
    assert line.sha256 is not None
    chunks = tuple(line.chunks[i : i + _SUM] for i in range(0, len(line.chunks), _SUM))
    if not chunks and 0 < line.size <= CHUNK:
        chunks = (line.sha256,)
    return Digest(line.sha256, chunks, line.size)


def part_of(line: Line, sector: int, stored: int) -> StoredPart:
    """Where a file's bytes lie, on a disc without a number yet."""
    ends = struct.unpack(f"<{len(line.frame_ends) // 8}Q", line.frame_ends)
    return StoredPart(
        VolumeId(0), line.part, line.parts, line.offset, line.length, sector, stored,
        line.compressed, ends,
    )  # fmt: skip
