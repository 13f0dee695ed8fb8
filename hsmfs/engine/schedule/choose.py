"""From which discs: the copy, or the k of n discs of a set, that costs the fewest exchanges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import TypeVar

T = TypeVar("T")


class Effort(IntEnum):
    """What it takes to have a disc in a drive."""

    NONE = 0
    """It is in one."""
    SHARED = 1
    """It will be fetched for others anyway."""
    EXCHANGE = 2
    """It has to be fetched for this alone."""


def fewest_exchanges(
    options: Sequence[tuple[T, ...]],
    effort: Callable[[T], Effort],
    *,
    need: int | None = None,
) -> tuple[T, ...]:
    """The option that needs the fewest exchanges, then the least waiting; the first of equals.

    Each option is a number of discs of which `need` must be had (None: all); of an option the
    cheapest `need` are returned, in its order. Raises ValueError if no option has so many.
    """
    best: tuple[tuple[int, int], tuple[T, ...]] | None = None
    for discs in options:
        count = len(discs) if need is None else need
        if count > len(discs):
            continue
        ranked = sorted(range(len(discs)), key=lambda at, d=discs: (effort(d[at]), at))  # type: ignore[misc]
        chosen = tuple(discs[at] for at in sorted(ranked[:count]))
        efforts = [effort(disc) for disc in chosen]
        cost = (efforts.count(Effort.EXCHANGE), efforts.count(Effort.SHARED))
        if best is None or cost < best[0]:
            best = cost, chosen
    if best is None:
        raise ValueError("no option has enough discs")
    return best[1]
