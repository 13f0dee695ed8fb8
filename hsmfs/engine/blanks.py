"""Blank discs for burns: which one next, and what happens when there are none.

Without sets, copies begin at different ends of the library. The discs of a set come from one
magazine where that can be, those of other sets from others.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

import trio

from .. import logs
from ..catalog.catalog import Catalog
from ..types import Barcode, VolumeId
from .events import Events
from .plan import Targets

log = logs.get(__name__)
Labels = dict[VolumeId, Barcode]
"""Blank discs, in the order of their barcodes."""
AGAIN = 30.0
"""Seconds after which blank discs are looked for again."""


class Blanks:
    """Gives out blank discs, each to one user.

    Attributes:
        wanted: somebody waits for the operator to add blank discs.
        magazines: the magazine that each disc of the library lies in, if the robot knows; set by
            who wires the engine.
    """

    def __init__(self, catalog: Catalog, events: Events) -> None:
        self._catalog, self._events = catalog, events
        self._claimed: set[VolumeId] = set()
        self.wanted = False
        self.magazines: Callable[[], Mapping[Barcode, int | None]] = dict

    async def take(
        self,
        choose: Callable[[Labels], Sequence[VolumeId]],
        wanted: int,
        without: VolumeId | None = None,
    ) -> list[VolumeId]:
        """As many free blank discs as wanted; waits for the operator if there are too few.

        Give them back with `free`.
        """
        while True:
            blanks = self.left(without)
            if len(blanks) >= wanted:
                self.wanted = False
                chosen = list(choose(blanks))
                self._claimed.update(chosen)
                return chosen
            if not self.wanted:
                self.wanted = True
                log.warning("operator must add blank discs", wanted=wanted, left=len(blanks))
                self._events.emit(
                    "blank_discs_wanted", wanted=wanted, left=len(blanks),
                    message="operator must add blank discs",
                )  # fmt: skip
            await trio.sleep(AGAIN)

    def claim(self, volume: VolumeId) -> bool:
        """Nobody else gets this disc until it is given back; False if somebody has it already."""
        if volume in self._claimed or self._catalog.queues.burn(volume) is not None:
            return False
        self._claimed.add(volume)
        return True

    def left(self, without: VolumeId | None = None) -> Labels:
        """Blank discs that nobody has claimed."""
        blanks = self._catalog.volumes.blanks()
        for used in {burn.volume for burn in self._catalog.queues.burns()} | self._claimed:
            blanks.pop(used, None)
        if without is not None:
            blanks.pop(without, None)
        return blanks

    def free(self, volumes: Sequence[VolumeId]) -> None:
        """They are burned, or not needed."""
        self._claimed.difference_update(volumes)

    def for_set(
        self, blanks: Labels, magazine: int | None, size: int, taken: Counter[int]
    ) -> VolumeId:
        """A disc for a set: of its magazine, else of the fullest that no other set has.

        size: discs of a set. taken: sets that are being filled by magazine.
        """
        lies = self.magazines()
        groups: dict[int | None, list[VolumeId]] = {}
        for volume, barcode in blanks.items():
            number = lies.get(barcode)
            if magazine is not None and number == magazine:
                return volume
            groups.setdefault(number, []).append(volume)

        def worth(pair: tuple[int | None, list[VolumeId]]) -> tuple[bool, bool, int]:
            number, discs = pair
            free = number is None or not taken[number]
            return free, len(discs) >= size, -len(discs)

        return max(groups.items(), key=worth)[1][0]


def by_ends(targets: Targets) -> Callable[[Labels], Sequence[VolumeId]]:
    """A choice for copies: with odd numbers from the front, with even ones from the end."""

    def choose(blanks: Labels) -> Sequence[VolumeId]:
        volumes = deque(blanks)
        return [volumes.popleft() if t.copy_no % 2 else volumes.pop() for t in targets]

    return choose
