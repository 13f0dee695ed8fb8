"""Arithmetic on lists of ranges that are in order and do not touch; pure."""

from __future__ import annotations

from collections.abc import Sequence

from ..types import Range


def overlap(ranges: Sequence[Range], r: Range) -> list[Range]:
    """The parts of ranges that lie in r."""
    return [Range(max(x.start, r.start), min(x.end, r.end)) for x in ranges if x.overlaps(r)]


def subtract(ranges: Sequence[Range], r: Range) -> list[Range]:
    """What is left of ranges without r."""
    left: list[Range] = []
    for x in ranges:
        if not x.overlaps(r):
            left.append(x)
            continue
        if x.start < r.start:
            left.append(Range(x.start, r.start))
        if r.end < x.end:
            left.append(Range(r.end, x.end))
    return left


def total(ranges: Sequence[Range]) -> int:
    """Bytes in ranges."""
    return sum(x.length for x in ranges)
