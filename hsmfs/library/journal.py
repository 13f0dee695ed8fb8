"""Moves as intent on record, and what to make of a library that is not as the catalog says.

The robot writes each move here before it starts. After a crash, or after people had their hands in
the library, `reconcile` compares the robot's inventory with the catalog; the robot is right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from hsmfs.errors import SameLabel
from hsmfs.library.ports import Element, ElementKind
from hsmfs.types import Barcode, ElementAddress


class OpenMove(Protocol):
    """A move that was begun and not finished."""

    @property
    def token(self) -> int: ...

    @property
    def barcode(self) -> Barcode: ...

    @property
    def src(self) -> ElementAddress: ...

    @property
    def dst(self) -> ElementAddress: ...


class OpenCarry(Protocol):
    """A magazine's way that was begun and not finished."""

    @property
    def token(self) -> int: ...

    @property
    def magazine(self) -> int: ...

    @property
    def unit(self) -> int | None:
        """Where it was to go; None: the rack."""
        ...


class MoveJournal(Protocol):
    """Kept by the catalog; a begun move survives a power cut from the moment `begin` returns."""

    async def begin(self, barcode: Barcode, src: ElementAddress, dst: ElementAddress) -> int:
        """Record that the robot is about to move the disc; returns the token to finish it with."""
        ...

    async def finish(self, token: int, ok: bool) -> None:
        """Record how it ended; ok means that the disc lies in dst."""
        ...

    def open_moves(self) -> Sequence[OpenMove]:
        """Moves without an end: at start, those that a crash cut short."""
        ...

    async def begin_carry(self, magazine: int, unit: int | None) -> int:
        """As `begin`: the robot is about to carry the magazine to a unit, or (None) to the rack."""
        ...

    async def finish_carry(self, token: int, ok: bool) -> None:
        """As `finish`."""
        ...

    def open_carries(self) -> Sequence[OpenCarry]:
        """As `open_moves`."""
        ...


class DifferenceKind(Enum):
    """Why a disc is not where the catalog has it."""

    HALF_DONE = "half-done move"
    MOVED = "moved by hand"
    SWAPPED = "swapped"
    MISSING = "missing"
    RETURNED = "came back"
    UNKNOWN = "unknown disc"
    UNLABELLED = "label does not read"
    DUPLICATE = "label seen twice"


@dataclass(frozen=True, slots=True)
class Difference:
    """One disc that is not as expected; `meaning` tells an admin what it is, perhaps what to do."""

    kind: DifferenceKind
    barcode: Barcode | None
    expected: ElementAddress | None
    """Where the catalog has it; None for a disc outside or unknown."""
    found: ElementAddress | None
    """Where the robot has it; None if nowhere."""
    meaning: str
    token: int | None = None
    """The open move, for HALF_DONE; also for MISSING, if it was lost on the way."""


def reconcile(
    inventory: Iterable[Element],
    expected: Mapping[Barcode, ElementAddress | None],
    open_moves: Iterable[OpenMove] = (),
) -> list[Difference]:
    """Compare what the robot says with what the catalog expects; nothing to report is [].

    expected has every disc the catalog knows: its element, or None for one outside the library.
    Every open move gives one difference, even if its disc is where it was expected.
    """
    elements = {e.address: e for e in inventory}
    seen: dict[Barcode, list[Element]] = defaultdict(list)
    differences: list[Difference] = []
    for element in elements.values():
        if element.full and element.barcode is not None:
            seen[element.barcode].append(element)
        elif element.full:
            differences.append(
                Difference(
                    DifferenceKind.UNLABELLED, None, None, element.address,
                    f"a disc in {element.place} bears no label that reads;"
                    " 'hsmctl library inventory --rescan' looks again",
                )
            )  # fmt: skip
    moves = {move.barcode: move for move in open_moves}
    # Of thousands nearly all are where they should be.
    settled = {
        barcode
        for barcode, found in seen.items()
        if len(found) == 1 and found[0].address == expected.get(barcode) and barcode not in moves
    }
    for barcode in sorted((seen.keys() | expected.keys() | moves.keys()) - settled):
        found = seen.get(barcode, [])
        if len(found) > 1:
            differences += _duplicates(barcode, expected.get(barcode), found)
        elif barcode in moves:
            differences.append(_half_done(moves[barcode], elements, found[0] if found else None))
        elif barcode not in expected:
            differences.append(
                Difference(
                    DifferenceKind.UNKNOWN, barcode, None, found[0].address,
                    f"{barcode} in {found[0].place} is not in the catalog",
                )
            )  # fmt: skip
        else:
            wanted = expected[barcode]
            differences += _compare(
                barcode, wanted, found[0] if found else None, elements, expected
            )
    return differences


def reconcile_carries(
    inventory: Iterable[Element], open_carries: Iterable[OpenCarry]
) -> list[tuple[Difference, bool]]:
    """What became of each magazine's way that was cut short, and whether it ended where it should.

    The catalog has no place for magazines, so nothing else of them can differ from it.
    """
    storage, held = dict[int, int | None](), set[int]()
    for element in inventory:
        if element.kind is ElementKind.STORAGE and element.magazine is not None:
            storage[element.magazine] = element.unit
        elif element.kind is ElementKind.TRANSPORT and element.magazine is not None:
            held.add(element.magazine)
    found = []
    for carry in open_carries:
        arrived = carry.magazine not in held and storage.get(carry.magazine) == carry.unit
        if carry.magazine in held:
            state = "the robot still holds it"
        elif arrived:
            state = "it arrived"
        else:
            unit = storage.get(carry.magazine)
            state = "it is in the rack" if unit is None else f"it is in unit {unit}"
        to = "the rack" if carry.unit is None else f"unit {carry.unit}"
        meaning = f"magazine {carry.magazine} was being carried to {to}; {state}"
        difference = Difference(
            DifferenceKind.HALF_DONE, None, None, None, meaning, carry.token
        )  # fmt: skip
        found.append((difference, arrived))
    return found


def _name(address: ElementAddress, elements: Mapping[ElementAddress, Element]) -> str:
    element = elements.get(address)
    return element.place if element else f"element {address}, which the robot does not have"


def _duplicates(
    barcode: Barcode, wanted: ElementAddress | None, found: Sequence[Element]
) -> list[Difference]:
    meaning = str(SameLabel(barcode, [e.place for e in found]))
    return [
        Difference(DifferenceKind.DUPLICATE, barcode, wanted, e.address, meaning) for e in found
    ]


def _half_done(
    move: OpenMove, elements: Mapping[ElementAddress, Element], found: Element | None
) -> Difference:
    src, dst = _name(move.src, elements), _name(move.dst, elements)
    begun = f"{move.barcode} was being moved from {src} to {dst}"
    if found is None:
        return Difference(
            DifferenceKind.MISSING, move.barcode, move.dst, None,
            f"{begun} and is in no place now", move.token,
        )  # fmt: skip
    if found.address == move.src:
        state = "it never left"
    elif found.address == move.dst:
        state = "it arrived"
    elif found.kind is ElementKind.TRANSPORT:
        state = "the robot still holds it"
    else:
        state = f"it was put into {found.place} by hand"
    return Difference(
        DifferenceKind.HALF_DONE, move.barcode, move.dst, found.address,
        f"{begun}; {state}", move.token,
    )  # fmt: skip


def _compare(
    barcode: Barcode,
    wanted: ElementAddress | None,
    found: Element | None,
    elements: Mapping[ElementAddress, Element],
    expected: Mapping[Barcode, ElementAddress | None],
) -> list[Difference]:
    if found is None:
        if wanted is None:
            return []
        meaning = f"{barcode} is missing from {_name(wanted, elements)} and in no other place"
        return [Difference(DifferenceKind.MISSING, barcode, wanted, None, meaning)]
    if found.address == wanted:
        return []
    if wanted is None:
        meaning = f"{barcode}, which was outside the library, is in {found.place}"
        return [Difference(DifferenceKind.RETURNED, barcode, None, found.address, meaning)]
    there = elements.get(wanted)
    other = there.barcode if there else None
    if other is not None and expected.get(other) == found.address:
        meaning = f"{barcode} and {other} changed places: {barcode} is in {found.place}"
        return [Difference(DifferenceKind.SWAPPED, barcode, wanted, found.address, meaning)]
    meaning = f"{barcode} is in {found.place}, not in {_name(wanted, elements)}"
    return [Difference(DifferenceKind.MOVED, barcode, wanted, found.address, meaning)]
