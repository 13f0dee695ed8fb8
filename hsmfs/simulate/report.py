"""What a run was like: waits by class, exchanges, and how busy drives and robot were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..catalog.queues import RecallClass
from ..engine.schedule import Rules
from .bound import makespan_bound
from .model import Model
from .policies import POLICIES
from .trace import Trace
from .world import Outcome, World


@dataclass(frozen=True, slots=True)
class Waits:
    """From a request to its last byte, in seconds, of one class; aged: over its age limit."""

    requests: int
    mean: float
    p50: float
    p95: float
    p99: float
    longest: float
    aged: int


@dataclass(frozen=True, slots=True)
class Report:
    """One policy's run. Seconds; uses are shares from 0 to 1; bound: see docs/scheduler.md."""

    policy: str
    makespan: float
    bound: float
    waits: dict[str, Waits]
    fetches: int
    moves: int
    exchanges_per_gb: float
    drive_use: float
    robot_use: float
    decisions: int


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest of the sorted values that so large a share of them does not exceed."""
    return values[min(len(values) - 1, max(0, -(-int(share * len(values) * 1000) // 1000) - 1))]


def waits(trace: Trace, outcome: Outcome, rules: Rules) -> dict[str, Waits]:
    """By class; burns are a class of their own."""
    found: dict[str, list[float]] = {}
    limits: dict[str, float] = {}
    for request, done in zip(trace.requests, outcome.done, strict=True):
        name = "burn" if request.burn else request.urgency.name.lower()
        found.setdefault(name, []).append(done - request.at)
        limits[name] = rules.of(RecallClass.BULK if request.burn else request.urgency).age_limit
    return {name: _waits(sorted(found[name]), limits[name]) for name in sorted(found)}


def _waits(values: list[float], limit: float) -> Waits:
    return Waits(
        len(values), sum(values) / len(values), quantile(values, 0.5), quantile(values, 0.95),
        quantile(values, 0.99), values[-1], sum(value > limit for value in values),
    )  # fmt: skip


def run(trace: Trace, model: Model, policy: str, rules: Rules) -> tuple[Report, Outcome]:
    """Replay the trace under a policy of POLICIES. Raises TraceError."""
    outcome = World(trace, model, POLICIES[policy](rules)).run()
    start = trace.requests[0].at if trace.requests else 0.0
    span = outcome.end - start
    gigabytes = sum(r.size for r in trace.requests) / 1e9
    report = Report(
        policy,
        span,
        makespan_bound(trace, model),
        waits(trace, outcome, rules),
        outcome.fetches,
        outcome.moves,
        outcome.fetches / gigabytes if gigabytes else 0.0,
        outcome.drive_seconds / (span * model.drives) if span else 0.0,
        outcome.robot_seconds / (span * model.arms) if span else 0.0,
        outcome.decisions,
    )
    return report, outcome
