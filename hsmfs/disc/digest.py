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


def digest_file(source: Path | int, buffer: bytearray | None = None) -> Digest:
    """Digest of a file, by its path or an open descriptor (whose position is left alone).

    buffer: CHUNK bytes to read into; for many files one after the other, as fresh memory has to be
    cleared. Blocking. Beyond the first chunk two threads hash side by side. Raises OSError.
    """
    if buffer is None:
        buffer = bytearray(CHUNK)
    if isinstance(source, int):
        return _digest_fd(source, buffer)
    fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _digest_fd(fd, buffer)
    finally:
        os.close(fd)


def _digest_fd(fd: int, buffer: bytearray) -> Digest:
    first = read_full(fd, buffer, 0)
    if len(first) == CHUNK:
        return _digest_long(fd, first, buffer)
    whole = hashlib.sha256(first).digest()
    return Digest(whole, (whole,) if first else (), len(first))


def _digest_long(fd: int, first: memoryview, spare: bytearray) -> Digest:
    state = hashlib.sha256(first)
    chunks = [state.digest()]
    whole = state.copy()
    size = len(first)
    buffers = [spare, bytearray(CHUNK)]
    with ThreadPoolExecutor(1, "hsmfs-digest") as pool:
        pending: Future[None] | None = None
        while piece := read_full(fd, buffers[len(chunks) % 2], size):
            if pending:
                pending.result()
            pending = pool.submit(whole.update, piece)
            chunks.append(hashlib.sha256(piece).digest())
            size += len(piece)
        if pending:
            pending.result()
    return Digest(whole.digest(), tuple(chunks), size)


def read_full(fd: int, buffer: bytearray | memoryview, offset: int) -> memoryview:
    """Read until the buffer is full or the file ends, so that a short read never splits a chunk."""
    view = memoryview(buffer)
    done = 0
    while done < len(buffer) and (n := os.preadv(fd, [view[done:]], offset + done)):
        done += n
    return view[:done]
