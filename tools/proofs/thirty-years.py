"""Thirty years of a 278-magazine library from 100 seeds, and bugs planted on purpose.

    tools/prove thirty-years [--seeds 100] [--years 30] [--first 1] [--hunt 40]

First each of the bugs in tests/sim/mutants.py is planted in small worlds until a seed finds it, and
that seed without the bug must be good. Then the seeds live their years: all faults and deaths of
docs/simulation.md, and at the end of each every file is read, fsck compares checksums, and catalog,
robot and discs must agree. Seeds are those given, so the same command does the same again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from _verdict import Proof, proof

from tests.sim import plan
from tests.sim.__main__ import many
from tests.sim.lives import simulate
from tests.sim.mutants import MUTANTS

BUGS = 12
MINUTES = 30
TELL_EVERY = 10
"""Seeds between two lines that say how far it is."""
SHORT = {"years": 0.5, "events": 14}


def hunt(mutant: str, seeds: int) -> tuple[str, int, str]:
    """A seed that finds the bug and is good without it; 0: none does."""
    for seed in sorted(range(1, seeds + 1), key=lambda seed: seed != MUTANTS[mutant].seed):
        found = simulate(seed, mutant=mutant, **SHORT)
        if not found.good and simulate(seed, **SHORT).good:
            return mutant, seed, found.failure
    return mutant, 0, ""


def bugs(p: Proof, seeds: int) -> None:
    found = 0
    with ProcessPoolExecutor(4 * (os.cpu_count() or 1)) as pool:
        for mutant, seed, failure in pool.map(hunt, MUTANTS, [seeds] * len(MUTANTS)):
            found += bool(seed)
            by = f"found by seed {seed}: {failure[:110]}" if seed else "NOT FOUND"
            p.say(f"  {mutant:<22} {MUTANTS[mutant].breaks}\n{'':<25}{by}")
    p.figure("bugs planted", len(MUTANTS))
    p.figure("bugs found", found, at_least=BUGS)
    p.require(found == len(MUTANTS), f"{len(MUTANTS) - found} planted bugs were not found")


def years(p: Proof, given: argparse.Namespace) -> None:
    began = time.monotonic()
    counts: Counter[str] = Counter()
    waits: list[float] = []
    lived, lives = 0.0, 0
    seeds = range(given.first, given.first + given.seeds)
    events = max(12, int(3 * given.years))
    living = many(seeds, years=given.years, events=events, size=plan.LARGE)
    for ended, verdict in enumerate(living, start=1):
        counts += verdict.counts
        waits += verdict.waits
        lived, lives = lived + verdict.years, lives + verdict.lives
        if ended % TELL_EVERY == 0:
            took = (time.monotonic() - began) / 60
            p.say(f"  {ended} of {given.seeds} seeds lived, after {took:.1f} minutes")
        p.require(verdict.good, f"seed {verdict.seed}: {verdict.failure[:300]}")
    for what, count in sorted(counts.items()):
        if not what.startswith("event"):
            p.say(f"  {what:<40} {count:>12,}")
    waits.sort()
    p.figure("years lived", lived, at_least=0.99 * given.seeds * given.years)
    p.figure("lives of the daemon", lives)
    p.figure("files read and compared", counts["files read"], at_least=given.seeds)
    p.figure("the longest wait of a reader", waits[-1] / 3600, "h")
    p.figure("reads beyond what redundancy promises", counts["reads beyond the promise"])
    p.figure("time", (time.monotonic() - began) / 60, "min", at_most=MINUTES)


def main(p: Proof) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--years", type=float, default=30.0)
    parser.add_argument("--hunt", type=int, default=40, help="seeds that look for each bug")
    given = parser.parse_args()
    bugs(p, given.hunt)
    years(p, given)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        given = {**os.environ, "PYTHONHASHSEED": "0"}
        os.execve(sys.executable, [sys.executable, *sys.argv], given)
    with proof("decades of faults lose nothing, and the simulation finds planted bugs") as p:
        main(p)
