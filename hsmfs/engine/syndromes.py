"""What the other discs of a set say about places of one disc: sums, holes, and the solution.

Plain arithmetic over buffers (docs/disc-format.md section 8); no disc is read here. A place is a
sector of the target disc, and of all others of the set at the same number.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from mmap import mmap

from ..disc.parity import parity_of, recover
from ..types import SECTOR

Run = tuple[int, int]
"""(first sector, how many)."""
Sums = bytearray | mmap


class Syndromes:
    """Sums of what was read so far, for runs of sectors of one disc.

    Attributes:
        target: index of the disc that is wanted; None: a parity row itself is.
        lost: data discs of which nothing could be read, the target among them.
        rows_read: parity rows that were added.
        spared: those of the lost that were not asked, because parity rows were cheaper to have.

    make gives a buffer of so many zeros: in a file, if they are many.
    """

    def __init__(
        self,
        target: int | None,
        rows: Sequence[int],
        runs: Sequence[Run],
        make: Callable[[int], Sums] = bytearray,
    ) -> None:
        self.target, self.runs = target, list(runs)
        self.lost: set[int] = set() if target is None else {target}
        self.rows_read: set[int] = set()
        self.spared: set[int] = set()
        self._starts = [sector for sector, _ in self.runs]
        self._offsets: list[int] = []
        total = 0
        for _, count in self.runs:
            self._offsets.append(total)
            total += count * SECTOR
        self._sums = {row: make(total) for row in rows}
        self._holes: dict[int, set[int]] = {}
        self._row_holes: dict[int, set[int]] = {}

    def add_data(self, index: int, sector: int, data: bytes, bad: Iterable[int]) -> None:
        """What data disc `index` holds from sector on, with zeros for the bad sectors of it."""
        if not data:
            return
        at = self._at(sector)
        rows = sorted(self._sums)
        outputs = [memoryview(self._sums[row])[at : at + len(data)] for row in rows]
        parity_of([index], rows).add(0, data, outputs, len(data))
        for place in bad:
            self._holes.setdefault(place, set()).add(index)

    def spare(self, indices: Iterable[int]) -> None:
        """These data discs are not asked: they count as lost."""
        self.spared |= set(indices)
        self.lost |= self.spared

    def found(self, index: int) -> None:
        """A data disc that had been spared was read after all."""
        self.spared.discard(index)
        self.lost.discard(index)

    def add_row(self, row: int, sector: int, data: bytes, bad: Iterable[int]) -> None:
        """What the parity row holds from sector on."""
        at = self._at(sector)
        if data:
            view = memoryview(self._sums[row])[at : at + len(data)]
            parity_of([0], [0]).add(0, data, [view], len(data))
        for place in bad:
            self._row_holes.setdefault(place, set()).add(row)

    def short(self, rows: int) -> bool:
        """Whether somewhere so many parity rows are too few."""
        if len(self.lost) > rows:
            return True
        places = set(self._holes) | set(self._row_holes)
        return any(
            len(self.lost | self._holes.get(place, set()))
            > rows - len(self._row_holes.get(place, set()))
            for place in places
        )

    def plain(self, row: int, sector: int, count: int) -> bytes:
        """The sum itself: the row, if no data disc is lost or has holes and no row was added."""
        at = self._at(sector)
        return bytes(memoryview(self._sums[row])[at : at + count * SECTOR])

    @property
    def complete(self) -> bool:
        """Whether every data disc gave every sector."""
        return not self.lost and not self._holes

    def solve(
        self, sector: int, count: int, *, liar: int | None = None, without: int | None = None
    ) -> bytes | None:
        """The target's bytes in these sectors of one run; None if too much is missing.

        liar: a data disc that reads, but wrong. without: a parity row that is not to be trusted.
        """
        assert self.target is not None
        pieces: list[bytes | bytearray] = []
        for first, many, unknown, rows in self._alike(sector, count, liar, without):
            at = self._at(first)
            size = many * SECTOR
            sums = {row: memoryview(self._sums[row])[at : at + size] for row in rows}
            piece = recover(sorted(unknown), self.target, sums, size)
            if piece is None:
                return None
            pieces.append(piece)
        return b"".join(pieces)

    def _alike(
        self, sector: int, count: int, liar: int | None, without: int | None
    ) -> Iterator[tuple[int, int, frozenset[int], frozenset[int]]]:
        """Neighbouring sectors of which the same discs are missing."""
        base = frozenset(self.lost | ({liar} if liar is not None else set()))
        usable = frozenset(self.rows_read - {without})
        marked = {
            place
            for holes in (self._holes, self._row_holes)
            for place in holes
            if sector <= place < sector + count
        }
        at = sector
        for place in sorted(marked):
            if place > at:
                yield at, place - at, base, usable
            unknown = base | self._holes.get(place, set())
            yield place, 1, unknown, usable - self._row_holes.get(place, set())
            at = place + 1
        if at < sector + count:
            yield at, sector + count - at, base, usable

    def _at(self, sector: int) -> int:
        number = bisect_right(self._starts, sector) - 1
        return self._offsets[number] + (sector - self._starts[number]) * SECTOR
