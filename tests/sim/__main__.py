"""tools/sim: lives decades of faults in minutes; docs/simulation.md."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace

from . import plan, shrink
from .lives import Verdict, simulate
from .mutants import MUTANTS
from .plan import Size


def _one(seed: int, years: float, events: int, size: Size, mutant: str) -> Verdict:
    return simulate(seed, years=years, events=events, size=size, mutant=mutant)


def many(
    seeds: range, *, years: float, events: int, size: Size, mutant: str = "", jobs: int = 0
) -> Iterator[Verdict]:
    """The seeds' verdicts as they come. xorriso sleeps for 100 ms each time that it runs, half of
    a life, so jobs are four times the processors if not given."""
    jobs = jobs or 4 * (os.cpu_count() or 1)
    with ProcessPoolExecutor(min(jobs, len(seeds))) as pool:
        running = [pool.submit(_one, seed, years, events, size, mutant) for seed in seeds]
        for done in as_completed(running):
            yield done.result()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this seed alone and show its trace")
    parser.add_argument("--seeds", type=int, default=100, help="how many (default 100)")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--years", type=float, default=0.3)
    parser.add_argument("--events", type=int, help="acts of users; default: 12, or 8 a year")
    parser.add_argument("--large", action="store_true", help="278 magazines")
    parser.add_argument("--whole", action="store_true", help="magazines move whole, to 2 units")
    parser.add_argument("--arms", type=int, default=1, help="of the robot")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), default="", help="plant this bug")
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--shrink", action="store_true", help="make a failing --seed's plan small")
    parser.add_argument("--lines", type=int, default=60, help="of the trace to show")
    given = parser.parse_args()
    if given.events is None:
        given.events = max(12, int(8 * given.years))
    return given


def alone(given: argparse.Namespace, size: Size) -> int:
    """One seed, twice: its trace, and whether it replays."""
    how = {"years": given.years, "events": given.events, "size": size, "mutant": given.mutant}
    verdict = simulate(given.seed, **how)
    print("\n".join(verdict.log[-given.lines :]))
    print(dict(sorted(verdict.counts.items())))
    tell(verdict)
    if given.shrink and not verdict.good:
        small = shrink.smallest(verdict, lambda steps: simulate(given.seed, steps=steps, **how))
        print(f"shrunk from {len(verdict.steps)} to {len(small.steps)} steps:")
        print("\n".join(f"  {step}" for step in small.steps))
        print("\n".join(small.log[-given.lines :]))
        tell(small)
    return not verdict.good


def tell(v: Verdict) -> None:
    print(
        f"seed {v.seed}: {v.failure or 'good'}; {v.years:.1f} years, {v.lives} lives,"
        f" {v.seconds:.1f} s, trace {v.trace[:16]}", flush=True,
    )  # fmt: skip


def main() -> int:
    given = parse()
    size = plan.WHOLE if given.whole else plan.LARGE if given.large else plan.SMALL
    size = replace(size, arms=given.arms)
    if given.seed is not None:
        return alone(given, size)
    counts: Counter[str] = Counter()
    failed = []
    for verdict in many(
        range(given.first, given.first + given.seeds), years=given.years, events=given.events,
        size=size, mutant=given.mutant, jobs=given.jobs,
    ):  # fmt: skip
        counts += verdict.counts
        if not verdict.good:
            failed.append(verdict.seed)
            tell(verdict)
    for what, count in sorted(counts.items()):
        print(f"{what:<40} {count:>9,}")
    print(f"{given.seeds} seeds, {len(failed)} failed: {sorted(failed)}")
    return bool(failed)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(
            sys.executable, [sys.executable, "-m", "tests.sim", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )  # fmt: skip
    sys.exit(main())
