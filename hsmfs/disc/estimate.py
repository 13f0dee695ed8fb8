"""How many sectors an image will take at most, known before it is built.

The bound follows what libisofs writes: directory records of at most 254 bytes that do not cross
a sector, continuation areas after each folder, and path tables. It is exact for the data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hsmfs.disc.lay import laid
from hsmfs.disc.layout import FILES, Kind, Placed, StagedFile, ancestors, continued, place
from hsmfs.disc.manifest import manifest_line
from hsmfs.disc.sums import sums_line
from hsmfs.types import SECTOR

_RECORDS_IN_SECTOR = SECTOR // 254
_FIXED = 64
"""System area, descriptors, path table ends, README, VOLUME.json and the root folder."""


class Estimator:
    """Adds up a volume as files are put on it, so that one can stop just under capacity."""

    def __init__(self, snapshot_bytes: int = 0) -> None:
        self._data = _sectors(snapshot_bytes)
        self._text = 0
        self._children: dict[bytes, list[int]] = {b"": [8, 0], FILES: [0, 0]}
        self._folders = 0
        self._path_table = 0

    @property
    def sectors(self) -> int:
        """Upper bound of the image's sectors with all that was added."""
        tables = 4 * _sectors(self._path_table)
        return _FIXED + self._data + self._folders + tables + _sectors(self._text) + 2

    def add(self, file: StagedFile) -> int:
        """Count one more file; returns the sectors that its data takes."""
        (item,) = place([file])
        data = _sectors(file.stored) if file.kind is Kind.FILE else 0
        self._data += data + laid(file, item.names)
        self._text += _text_bytes(item)
        for path in file.paths:
            # Whether or not the name finds its place: the bound must hold either way.
            self._count_name(FILES + b"/" + path + file.suffix, file)
        return data

    def _count_name(self, name: bytes, file: StagedFile) -> None:
        if file.kind is Kind.DIR and name not in self._children:
            self._folder(name)
        parent = None
        for folder in ancestors(name):
            if parent is None:
                parent = folder
            if folder in self._children:
                break
            self._folder(folder)
            self._in_folder(folder.rpartition(b"/")[0], continued(folder), 1)
        self._in_folder(parent or b"", continued(name, file.target), file.records)

    def _folder(self, name: bytes) -> None:
        self._children[name] = [0, 0]
        self._folders += 1
        self._path_table += 48

    def _in_folder(self, parent: bytes, continued: int, records: int) -> None:
        counts = self._children.setdefault(parent, [0, 0])
        before = _folder_sectors(*counts) if counts[0] else 0
        counts[0] += records
        counts[1] += continued * records
        self._folders += _folder_sectors(*counts) - before


def _folder_sectors(records: int, continued: int) -> int:
    return -(-(records + 2) // _RECORDS_IN_SECTOR) + _sectors(continued)


def estimate_sectors(files: Iterable[StagedFile], snapshot_bytes: int = 0) -> int:
    """Upper bound of the sectors of an image of these files."""
    estimator = Estimator(snapshot_bytes)
    for file in files:
        estimator.add(file)
    return estimator.sectors


def _text_bytes(item: Placed) -> int:
    """Bytes of its lines in MANIFEST.jsonl and SHA256SUMS."""
    file = item.file
    if file.kind is Kind.FILE and file.stored_sha256 is None:
        return _text_bytes(_with_sum(item))
    names = (sums_line(bytes(32), name) for name in item.stored if name is not None)
    return len(manifest_line(item)) + sum(map(len, names) if file.kind is Kind.FILE else ())


def _with_sum(item: Placed) -> Placed:
    return Placed(replace(item.file, stored_sha256=bytes(32)), item.stored)


def _sectors(size: int) -> int:
    return -(-size // SECTOR)
