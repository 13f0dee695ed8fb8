"""The redo log: what the loop's connection changed since its last commit, in statements.

A commit costs two writes for each page it changed, and an unlink changes nine. So the catalog keeps
a transaction open over many changes, and each is acknowledged as soon as its statements are in this
file, which is mapped: a copy in memory, no system call. The kernel keeps mapped pages when the
process dies. Whoever opens the catalog next runs the statements again, in their order, on the same
rows, so they come to the same (a statement must not depend on anything but the rows and its values:
no random(), no CURRENT_TIMESTAMP).

The log is never synced and need not be: `Catalog.sync` commits, and syncs the WAL. Each commit
stores a new epoch in `meta`, in the same transaction, and the log begins anew; a record of another
epoch, or one that is not whole, is the end of the log. Epochs begin with a random number at each
start, so no old file is ever taken for the catalog's own.

    record    epoch u64, length u32, CRC-32 u32 of epoch, length and payload; payload
    payload   marshal (version 4) of a list of (SQL, tuple of values)
"""

from __future__ import annotations

import marshal
import mmap
import os
import secrets
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

FILE = "catalog.redo"
SIZE = 8 << 20
"""Bytes of the file."""
_HEAD = struct.Struct("<QII")
_CHECKED = struct.Struct("<QI")
_FORMAT = 4
_EPOCHS = 1 << 62
"""SQLite's integers are signed, and an epoch is counted up."""

Statement = tuple[str, Sequence[object]]


class RedoLog:
    """The log of one open catalog.

    Attributes:
        epoch: what the records bear that are written now.
        used: bytes of them.
    """

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(fd).st_size < SIZE:
                # Real blocks: a store into a hole would end the process when the disk is full.
                os.pwrite(fd, bytes(SIZE - os.fstat(fd).st_size), os.fstat(fd).st_size)
                os.fsync(fd)
            self._map = mmap.mmap(fd, SIZE)
        finally:
            os.close(fd)
        self.epoch = 0
        self.used = 0

    def begin(self, epoch: int) -> None:
        """Forget the records: what they say is committed, and epoch with it."""
        self.epoch, self.used = epoch, 0

    def append(self, statements: Sequence[Statement]) -> bool:
        """Add a record; False if it does not fit. kill -9 loses nothing that is in it."""
        payload = _payload(statements)
        start = self.used + _HEAD.size
        end = start + len(payload)
        if end > SIZE:
            return False
        self._map[start:end] = payload
        # The head last: until it is whole there is no record.
        self._map[self.used : start] = _head(self.epoch, payload)
        self.used = end
        return True

    def records(self) -> Iterator[list[Statement]]:
        """The records of the epoch, in order; afterwards more can be appended behind them."""
        self.used = 0
        while self.used + _HEAD.size <= SIZE:
            head = self._map[self.used : self.used + _HEAD.size]
            epoch, length, _ = _HEAD.unpack(head)
            end = self.used + _HEAD.size + length
            if epoch != self.epoch or end > SIZE:
                return
            payload = self._map[self.used + _HEAD.size : end]
            if head != _head(epoch, payload):
                return
            self.used = end
            yield marshal.loads(payload)

    def close(self) -> None:
        """Let go of the file."""
        self._map.close()


def new_epoch() -> int:
    """An epoch that no file has."""
    return secrets.randbelow(_EPOCHS) + 1


def _head(epoch: int, payload: bytes) -> bytes:
    checked = _CHECKED.pack(epoch, len(payload))
    return _HEAD.pack(epoch, len(payload), zlib.crc32(payload, zlib.crc32(checked)))


def _payload(statements: Sequence[Statement]) -> bytes:
    data: Any = statements
    try:
        return marshal.dumps(data, _FORMAT)
    except ValueError:  # of a type that is not one of Python's basic ones itself
        return marshal.dumps([(sql, _plain(values)) for sql, values in statements], _FORMAT)


def _plain(values: Sequence[object]) -> tuple[object, ...]:
    """Values as SQLite sees them: enumerations are integers, views are bytes."""
    return tuple(
        int(value)
        if isinstance(value, int)
        else bytes(value)
        if isinstance(value, (bytearray, memoryview))
        else value
        for value in values
    )
