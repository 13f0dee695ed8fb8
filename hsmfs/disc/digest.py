"""SHA-256 of a data version: of the whole and of each CHUNK of it.

Relies on hashlib letting other threads run while it hashes. The first chunk is never hashed twice:
its state becomes the start of the whole's.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from hsmfs.types import CHUNK, Digest


class Digester:
    """Takes the bytes of a file in order, in pieces of any size, and gives its Digest."""

    def __init__(self) -> None:
        self._chunk = hashlib.sha256()
        self._whole: hashlib._Hash | None = None
        self._chunks: list[bytes] = []
        self._in_chunk = 0
        self._size = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes."""
        view = memoryview(data)
        while view:
            if self._in_chunk == CHUNK:
                self._close_chunk()
            piece = view[: CHUNK - self._in_chunk]
            self._chunk.update(piece)
            if self._whole is not None:
                self._whole.update(piece)
            self._in_chunk += len(piece)
            self._size += len(piece)
            view = view[len(piece) :]

    def finish(self) -> Digest:
        """The Digest of all bytes taken."""
        if self._in_chunk:
            self._chunks.append(self._chunk.digest())
        whole = self._chunk if self._whole is None else self._whole
        return Digest(whole.digest(), tuple(self._chunks), self._size)

    def _close_chunk(self) -> None:
        self._chunks.append(self._chunk.digest())
        if self._whole is None:
            self._whole = self._chunk.copy()
        self._chunk = hashlib.sha256()
        self._in_chunk = 0


def digest_file(source: Path | int) -> Digest:
    """Digest of a file, by its path or an open descriptor (whose position is left alone).

    Blocking. Beyond the first chunk two threads hash side by side. Raises OSError.
    """
    if isinstance(source, int):
        return _digest_fd(source)
    fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _digest_fd(fd)
    finally:
        os.close(fd)


def _digest_fd(fd: int) -> Digest:
    buffers = (bytearray(min(CHUNK, max(os.fstat(fd).st_size, 64 * 1024))), bytearray(0))
    first = _fill(fd, buffers[0], 0)
    if len(first) < CHUNK:
        digester = Digester()
        offset = 0
        while first:
            digester.update(first)
            offset += len(first)
            first = _fill(fd, buffers[0], offset)
        return digester.finish()
    return _digest_long(fd, first, buffers[0])


def _digest_long(fd: int, first: memoryview, spare: bytearray) -> Digest:
    state = hashlib.sha256(first)
    chunks = [state.digest()]
    whole = state.copy()
    size = len(first)
    buffers = [spare, bytearray(CHUNK)]
    with ThreadPoolExecutor(1, "hsmfs-digest") as pool:
        pending: Future[None] | None = None
        while piece := _fill(fd, buffers[len(chunks) % 2], size):
            if pending:
                pending.result()
            pending = pool.submit(whole.update, piece)
            chunks.append(hashlib.sha256(piece).digest())
            size += len(piece)
        if pending:
            pending.result()
    return Digest(whole.digest(), tuple(chunks), size)


def _fill(fd: int, buffer: bytearray, offset: int) -> memoryview:
    """Read until the buffer is full or the file ends, so that a short read never splits a chunk."""
    view = memoryview(buffer)
    done = 0
    while done < len(buffer) and (n := os.preadv(fd, [view[done:]], offset + done)):
        done += n
    return view[:done]
