"""The end of every proof: figures against what is required, then PROVED or NOT PROVED.

    with proof("no byte is lost by kill -9") as p:
        p.figure("kill points", 64, at_least=60)
        p.require(model == seen, "a file differs from the model")

The last line is the verdict and the exit status is 0 only if it holds. A proof that required
nothing, or that an exception ended, proves nothing.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager


class Proof:
    """Collects what was required and what did not hold."""

    def __init__(self, claim: str) -> None:
        self.claim = claim
        self.requirements = 0
        self.broken: list[str] = []

    def say(self, text: str) -> None:
        """A line of progress or explanation."""
        print(text, flush=True)

    def figure(
        self,
        label: str,
        value: float,
        unit: str = "",
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """Print a measured value, and require its bounds if it has any."""
        bounds = [
            f"{word} {bound:g}"
            for word, bound in (("at least", at_least), ("at most", at_most))
            if bound is not None
        ]
        low = at_least is None or value >= at_least
        high = at_most is None or value <= at_most
        shown = f"{value:,.6g}" if isinstance(value, float) else f"{value:,}"
        needed = f"  ({' and '.join(bounds)}: {'yes' if low and high else 'NO'})" if bounds else ""
        self.say(f"{label:<48} {shown:>14} {unit}{needed}")
        if bounds:
            self.require(low and high, f"{label} is {shown} {unit}".rstrip())

    def require(self, holds: bool, otherwise: str) -> None:
        """Require something; otherwise says what is wrong if it does not hold."""
        self.requirements += 1
        if not holds:
            self.broken.append(otherwise)
            self.say(f"does not hold: {otherwise}")


@contextmanager
def proof(claim: str) -> Iterator[Proof]:
    """Ends the process with the verdict on the claim; SystemExit is its only way out."""
    p = Proof(claim)
    try:
        yield p
    except BaseException as e:
        if isinstance(e, SystemExit) and {"-h", "--help"} & set(sys.argv):
            raise
        traceback.print_exc()
        p.broken.append(f"{type(e).__name__}: {e}")
    if not p.requirements and not p.broken:
        p.broken.append("nothing was required")
    sys.stderr.flush()
    if p.broken:
        more = f" (and {len(p.broken) - 1} more)" if len(p.broken) > 1 else ""
        first = p.broken[0].replace("\n", " ")
        print(f"NOT PROVED: {p.claim}: {first}{more}", flush=True)
        sys.exit(1)
    print(f"PROVED: {p.claim}", flush=True)
    sys.exit(0)
