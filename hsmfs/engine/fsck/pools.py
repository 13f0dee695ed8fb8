"""Compares the catalog with the pools: each regular file with its pool file, and back.

What is read from disk in a thread is looked at again before it is reported when a daemon is
running, because files are born, grow and go meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ... import clock, crash
from ...catalog.catalog import Catalog
from ...catalog.check import Finding, Severity
from ...catalog.check.finding import inode_finding
from ...catalog.copies import Copy
from ...catalog.reports import Reports
from ...disc.digest import digest_file
from ...errors import Conflict, PosixError
from ...pool import examine
from ...pool.pools import Pools
from ...pool.store import BLOCK, Pool
from ...states import FileState
from ...types import Attr, InodeNo, Range
from ..files import Files
from ..ranges import overlap, subtract

POOL_CHECKS = (
    "bytes_are_in_the_pool",
    "pool_files_have_the_files_size",
    "absent_ranges_take_no_space",
    "pool_files_have_inodes",
    "pool_files_are_in_one_pool",
)
PAGE = 2000
"""Files looked at in one go of a thread."""
Mend = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Problem:
    """A finding with a repair that is more than rows.

    locks: its repair holds the inode's lock, so that it may be in use meanwhile.
    """

    finding: Finding
    mend: Mend | None
    locks: bool = False


@dataclass(frozen=True, slots=True)
class _Row:
    """What the catalog says of a file, from one snapshot."""

    attr: Attr
    absent: list[Range]
    sha256: bytes | None
    """Checksum of the version, if it was archived."""
    covered: bool
    """All bytes of the version are on readable discs."""

    @property
    def archived(self) -> bool:
        return self.covered and self.sha256 is not None


class PoolCheck:
    """One comparison of all pools."""

    def __init__(self, catalog: Catalog, pools: Pools, files: Files | None) -> None:
        self._catalog, self._pools, self._files = catalog, pools, files

    async def run(self, deep: bool) -> list[Problem]:
        """Everything that does not agree."""
        problems: list[Problem] = []
        after = 0
        while True:
            rows = await self._catalog.read(lambda r, after=after: _rows(r, after))  # type: ignore[misc]
            if not rows:
                break
            after = rows[-1].attr.ino
            for row in await clock.blocking(lambda rows=rows: self._suspects(rows, deep)):  # type: ignore[misc]
                problems += await self._report(row, deep)
        for pool in self._pools:
            problems += await self._unknown(pool)
        return problems

    # From the catalog to the pools

    def _suspects(self, rows: Sequence[_Row], deep: bool) -> list[_Row]:
        return [row for row in rows if self._examine(row) or (deep and self._differs(row))]

    async def _report(self, row: _Row, deep: bool) -> list[Problem]:
        ino = row.attr.ino
        if self._files is not None:
            if self._files.live(ino) is not None:
                return []
            again = await self._catalog.read(lambda r: _rows(r, ino - 1, 1))
            if not again or again[0].attr.ino != ino:
                return []
            row = again[0]
        problems = await clock.blocking(lambda: self._examine(row))
        if deep and not problems and await clock.blocking(lambda: self._differs(row)):
            problems.append(self._mismatch(row))
        if self._files is not None and self._files.live(ino) is not None:
            return []
        return problems

    def _examine(self, row: _Row) -> list[Problem]:
        attr, absent = row.attr, row.absent
        if attr.pool is None or attr.pool not in {pool.id for pool in self._pools}:
            return self._no_pool(row)
        pool = self._pools[attr.pool]
        seen = examine.look(pool, attr.ino, absent)
        if seen is None:
            return self._missing(row)
        problems = []
        if not attr.dirty and seen.size != attr.size:
            problems.append(self._wrong_size(row, pool, seen.size))
        if seen.leaked:
            problems.append(Problem(
                inode_finding(
                    "absent_ranges_take_no_space", Severity.NOTE, attr.ino,
                    "has blocks on disk where the catalog says that nothing is", "punch them out",
                ),
                lambda: self._punch(attr, absent, pool),
            ))  # fmt: skip
        return problems

    def _no_pool(self, row: _Row) -> list[Problem]:
        attr = row.attr
        if attr.pool is not None and _present(row):
            return [Problem(
                inode_finding(
                    "bytes_are_in_the_pool", Severity.ERROR, attr.ino,
                    f"is in pool number {attr.pool}, which is not in the configuration:"
                    " add its [[pool]] again",
                ),
                None,
            )]  # fmt: skip
        return self._missing(row) if attr.pool is None else []

    def _missing(self, row: _Row) -> list[Problem]:
        """No pool file where the row says: fine if it never had a byte on disk."""
        attr = row.attr
        ino, here = attr.ino, self._pools.find(attr.ino)
        if here:
            pool = here[0]
            if attr.pool is None and attr.dirty is False and not attr.size:
                return []
            return [Problem(
                inode_finding(
                    "bytes_are_in_the_pool", Severity.NOTE, ino,
                    f"lies in pool {pool.name}, not where its row says", "correct the row",
                ),
                lambda: self._set_pool(ino, pool),
            )]  # fmt: skip
        if not _present(row):
            return []
        if row.archived:
            return [Problem(
                inode_finding(
                    "bytes_are_in_the_pool", Severity.ERROR, ino,
                    "has no file in its pool, but copies on discs", "take it as migrated",
                ),
                lambda: self._stub(attr, [Range(0, attr.size)]),
            )]  # fmt: skip
        return [Problem(
            inode_finding(
                "bytes_are_in_the_pool", Severity.LOSS, ino,
                f"has {attr.size} bytes by the catalog, but no file in its pool and no whole copy"
                f" of version {attr.version} on readable discs",
            ),
            None,
        )]  # fmt: skip

    def _wrong_size(self, row: _Row, pool: Pool, size: int) -> Problem:
        attr, ino = row.attr, row.attr.ino
        kept = size // BLOCK * BLOCK
        name = "pool_files_have_the_files_size"
        if size > attr.size:
            return Problem(
                inode_finding(
                    name, Severity.NOTE, ino,
                    f"has {size - attr.size} bytes more on disk than anybody was told of",
                    "cut them off",
                ),
                lambda: self._resize(attr, pool),
            )  # fmt: skip
        lacking = _present(row)
        if not overlap(lacking, Range(size, attr.size)):
            return Problem(
                inode_finding(
                    name, Severity.NOTE, ino, "is shorter on disk, where nothing is to be",
                    "lengthen it",
                ),
                lambda: self._resize(attr, pool),
            )  # fmt: skip
        if row.archived:
            absent = _merged([*row.absent, Range(kept, attr.size)])
            return Problem(
                inode_finding(
                    name, Severity.ERROR, ino,
                    f"lacks {attr.size - size} bytes on disk, which are on discs",
                    "take them as migrated",
                ),
                lambda: self._stub(attr, absent),
            )  # fmt: skip
        return Problem(
            inode_finding(
                name, Severity.NOTE, ino,
                f"lacks {attr.size - size} bytes that were written, but not made durable before a"
                " power cut; they read as zeros", "lengthen it with zeros",
            ),
            lambda: self._resize(attr, pool),
        )  # fmt: skip

    # Bytes against checksums

    def _differs(self, row: _Row) -> bool:
        attr = row.attr
        if row.sha256 is None or row.absent or attr.dirty or not attr.size or attr.pool is None:
            return False
        path = Path(self._pools[attr.pool].path_of(attr.ino))
        return digest_file(path).sha256 != row.sha256

    def _mismatch(self, row: _Row) -> Problem:
        attr = row.attr
        name = "archived_bytes_match_their_checksums"
        if row.archived and attr.pool is not None:
            pool = self._pools[attr.pool]
            return Problem(
                inode_finding(
                    name, Severity.ERROR, attr.ino,
                    "has bytes on disk that are not those that were archived",
                    "set them aside in the pool's lost+found and take the file as migrated",
                ),
                lambda: self._replace(attr, pool),
            )  # fmt: skip
        return Problem(
            inode_finding(
                name, Severity.LOSS, attr.ino,
                f"has bytes on disk that do not match their checksums, and no whole copy of"
                f" version {attr.version} on readable discs",
            ),
            None,
        )  # fmt: skip

    # From the pools to the catalog

    async def _unknown(self, pool: Pool) -> list[Problem]:
        """Files of a pool that are no inode's, or another pool has the inode's bytes."""
        problems: list[Problem] = []
        inos: Iterator[InodeNo] = pool.inodes()
        ceiling = await self._catalog.read(lambda r: r.ino_ceiling())
        while page := await clock.blocking(lambda: list(islice(inos, PAGE))):
            odd = await self._odd(pool, page)
            if odd and self._files is not None:
                odd = [ino for ino in odd if await self._still_odd(pool, ino)]
            problems += [await self._stranger(pool, ino, ceiling) for ino in odd]
        for path in await clock.blocking(lambda: list(pool.strangers())):
            problems.append(Problem(
                Finding(
                    "pool_files_have_inodes", Severity.NOTE, f"file {path}",
                    "is in the pool, but is no inode's", "move it to the pool's lost+found",
                ),
                _aside(pool, path),
            ))  # fmt: skip
        return problems

    async def _odd(self, pool: Pool, inos: Sequence[InodeNo]) -> list[InodeNo]:
        """Those that the catalog does not place in the pool, and that are there still."""
        strange = await self._catalog.read(lambda r: r.not_in_pool(pool.id, inos))
        return await clock.blocking(
            lambda: [ino for ino in strange if Path(pool.path_of(ino)).exists()]
        )

    async def _still_odd(self, pool: Pool, ino: InodeNo) -> bool:
        """Looked at again; of an inode in use only its pool is sure, and that under its lock."""
        assert self._files is not None
        if self._files.live(ino) is None:
            return bool(await self._odd(pool, [ino]))
        try:
            live = self._files.hold(ino)
        except PosixError:
            return False  # it is being purged
        try:
            async with live.lock:
                return live.attr.pool not in (None, pool.id) and bool(await self._odd(pool, [ino]))
        finally:
            self._files.drop(live)

    async def _stranger(self, pool: Pool, ino: InodeNo, ceiling: int) -> Problem:
        attr = self._catalog.inodes.get_raw(ino)
        path = Path(pool.path_of(ino))
        if attr is None:
            lost = ino >= ceiling
            return Problem(
                inode_finding(
                    "pool_files_have_inodes", Severity.ERROR if lost else Severity.NOTE, ino,
                    f"is not in the catalog, but has a file in pool {pool.name}"
                    + (", and its number was never given: is this an old catalog?" if lost else ""),
                    "move it to the pool's lost+found",
                ),
                self._raise_and_aside(pool, path, ino),
            )  # fmt: skip
        homes = await clock.blocking(lambda: self._pools.find(ino))
        if attr.is_file and not any(home.id == attr.pool for home in homes):
            return Problem(
                inode_finding(
                    "bytes_are_in_the_pool", Severity.NOTE, ino,
                    f"lies in pool {pool.name}, not where its row says", "correct the row",
                ),
                lambda: self._set_pool(ino, pool),
            )  # fmt: skip
        return Problem(
            inode_finding(
                "pool_files_are_in_one_pool", Severity.NOTE, ino,
                f"has a file in pool {pool.name} too, which is not its own",
                "move it to that pool's lost+found",
            ),
            lambda: self._second_aside(pool, ino),
            locks=True,
        )  # fmt: skip

    # Repairs

    async def _second_aside(self, pool: Pool, ino: InodeNo) -> None:
        """A demotion that was cut off left it; no other may be under way."""
        if self._files is None:
            await _aside(pool, Path(pool.path_of(ino)))()
            return
        live = self._files.hold(ino)
        try:
            async with live.lock:
                if live.attr.pool != pool.id and await self._odd(pool, [ino]):
                    await _aside(pool, Path(pool.path_of(ino)))()
        finally:
            self._files.drop(live)

    async def _punch(self, attr: Attr, absent: Sequence[Range], pool: Pool) -> None:
        blocks = await clock.blocking(lambda: examine.punch(pool, attr.ino, absent))
        async with self._catalog.write():
            self._catalog.inodes.set_blocks(attr.ino, blocks)

    async def _resize(self, attr: Attr, pool: Pool) -> None:
        await clock.blocking(lambda: examine.resize(pool, attr.ino, attr.size))

    async def _set_pool(self, ino: InodeNo, pool: Pool) -> None:
        async with self._catalog.write():
            self._catalog.inodes.set_pool(ino, pool.id)
        await self._catalog.sync()

    async def _stub(self, attr: Attr, absent: Sequence[Range]) -> None:
        """The bytes of absent are on discs alone, in the present version."""
        async with self._catalog.write():
            inodes = self._catalog.inodes
            inodes.set_version(attr.ino, attr.version, attr.version)
            inodes.set_absent(attr.ino, absent)
            inodes.set_state(attr.ino, FileState.MIGRATED)
            inodes.set_blocks(attr.ino, 0)
        crash.point("fsck.stub.committed")
        await self._catalog.sync()

    async def _replace(self, attr: Attr, pool: Pool) -> None:
        await self._stub(attr, [Range(0, attr.size)])
        path = Path(pool.path_of(attr.ino))
        await clock.blocking(lambda: examine.set_aside(pool, path))

    def _raise_and_aside(self, pool: Pool, path: Path, ino: InodeNo) -> Mend:
        async def mend() -> None:
            async with self._catalog.write():
                self._catalog.inodes.pass_number(ino)
            await self._catalog.sync()
            await clock.blocking(lambda: examine.set_aside(pool, path))

        return mend


def _aside(pool: Pool, path: Path) -> Mend:
    async def mend() -> None:
        await clock.blocking(lambda: examine.set_aside(pool, path))

    return mend


async def purge_orphan(catalog: Catalog, pools: Pools, files: Files | None, ino: InodeNo) -> None:
    """Delete an inode that was deleted for good while it was open."""
    try:
        await (files or Files(catalog, pools)).purge(ino)
    except Conflict:
        return  # opened again by its handle: it goes when it is closed


def _rows(reports: Reports, after: int, limit: int = PAGE) -> list[_Row]:
    found = []
    for attr in reports.regular(after, limit):
        resident = attr.state == FileState.RESIDENT
        absent = [] if resident else reports.inodes.absent(attr.ino)
        digest = reports.copies.digest(attr.ino, attr.version)
        parts = reports.copies.readable(attr.ino, attr.version) if digest else []
        sha256 = digest.sha256 if digest else None
        found.append(_Row(attr, absent, sha256, _covers(parts, attr.size)))
    return found


def _covers(parts: Iterable[Copy], size: int) -> bool:
    end = 0
    for part in sorted(parts, key=lambda part: part.where.offset):
        if part.where.offset <= end:
            end = max(end, part.where.offset + part.where.length)
    return end >= size


def _present(row: _Row) -> list[Range]:
    """Ranges that should be on disk."""
    left = [Range(0, row.attr.size)] if row.attr.size else []
    for r in row.absent:
        left = subtract(left, r)
    return left


def _merged(ranges: Iterable[Range]) -> list[Range]:
    merged: list[Range] = []
    for r in sorted(ranges, key=lambda r: r.start):
        if merged and r.start <= merged[-1].end:
            merged[-1] = Range(merged[-1].start, max(merged[-1].end, r.end))
        else:
            merged.append(r)
    return merged
