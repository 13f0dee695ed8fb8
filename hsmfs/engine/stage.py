"""Makes files ready for a disc: holds, hashes and seals them, and compresses what shrinks.

A file is taken only if its bytes stood still while they were read (`Residency.begin_hash`, `seal`);
one that was archived before is hashed again, so that no disc is spent on bytes that rotted.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio
import zstandard

from .. import clock, crash
from ..catalog.catalog import Catalog
from ..catalog.mismatches import Mismatch
from ..catalog.reports import Reports
from ..disc.compress import Compressed, compress, worth_compressing
from ..disc.digest import digest_file
from ..disc.estimate import Estimator
from ..disc.layout import StagedFile
from ..errors import HsmError, PosixError
from ..pool.pools import Pools
from ..types import CHUNK, SECTOR, DataVersion, Digest, InodeNo
from . import describe
from .batches import at_leisure, in_batches
from .integrity.ingest import Ingest
from .live import Live
from .plan import Item
from .residency import Residency

SLICE_FILES = 128
SLICE_BYTES = 48 * 1024 * 1024
"""One thread call and one transaction handle so much."""
WORKERS = 2
_EMPTY = Digest(hashlib.sha256().digest(), (), 0)

CHANGED = "it is being written"
ABSENT = "its bytes are on discs: recall it first"
NO_ROOM = "there is no room left on this disc"
GONE = "it was deleted"
LOST_BYTES = "its bytes on disk are not those of its checksums"
MISMATCH = "it is not what its client's checksum says"
UNREADABLE = "its bytes do not read from disk"


@dataclass(slots=True)
class Staged:
    """What goes on a disc; `held` inodes must be dropped when the image is built."""

    files: list[StagedFile] = field(default_factory=list)
    carried: list[StagedFile] = field(default_factory=list)
    items: dict[InodeNo, Item] = field(default_factory=dict)
    held: list[Live] = field(default_factory=list)
    skipped: dict[InodeNo, str] = field(default_factory=dict)

    @property
    def shrink(self) -> float | None:
        """Stored bytes for each byte of the files; None if they have none."""
        length = sum(file.length for file in self.files)
        return sum(file.stored for file in self.files) / length if length else None

    @property
    def packed(self) -> int:
        """Bytes of the files that were compressed."""
        return sum(file.stored for file in self.files if file.compressed)

    def without(self, inos: set[InodeNo], why: str) -> None:
        """Leave files out."""
        self.files = [file for file in self.files if file.ino not in inos]
        self.skipped |= dict.fromkeys(inos, why)


@dataclass(slots=True)
class _Work:
    """One file on its way."""

    item: Item
    live: Live
    gen: int
    version: DataVersion
    size: int
    source: Path
    known: Digest | None
    digest: Digest | None = None
    packed: Compressed | None = None
    problem: str = ""
    wrong: Mismatch | None = None
    right: bool = False
    """It agrees with its client's checksum again."""


class Stager:
    """Stages the items of one batch after the other; several may run at once."""

    def __init__(
        self, catalog: Catalog, pools: Pools, files: Residency, ingest: Ingest, level: int
    ) -> None:
        self._catalog, self._pools, self._files, self._level = catalog, pools, files, level
        self._ingest = ingest

    async def stage(self, items: Sequence[Item], folder: Path) -> Staged:
        """Make the items ready; compressed ones lie in folder until the caller removes it."""
        result = Staged()
        slices = _slices(items)
        ready: list[list[StagedFile]] = [[] for _ in slices]
        todo = iter(enumerate(slices))
        await clock.blocking(lambda: _make(folder))

        async def work() -> None:
            for index, some in todo:
                ready[index] = await self._slice(some, folder, result)

        try:
            async with trio.open_nursery() as nursery:
                for _ in range(WORKERS):
                    nursery.start_soon(work)
        except BaseException:
            self.drop(result)
            raise
        result.files = [file for some in ready for file in some]
        crash.point("stage.batch.sealed")
        inos = [file.ino for file in result.files]
        result.carried = await self._catalog.read(lambda r: describe.carried(r, inos))
        return result

    def drop(self, staged: Staged) -> None:
        """The image is built, or will not be: let go of the inodes."""
        for live in staged.held:
            self._files.drop(live)
        staged.held.clear()

    async def _slice(
        self, items: Sequence[Item], folder: Path, result: Staged
    ) -> list[StagedFile]:
        taken = await at_leisure(
            self._catalog, items, lambda item: self._take(item, folder, result)
        )
        works = [work for work in taken if work is not None]
        level = self._level
        await clock.blocking(lambda: _read_all(works, folder, level), clock.IMAGES)
        await self._compare(works)
        good: list[_Work] = []
        await in_batches(
            self._catalog, works, lambda work: self._seal(work, result, good), "stage.part.sealed"
        )
        described = await self._catalog.read(lambda reports: _describe(reports, good))
        files = []
        for work, file in zip(good, described, strict=True):
            if file is None:
                result.skipped[work.item.ino] = GONE
            else:
                files.append(file)
                result.items[work.item.ino] = work.item
        return files

    def _take(self, item: Item, folder: Path, result: Staged) -> _Work | None:
        """Hold the inode if its bytes may be read now."""
        try:
            live = self._files.hold(item.ino)
        except PosixError:
            result.skipped[item.ino] = GONE
            return None
        result.held.append(live)
        attr, gen = live.attr, self._files.begin_hash(live)
        if gen is None or not attr.is_file or (item.parts > 1 and attr.size != item.size):
            result.skipped[item.ino] = ABSENT if live.absent else CHANGED
            return None
        source = folder / "empty"
        if attr.size:
            if attr.pool is None:
                result.skipped[item.ino] = LOST_BYTES
                return None
            source = Path(self._pools[attr.pool].path_of(item.ino))
        known = None
        if live.sealed:
            known = self._catalog.copies.digest(item.ino, attr.version)
        return _Work(item, live, gen, attr.version, attr.size, source, known)

    async def _compare(self, works: Sequence[_Work]) -> None:
        """Files that go to their first disc are compared with what their clients say of them."""
        new = {
            work.item.ino: (work.live.attr, work.version, work.digest.sha256)
            for work in works if work.known is None and work.digest and not work.problem
        }  # fmt: skip
        wrong, right = await self._catalog.read(
            lambda reports: self._ingest.judge(reports, list(new.values()))
        )
        for work in works:
            work.wrong, work.right = wrong.get(work.item.ino), work.item.ino in right

    def _seal(self, work: _Work, result: Staged, good: list[_Work]) -> None:
        """Keep the checksums, in a transaction, if the file is still what was read."""
        live, ino = work.live, work.item.ino
        if work.problem == _LENGTH and self._files.begin_hash(live) == work.gen:
            # A crash left more or fewer bytes than the row says; opening it heals that.
            self._files.file(live)
            work.problem = CHANGED
        if work.wrong is not None:
            still = self._files.begin_hash(live) == work.gen
            result.skipped[ino] = MISMATCH if still else CHANGED
            if still:
                self._ingest.settle(ino, work.wrong)
        elif work.problem or work.digest is None:
            result.skipped[ino] = work.problem
        elif live.attr.version != work.version or not self._files.seal(
            live, work.gen, work.digest
        ):
            result.skipped[ino] = CHANGED
        else:
            good.append(work)
            if work.right:
                self._ingest.settle(ino, None)


_LENGTH = "its pool file has another length"


def _slices(items: Sequence[Item]) -> list[list[Item]]:
    slices: list[list[Item]] = []
    room = 0
    for item in items:
        if not slices or room + item.length > SLICE_BYTES or len(slices[-1]) >= SLICE_FILES:
            slices.append([])
            room = 0
        slices[-1].append(item)
        room += item.length
    return slices


def _make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "empty").touch()


def _read_all(works: Sequence[_Work], folder: Path, level: int) -> None:
    quick = zstandard.ZstdCompressor(level=1)
    buffer = bytearray(CHUNK)
    for work in works:
        _read(work, folder, level, quick, buffer)


def _read(
    work: _Work,
    folder: Path,
    level: int,
    quick: zstandard.ZstdCompressor,
    buffer: bytearray,
) -> None:
    """Hash the bytes, compare them with what is known of them, and compress them if it pays."""
    item = work.item
    try:
        if work.size == 0:
            work.digest = _EMPTY
            return
        if os.stat(work.source).st_size != work.size:
            work.problem = _LENGTH if work.known is None else LOST_BYTES
            return
        if work.known is None:
            work.digest = digest_file(work.source, buffer)
        elif not _matches(work, work.known, buffer):
            work.problem = LOST_BYTES
            return
        else:
            work.digest = work.known
        if level and worth_compressing(work.source, _length(work), item.offset, quick):
            dest = folder / f"{item.ino:x}-{item.part}.zst"
            work.packed = compress(
                work.source, dest, offset=item.offset, length=_length(work), level=level
            )
    except FileNotFoundError:
        work.problem = LOST_BYTES
    except OSError as fault:
        work.problem = f"{UNREADABLE}: {fault}"


def _length(work: _Work) -> int:
    """Bytes of the part; a file that grew since it was queued is taken as it is."""
    return work.item.length if work.item.parts > 1 else work.size


def _matches(work: _Work, digest: Digest, buffer: bytearray) -> bool:
    start = work.item.offset
    end = start + _length(work)
    with work.source.open("rb", buffering=0) as file:
        for at in range(start, end, CHUNK):
            view = memoryview(buffer)[: min(CHUNK, end - at)]
            if os.preadv(file.fileno(), [view], at) != len(view):
                return False
            if hashlib.sha256(view).digest() != digest.chunks[at // CHUNK]:
                return False
    return True


def _describe(reports: Reports, works: list[_Work]) -> list[StagedFile | None]:
    found = []
    for work in works:
        item, packed = work.item, work.packed
        attr = work.live.attr._replace(version=work.version, size=work.size)
        found.append(
            describe.staged(
                reports,
                attr,
                digest=work.digest,
                source=packed.path if packed else work.source,
                source_offset=0 if packed else item.offset,
                part=item.part + 1,
                parts=item.parts,
                offset=item.offset,
                length=_length(work),
                stored=packed.stored if packed else _length(work),
                stored_sha256=packed.sha256 if packed else None,
                compressed=packed is not None,
                frame_ends=packed.frame_ends if packed else (),
            )
        )
    return found


def spare(staged: Staged, capacity: int) -> int:
    """Bytes that a disc has beside the first of the files; what else is on it must not take more.

    A part of a file larger than a disc has a disc to itself. Blocking.
    """
    estimator = Estimator()
    for file in (*staged.carried, *staged.files[:1]):
        estimator.add(file)
    return (capacity // SECTOR - estimator.sectors) * SECTOR


def trim(staged: Staged, capacity: int, snapshot_bytes: int) -> None:
    """Leave the last files out if the image would be larger than capacity bytes; blocking.

    Raises HsmError if not even one file fits.
    """
    if _rough(staged) + snapshot_bytes < capacity:
        return
    estimator = Estimator(snapshot_bytes)
    for extra in staged.carried:
        estimator.add(extra)
    over: set[InodeNo] = set()
    for file in staged.files:
        if over:
            over.add(file.ino)
            continue
        estimator.add(file)
        if estimator.sectors * SECTOR > capacity:
            over.add(file.ino)
    if over:
        staged.without(over, NO_ROOM)
        if not staged.files:
            raise HsmError(
                f"inode {min(over)} does not fit on a disc of {capacity} bytes",
                next_step="use larger discs",
            )


def _rough(staged: Staged) -> int:
    """More bytes than the image can have, quickly."""
    total = 1024 * 1024
    for file in (*staged.carried, *staged.files):
        total += file.stored + 4 * SECTOR + 4 * len(file.target)
        total += 4 * sum(map(len, file.paths)) + 12 * len(file.frame_ends)
        total += 2 * sum(len(name) + len(value) for name, value in file.xattrs.items())
        total += 72 * (len(file.digest.chunks) if file.digest else 0)
    return total
