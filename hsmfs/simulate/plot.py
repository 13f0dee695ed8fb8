"""Draws what runs were like: waits of each class, and how the work got done. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path

from ..errors import TraceError
from .report import Report
from .trace import Trace
from .world import Outcome

COLOURS = {"hsmfs": "#0060a8", "largest": "#c06000", "fifo": "#808080"}


def draw(path: Path, trace: Trace, runs: list[tuple[Report, Outcome]]) -> None:
    """Write the picture; its format is that of the file's name. Raises TraceError."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise TraceError(
            "drawing needs matplotlib", next_step="pip install 'hsmfs[plot]', or leave --plot out"
        ) from error
    names = list(dict.fromkeys(name for report, _ in runs for name in report.waits))
    figure = Figure(figsize=(5 * (len(names) + 1), 4), layout="constrained")
    axes = figure.subplots(1, len(names) + 1, squeeze=False)[0]
    for axis, name in zip(axes, names, strict=False):
        axis.set(title=f"{name}: waits", xlabel="seconds", ylabel="share done", xscale="log")
        for report, outcome in runs:
            waits = sorted(
                max(0.1, done - r.at)
                for r, done in zip(trace.requests, outcome.done, strict=True)
                if name == ("burn" if r.burn else r.urgency.name.lower())
            )
            shares = [(n + 1) / len(waits) for n in range(len(waits))]
            axis.step(waits, shares, label=report.policy, color=COLOURS.get(report.policy))
        axis.grid(alpha=0.3)
    axis = axes[-1]
    axis.set(title="work", xlabel="hours", ylabel="TB done")
    for report, outcome in runs:
        ended = sorted(zip(outcome.done, (r.size for r in trace.requests), strict=True))
        total, line = 0, []
        for _, size in ended:
            total += size
            line.append(total / 1e12)
        axis.plot(
            [done / 3600 for done, _ in ended], line, label=report.policy,
            color=COLOURS.get(report.policy),
        )  # fmt: skip
    axis.grid(alpha=0.3)
    axis.legend()
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise TraceError(
            f"cannot write {path}: {error}", next_step="end its name in .svg"
        ) from error
