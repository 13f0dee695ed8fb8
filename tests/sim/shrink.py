"""Makes a failing plan small: leaves steps out as long as it still fails (delta debugging).

Source: A. Zeller, R. Hildebrandt, Simplifying and Isolating Failure-Inducing Input, IEEE TSE 28(2),
2002: halves first, then quarters, and so on. A failure counts as the same if its first words are.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from .lives import Verdict
from .plan import Step

MOST = 150
"""Runs after which what was found so far will do."""


def smallest(failed: Verdict, run: Callable[[list[Step]], Verdict]) -> Verdict:
    """The verdict of the smallest plan found that fails alike."""
    best, parts, runs = failed, 2, 0
    while len(best.steps) > 1 and runs < MOST:
        size = max(1, len(best.steps) // parts)
        for start in range(0, len(best.steps), size):
            left = best.steps[:start] + best.steps[start + size :]
            runs += 1
            verdict = run(left)
            if kind(verdict.failure) == kind(failed.failure):
                best, parts = verdict, max(2, parts - 1)
                break
        else:
            if size == 1:
                break
            parts = min(len(best.steps), parts * 2)
    return best


def kind(failure: str) -> str:
    """A failure without its names and numbers."""
    return re.sub(r"b'[^']*'|\d+|S\d+D\d+", "#", failure)[:60]
