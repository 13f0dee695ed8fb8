"""Few exchanges, short waits, nobody starves: six traces on a 42U library, against simple policies.

    tools/prove scheduler [--tb 10] [--library magazines|discs]

The library: 18 drives of 60 MB/s, 278 magazines of 12 x 300 GB, one robot, 60 s an exchange. It is
proved for a changer that moves magazines whole and for one that moves discs singly. The traces are
described in docs/scheduler.md, as is the proof of the bound. An idle library's waits are those of
the same interactive requests with nothing else to do, until the bulk work has ended.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from _verdict import Proof, proof
from lib import traces as six

from hsmfs.catalog.queues import RecallClass
from hsmfs.simulate.bound import makespan_bound
from hsmfs.simulate.model import Model
from hsmfs.simulate.policies import POLICIES
from hsmfs.simulate.report import Report, quantile, run
from hsmfs.simulate.trace import Trace
from hsmfs.simulate.world import Outcome

OVER = 1.25
"""Times the bound, on bulk."""
FASTER = 5.0
"""Than fifo, on scattered bulk."""
AS_FAST = 0.98
"""As largest-queue-first there, which serves nobody else."""
SLOWER = 1.5
"""p95 of interactive waits under load, of that of an idle library."""
UNDER_LOAD = ("mixed", "storm", "burn under reads")


def show(p: Proof, name: str, report: Report) -> None:
    p.say(
        f"  {report.policy:<8} {report.makespan / 3600:8.2f} h"
        f" {report.makespan / report.bound:8.3f} x bound"
        f" {1000 * report.exchanges_per_gb:9.2f} exchanges/TB"
        f"  drives {100 * report.drive_use:3.0f} %  robot {100 * report.robot_use:3.0f} %"
    )
    for kind, waits in report.waits.items():
        p.say(
            f"           {kind:<12} {waits.requests:>7,} requests: mean {waits.mean:>9,.0f} s,"
            f" p50 {waits.p50:>9,.0f}, p95 {waits.p95:>9,.0f}, p99 {waits.p99:>9,.0f},"
            f" longest {waits.longest:>9,.0f}, over age {waits.aged}"
        )


def interactive(trace: Trace, outcome: Outcome, until: float) -> list[float]:
    """Sorted waits of interactive requests that came before a moment."""
    both = zip(trace.requests, outcome.done, strict=True)
    return sorted(
        done - r.at for r, done in both if r.urgency is RecallClass.INTERACTIVE and r.at < until
    )


def other_work_ends(trace: Trace, outcome: Outcome) -> float:
    both = zip(trace.requests, outcome.done, strict=True)
    return max(done for r, done in both if r.urgency is not RecallClass.INTERACTIVE)


Found = dict[str, tuple[Report, Outcome]]
"""What each policy made of a trace."""
OTHERS = ("fifo", "largest")


def scattered(p: Proof, name: str, found: Found) -> None:
    ours = found["hsmfs"][0]
    p.figure(f"{name}: times the bound", ours.makespan / ours.bound, at_most=OVER)
    for other, least in zip(OTHERS, (FASTER, AS_FAST), strict=True):
        speed = found[other][0].makespan / ours.makespan
        p.figure(f"{name}: times as fast as {other}", speed, at_least=least)


def hot(p: Proof, name: str, found: Found) -> None:
    ours = found["hsmfs"][0]
    least = min(found[other][0].fetches for other in OTHERS)
    p.figure(f"{name}: exchanges by the best other", least)
    p.figure(f"{name}: exchanges", ours.fetches, at_most=1.1 * least)
    p95 = min(found[other][0].waits["interactive"].p95 for other in OTHERS)
    p.figure(f"{name}: p95 by the best other", p95, "s")
    p.figure(f"{name}: p95", ours.waits["interactive"].p95, "s", at_most=1.1 * p95)


def under_load(p: Proof, name: str, trace: Trace, model: Model, found: Found) -> None:
    until = other_work_ends(trace, found["hsmfs"][1])
    readers = trace.only(RecallClass.INTERACTIVE)
    alone = run(readers, model, "hsmfs", six.rules(model))[1]
    idle = quantile(interactive(readers, alone, until), 0.95)
    p95 = {of: quantile(interactive(trace, done[1], until), 0.95) for of, done in found.items()}
    p.figure(f"{name}: interactive p95 of an idle library", idle, "s")
    p.figure(f"{name}: interactive p95", p95["hsmfs"], "s")
    p.figure(f"{name}: times the idle p95", p95["hsmfs"] / idle, at_most=SLOWER)
    best = min(p95[other] for other in OTHERS)
    p.figure(f"{name}: interactive p95 by the best other", best, "s")
    p.figure(f"{name}: times the best other's", p95["hsmfs"] / best, at_most=1.0)


def prove(p: Proof, title: str, model: Model, size: int) -> None:
    p.say(f"\n{title}")
    rules = six.rules(model)
    alone = six.traces(size, 24.0)["bulk"]
    # Readers come for as long as the bulk work lasts, and at least for a day.
    hours = math.ceil(max(24.0, 1.2 * makespan_bound(alone, model) / 3600))
    for name, trace in six.traces(size, hours).items():
        began = time.monotonic()
        p.say(f"{name}: {len(trace.requests):,} requests, {trace.size / 1e12:.2f} TB")
        found = {policy: run(trace, model, policy, rules) for policy in POLICIES}
        for report, _ in found.values():
            show(p, name, report)
        aged = sum(waits.aged for waits in found["hsmfs"][0].waits.values())
        p.figure(f"{name}: requests over their age limit", aged, at_most=0)
        if name == "bulk":
            scattered(p, name, found)
        if name == "one hot set":
            hot(p, name, found)
        if name in UNDER_LOAD:
            under_load(p, name, trace, model, found)
        p.say(f"  ({time.monotonic() - began:.0f} s of this machine)")


def main(p: Proof) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tb", type=float, default=10.0, help="of the bulk restore")
    parser.add_argument("--library", choices=("magazines", "discs"))
    given = parser.parse_args()
    for title, model in six.LIBRARIES.items():
        if given.library is None or title.startswith(given.library):
            prove(p, title, model, int(given.tb * six.TB))


if __name__ == "__main__":
    with proof("hsmfs's scheduler is near the bound and keeps readers' waits short") as p:
        main(p)
