"""Images of data discs folded into parity rows in the spool; blocking, run in threads.

A row is never changed in place: adding a disc twice would take it out again. The new row is written
beside the old one, made durable and only then named in the catalog, so that a crash at any moment
leaves the old row or the new one. Every byte that goes in is checked against the SHA-256 that it
had when it was read back from the disc.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .. import durable
from ..disc.digest import read_full
from ..disc.parity import parity_of
from ..errors import HsmError

BLOCK = 1024 * 1024
"""Bytes of each file that are in memory at once."""
_HASHERS = 2


class WrongImages(HsmError):
    """Some files in the spool are not what they should be: indices of images, old rows as None."""

    def __init__(self, wrong: Sequence[int | None]) -> None:
        super().__init__(f"files in the spool are not what they should be: {list(wrong)}")
        self.wrong = tuple(wrong)


@dataclass(frozen=True, slots=True)
class Source:
    """A file that goes in: of index `index`, or an old row (None), with its hex SHA-256."""

    path: Path
    size: int
    sha256: str
    index: int | None


@dataclass(frozen=True, slots=True)
class RowJob:
    """A row to be made: from nothing, or from what it was."""

    row: int
    dest: Path
    old: Source | None = None


@dataclass(frozen=True, slots=True)
class Folded:
    """A row as it is now, durable."""

    row: int
    size: int
    sha256: str


class _Feed:
    """Reads one file block by block and hashes it."""

    def __init__(self, source: Source, pool: ThreadPoolExecutor) -> None:
        self.source, self._pool = source, pool
        self._file = source.path.open("rb", buffering=0)
        self._sha = hashlib.sha256()
        self.right_size = os.fstat(self._file.fileno()).st_size == source.size
        self.pending = pool.submit(int)
        self.data = bytearray(BLOCK)

    def fill(self, offset: int) -> int:
        """The next block, with zeros behind the end; bytes that are the file's."""
        self.pending.result()
        view = memoryview(self.data)
        count = max(0, min(BLOCK, self.source.size - offset))
        done = len(read_full(self._file.fileno(), view[:count], offset))
        view[done:] = bytes(BLOCK - done)
        self.pending = self._pool.submit(self._hash, done)
        return done

    def _hash(self, count: int) -> int:
        self._sha.update(memoryview(self.data)[:count])
        return count

    def right(self) -> bool:
        """Whether all of it was as it should be, once it was read to its end."""
        self.pending.result()
        return self.right_size and self._sha.hexdigest() == self.source.sha256

    def close(self) -> None:
        self.pending.result()
        self._file.close()


def fold(images: Sequence[Source], rows: Sequence[RowJob]) -> list[Folded]:
    """Make the rows with the images added. Raises WrongImages, OSError; nothing is left then."""
    try:
        with ThreadPoolExecutor(_HASHERS, "hsmfs-fold") as pool:
            return _fold(images, rows, pool)
    except BaseException:
        for job in rows:
            job.dest.unlink(missing_ok=True)
        raise


def _fold(
    images: Sequence[Source], rows: Sequence[RowJob], pool: ThreadPoolExecutor
) -> list[Folded]:
    sources = [*images, *(job.old for job in rows if job.old is not None)]
    gone = [s.index for s in sources if not s.path.exists()]
    if gone:
        raise WrongImages(gone)
    size = max(source.size for source in sources)
    with contextlib.ExitStack() as stack:
        feeds = [stack.enter_context(contextlib.closing(_Feed(s, pool))) for s in images]
        olds = {
            job.row: stack.enter_context(contextlib.closing(_Feed(job.old, pool)))
            for job in rows
            if job.old is not None
        }
        outs = [stack.enter_context(job.dest.open("wb", buffering=0)) for job in rows]
        code = parity_of([source.index or 0 for source in images], [job.row for job in rows])
        shas = [hashlib.sha256() for _ in rows]
        made = [bytearray(BLOCK) for _ in rows]
        for offset in range(0, size, BLOCK):
            count = min(BLOCK, size - offset)
            for feed in (*feeds, *olds.values()):
                feed.fill(offset)
            if olds:
                for job, row in zip(rows, made, strict=True):
                    row[:] = olds[job.row].data if job.row in olds else bytes(BLOCK)
                for at, feed in enumerate(feeds):
                    code.add(at, feed.data, made, BLOCK)
            else:
                code.store([feed.data for feed in feeds], made, BLOCK)
            for sha, row, out in zip(shas, made, outs, strict=True):
                _write(out.fileno(), memoryview(row)[:count])
                sha.update(memoryview(row)[:count])
        wrong = [feed.source.index for feed in (*feeds, *olds.values()) if not feed.right()]
        if wrong:
            raise WrongImages(wrong)
        for out in outs:
            os.fsync(out.fileno())
    durable.sync(rows[0].dest.parent)
    return [
        Folded(job.row, size, sha.hexdigest()) for job, sha in zip(rows, shas, strict=True)
    ]


def _write(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]
