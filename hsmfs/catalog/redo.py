"""The redo log: what the loop's connection changed since its last commit, in statements.

A commit costs two writes for each page it changed, and an unlink changes nine. So the catalog keeps
a transaction open over many changes, and each is acknowledged as soon as its statements are in this
file, which is mapped: a copy in memory, no system call. The kernel keeps mapped pages when the
process dies. Whoever opens the catalog next runs the statements again, in their order, on the same
rows, so they come to the same (a statement must not depend on anything but the rows and its values:
no random(), no CURRENT_TIMESTAMP).

The log is endless: a record's place is the number of bytes before it, and the file a ring of the
last SIZE bytes. Each commit stores in `meta`, in the same transaction, the place it goes up to. A
record that is not whole, or bears another place than its own, is the end of the log. Places begin
with a random number at each start, so no old record is taken for a new one.

A second ring is for power cuts: `flush` writes there what was added, and has it synced. That is one
write in place, where a commit changes a dozen pages and makes the WAL longer. A power cut
may take the database back to the last commit whose WAL was synced (`anchored`), so from there on
the second file keeps all. The mapped file is never synced, since a store to a page that was waits
for the filesystem's journal, and it is the event loop that stores.

    record    place u64, length u32, CRC-32 u32 of place, length and payload; payload
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

from .. import clock, crash, durable, logs, pressure

FILE = "catalog.redo"
SYNCED = "catalog.redo-synced"
SIZE = 4 << 20
"""Bytes of each file."""
_HEAD = struct.Struct("<QII")
_CHECKED = struct.Struct("<QI")
_FORMAT = 4
_PLACES = 1 << 62
"""SQLite's integers are signed, and places are counted up."""

Statement = tuple[str, Sequence[object]]

log = logs.get(__name__)


class RedoLog:
    """The log of one open catalog.

    Attributes, all of them places:
        end: where the next record goes.
        committed: the database holds all before it; kill -9 leaves it so.
        anchored: the database holds all before it after a power cut, too.
        flushed: from `anchored` up to it the second file holds all, durably.
    """

    def __init__(self, folder: Path) -> None:
        fd = _file(folder / FILE)
        try:
            self._map = mmap.mmap(fd, SIZE)
        finally:
            os.close(fd)
        self._fd = _file(folder / SYNCED)
        self._synced = mmap.mmap(self._fd, SIZE, access=mmap.ACCESS_READ)
        durable.sync(folder)
        self._thread = clock.Beside("redo")
        self.begin(0)

    def begin(self, place: int) -> None:
        """The log is empty: the database holds all before that place, durably."""
        self.end = self.committed = self.anchored = self.flushed = self._first = place

    def append(self, statements: Sequence[Statement]) -> bool:
        """Add a record; False if it does not fit. kill -9 loses nothing that is in it."""
        payload = _payload(statements)
        data = _head(self.end, payload) + payload
        end, size = self.end + len(data), len(self._map)
        if end - self._first > size:
            self._first = self.committed  # what is not flushed either must be synced by the WAL
            if end - self._first > size:
                return False
        start, room = self.end % size, size - self.end % size
        self._map[start : start + len(data)] = data[:room]
        if len(data) > room:
            self._map[: len(data) - room] = data[room:]
        self.end = end
        return True

    def beyond(self) -> int:
        """The place after a commit of what did not fit: the ring has nothing from before it."""
        return self.end + len(self._map)

    def commit(self, place: int) -> None:
        """The database holds all before that place, `end` or `beyond`."""
        self.committed = self.end = place

    def anchor(self, place: int) -> None:
        """And its WAL is durable up to there."""
        self.anchored = place
        self._first = max(self._first, place)

    @property
    def whole(self) -> bool:
        """Whether `flush` makes all durable: nothing is missing, and the file has room for it."""
        return (
            self._first <= max(self.flushed, self.anchored)
            and self.end - self.anchored <= len(self._map) // 2
        )

    async def flush(self) -> bool:
        """Make all records durable; only if the log is `whole`, and by one at a time.

        False if the file cannot be written: the kernel tells of a lost page once, so that then the
        WAL must be synced.
        """
        start, end = max(self.flushed, self.anchored), self.end
        if start < end:
            data = _read(self._map, start, end - start)
            try:
                await self._store(start, data)
            except OSError as fault:
                log.warning("the redo log cannot be synced, so the WAL is", error=fault)
                return False
        self.flushed = end
        return True

    async def _store(self, place: int, data: bytes) -> None:
        """Into the second file, durably; by a thread while the disks are busy, since then the page
        cache may wait for them, too.
        """
        if pressure.DISK.busy():
            await self._thread.run(lambda: self._write_and_sync(place, data))
        else:
            sleeps = pressure.DISK.begin()
            self._write(place, data)
            pressure.DISK.ended(sleeps)
            await durable.flushed(self._fd, data_only=True)
        crash.point("catalog.redo.synced")

    def _write(self, place: int, data: bytes) -> None:
        size = len(self._map)
        start, room = place % size, size - place % size
        durable.write_all(self._fd, data[:room], start)
        if len(data) > room:
            durable.write_all(self._fd, data[room:], 0)
        crash.point("catalog.redo.written")

    def _write_and_sync(self, place: int, data: bytes) -> None:
        self._write(place, data)
        os.fdatasync(self._fd)

    def records(self, place: int) -> Iterator[list[Statement]]:
        """The records from that place on, in order, each of the file that has it."""
        while found := _payload_at(self._map, place) or _payload_at(self._synced, place):
            place += _HEAD.size + len(found)
            yield marshal.loads(found)

    def close(self) -> None:
        """Let go of the files."""
        self._thread.end()
        self._map.close()
        self._synced.close()
        os.close(self._fd)


def new_place() -> int:
    """A place that no file has."""
    return secrets.randbelow(_PLACES) + 1


def _file(path: Path) -> int:
    """The open file, with real blocks: a store into a hole of one that is mapped would end the
    process when the disk is full."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(fd).st_size
        if size < SIZE:
            durable.write_all(fd, bytes(SIZE - size), size)
            os.fsync(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _read(ring: mmap.mmap, place: int, length: int) -> bytes:
    start = place % len(ring)
    data = ring[start : start + length]
    return data + ring[: length - len(data)]


def _payload_at(ring: mmap.mmap, place: int) -> bytes:
    """What the record there says; empty if there is none."""
    head = _read(ring, place, _HEAD.size)
    _, length, _ = _HEAD.unpack(head)
    if length > len(ring) - _HEAD.size:
        return b""
    payload = _read(ring, place + _HEAD.size, length)
    return payload if head == _head(place, payload) else b""


def _head(place: int, payload: bytes) -> bytes:
    checked = _CHECKED.pack(place, len(payload))
    return _HEAD.pack(place, len(payload), zlib.crc32(payload, zlib.crc32(checked)))


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
