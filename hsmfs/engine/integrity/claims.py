"""Checksums that clients left with their files: in an extended attribute, or in a SHA256SUMS.

    user.checksum.sha256   hexadecimal SHA-256, as BuildStream, Bazel and passim write it
    user.shatag.sha256     the same of shatag and cshatag; counts while user.shatag.ts is the mtime
    SHA256SUMS             lines of sha256sum, in the file's folder or one above; the nearest that
                           names the file counts

Attributes go before a sums file. Of a sums file only what is on disk can be read, and no more than
SUMS_BYTES. Blocking: used in threads, on a snapshot.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from dataclasses import dataclass

from ... import logs
from ...catalog.reports import Reports
from ...limits import SUMS_BYTES
from ...pool.pools import Pools
from ...sealing import sums
from ...types import ROOT, Attr, InodeNo

log = logs.get(__name__)
NAME = b"SHA256SUMS"
CHECKSUM, SHATAG, SHATAG_TIME = b"user.checksum.sha256", b"user.shatag.sha256", b"user.shatag.ts"
_HEX = re.compile(rb"[0-9a-fA-F]{64}[\x00\n]?")
_TIME = re.compile(rb"(\d{1,12})(?:\.(\d{1,9})\d*)?[\x00\n]?")
_SAME_NS = 1_000_000
"""shatag keeps the mtime as a floating point number: nearer than this is the same."""
_FILES_KEPT = 4
"""Sums files of which the lines are remembered."""
_DEPTH = 64
"""Folders above a file in which a sums file is looked for."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a client says of a file; source is where, for people."""

    sha256: bytes
    source: str


Above = dict[InodeNo, list[tuple[Attr, bytes]]]
"""By folder: the sums files in it and above, the nearest first, each with the folder's path there.
For many files of one snapshot."""
Seen = tuple[InodeNo, int, int]
"""A sums file as it was read: inode, mtime, size."""


class Claims:
    """Finds what clients say; remembers the lines of the last sums files."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self._lines: OrderedDict[Seen, dict[bytes, str]] = OrderedDict()

    def of(self, reports: Reports, attr: Attr, above: Above) -> Claim | None:
        """What somebody says of the file as attr has it, or None. above: {} for a new snapshot."""
        return _attribute(reports, attr) or self._listed(reports, attr.ino, above)

    def _listed(self, reports: Reports, ino: InodeNo, above: Above) -> Claim | None:
        for folder, name in reports.names.links(ino)[:1]:
            if folder not in above:
                above[folder] = _sums_files(reports, folder)
            for file, prefix in above[folder]:
                found = self._sums(reports, file) if file.ino != ino else {}
                path = prefix + name
                sha256 = found.get(path) or found.get(b"./" + path)
                if sha256 is not None:
                    where = b"/" + reports.names.paths(file.ino, 1)[0]
                    return Claim(bytes.fromhex(sha256), logs.printable(where))
        return None

    def _sums(self, reports: Reports, file: Attr) -> dict[bytes, str]:
        """The lines of a sums file, as far as it can be read."""
        if file.pool is None or reports.inodes.absent(file.ino):
            return {}
        try:
            with open(self._pools[file.pool].path_of(file.ino), "rb") as source:
                now = os.fstat(source.fileno())
                seen = (file.ino, now.st_mtime_ns, now.st_size)
                if seen not in self._lines:
                    self._lines[seen] = self._read(source.read(SUMS_BYTES + 1), file)
                    while len(self._lines) > _FILES_KEPT:
                        self._lines.popitem(last=False)
                return self._lines[seen]
        except FileNotFoundError:  # it has no byte yet, or was deleted meanwhile
            return {}

    def _read(self, data: bytes, file: Attr) -> dict[bytes, str]:
        if len(data) > SUMS_BYTES:
            log.warning("sums file too large: not compared with", ino=file.ino, limit=SUMS_BYTES)
            return {}
        return sums.known(data)


def _sums_files(reports: Reports, folder: InodeNo) -> list[tuple[Attr, bytes]]:
    found, prefix = list[tuple[Attr, bytes]](), b""
    for _ in range(_DEPTH):
        file = reports.names.lookup(folder, NAME)
        if file is not None and file.is_file:
            found.append((file, prefix))
        if folder == ROOT or not (links := reports.names.links(folder)):
            break
        folder, step = links[0]
        prefix = step + b"/" + prefix
    return found


def _attribute(reports: Reports, attr: Attr) -> Claim | None:
    given = reports.xattrs.all(attr.ino)
    if (value := given.get(CHECKSUM)) is not None and _HEX.fullmatch(value):
        return Claim(bytes.fromhex(value[:64].decode()), CHECKSUM.decode())
    if (value := given.get(SHATAG)) is not None and _HEX.fullmatch(value):
        then = _TIME.fullmatch(given.get(SHATAG_TIME, b""))
        if then is not None:
            ns = int(then[1]) * 10**9 + int((then[2] or b"").ljust(9, b"0"))
            if abs(ns - attr.mtime_ns) < _SAME_NS:
                return Claim(bytes.fromhex(value[:64].decode()), SHATAG.decode())
    return None
