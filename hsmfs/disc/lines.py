"""Lines of a manifest as plain tuples, read quickly: what a catalog is made from again.

The same keys as `manifest.parse_line` understands (docs/disc-format.md section 4), without building
a value for each file: a rebuild reads tens of millions. Values are kept as the catalog keeps them.
"""

from __future__ import annotations

import re
import stat
import struct
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import from_json

from hsmfs.disc.layout import Kind
from hsmfs.disc.manifest import KEPT, MANIFEST
from hsmfs.errors import ForeignDisc
from hsmfs.types import CHUNK

TYPES = {
    Kind.FILE.value: stat.S_IFREG,
    Kind.DIR.value: stat.S_IFDIR,
    Kind.SYMLINK.value: stat.S_IFLNK,
    Kind.FIFO.value: stat.S_IFIFO,
    Kind.SOCKET.value: stat.S_IFSOCK,
    Kind.CHAR.value: stat.S_IFCHR,
    Kind.BLOCK.value: stat.S_IFBLK,
}
_FOLDER = re.compile(rb'"kind": ?"dir"')
_SUM = 32
_KEPT = frozenset(KEPT)


class Line(NamedTuple):
    """One inode, or one part of a file, as its disc describes it; times UTC ns, sizes bytes.

    The fields before `names` are a row of the catalog's staging table, in its order.
    """

    ino: int
    version: int
    mode: int
    """Type and permissions, as st_mode."""
    uid: int
    gid: int
    rdev: int
    size: int
    """Of the whole file; of a link the length of its target, of a folder 0."""
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int
    sha256: bytes | None
    """None for what is no file."""
    chunks: bytes
    """Checksums, one after the other; empty if the only chunk's is sha256."""
    part: int
    """From 0."""
    parts: int
    offset: int
    length: int
    stored_path: bytes
    """Where on the disc the bytes are; empty for what is no file."""
    stored: int
    compressed: bool
    frame_ends: bytes
    """8 bytes little-endian each."""
    links: int
    """How many names it has."""
    names: list[bytes]
    """True paths, relative to the root."""
    xattrs: list[tuple[bytes, bytes]]
    target: bytes
    kept: dict[str, Any] | None = None
    """What it says of retention and holds."""


def lines(manifest: Path, *, folders: bool = False) -> Iterator[Line]:
    """The lines of a manifest file in their order; only those of folders, if asked for.

    Raises ForeignDisc if one is not readable, OSError.
    """
    with manifest.open("rb", buffering=1 << 20) as file:
        for line in file:
            if line != b"\n" and (not folders or _FOLDER.search(line)):
                yield parse(line)


def parse(line: bytes) -> Line:
    """One line. Raises ForeignDisc if it is none of a manifest."""
    try:
        return _parse(from_json(line))
    except (KeyError, TypeError, ValueError) as error:
        raise ForeignDisc(
            f"a line of {MANIFEST} is not readable: {error!r}: {line[:80]!r}"
        ) from error


def _parse(line: dict[str, Any]) -> Line:
    ino, kind = line["ino"], line["kind"]
    names, stored_path = [], b""
    for name in line["names"]:
        names.append(name["path"].encode() if "path" in name else b64decode(name["path_b64"]))
        if not stored_path:
            stored_path = _bytes(name, "stored")
    sha256, chunks, ends, target = None, b"", b"", b""
    size = part = offset = length = stored = 0
    parts = 1
    if kind == "file":
        size = length = line["size"]
        sha256, chunks = _sums(line, size)
        if "part" in line:
            piece = line["part"]
            part, parts = piece["part"] - 1, piece["parts"]
            offset, length = piece["offset"], piece["length"]
        stored = line["stored_size"]
        if "frame_ends" in line:
            ends = struct.pack(f"<{len(line['frame_ends'])}Q", *line["frame_ends"])
    elif kind == "symlink":
        target = _bytes(line, "target")
        size = len(target)
    xattrs = line.get("xattrs")
    return Line(
        ino, line["version"], TYPES[kind] | line["mode"], line["uid"], line["gid"],
        line.get("rdev", 0), size, line["atime_ns"], line["mtime_ns"], line["ctime_ns"],
        line["btime_ns"], sha256, chunks, part, parts, offset, length,
        stored_path if kind == "file" else b"", stored, line.get("compression") == "zstd", ends,
        len(names), names,
        [(_bytes(x, "name"), b64decode(x["value_b64"])) for x in xattrs] if xattrs else [],
        target,
        None if _KEPT.isdisjoint(line) else {key: line[key] for key in KEPT if key in line},
    )  # fmt: skip


def _sums(line: dict[str, Any], size: int) -> tuple[bytes, bytes]:
    whole = bytes.fromhex(line["sha256"])
    chunks = bytes.fromhex("".join(line["chunks"])) if "chunks" in line else b""
    wanted = -(-size // CHUNK) * _SUM if size > CHUNK else 0
    if len(whole) != _SUM or len(chunks) != wanted:
        raise ValueError(f"{len(chunks) // _SUM} chunk checksums for {size} bytes")
    return whole, chunks


def _bytes(line: dict[str, Any], key: str) -> bytes:
    if key in line:
        return str(line[key]).encode()
    coded = line.get(key + "_b64")
    return b"" if coded is None else b64decode(coded)
