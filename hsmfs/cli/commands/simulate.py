"""hsmctl simulate: what a trace of requests would be like under other rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..context import Ctl, json_option
from ..output import size

POLICIES = ("hsmfs", "fifo", "largest")


@click.command(
    "simulate",
    epilog="""\b
Examples:
  hsmctl trace make mixed mixed.jsonl
  hsmctl simulate mixed.jsonl
  hsmctl simulate mixed.jsonl --policy hsmfs --policy fifo --plot mixed.svg
  hsmctl simulate mixed.jsonl --drives-per-magazine 6 --json
""",
)
@click.argument("trace", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--policy", "policies", multiple=True, type=click.Choice(POLICIES),
    help="May be given more than once.  [default: all]",
)  # fmt: skip
@click.option(
    "--drives-per-magazine", type=click.IntRange(1), metavar="N",
    help="The robot moves whole magazines, each to N drives; default: as configured.",
)  # fmt: skip
@click.option(
    "--arms", type=click.IntRange(1, 16), metavar="N", help="Of the robot; default: as configured."
)
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Draw waits and work to an SVG or PNG file; needs matplotlib.",
)  # fmt: skip
@json_option
def command(
    ctl: Ctl,
    trace: Path,
    policies: tuple[str, ...],
    drives_per_magazine: int | None,
    arms: int | None,
    plot: Path | None,
) -> None:
    """Replay a TRACE against the configured library and rules, and compare policies.

    Nothing is moved and the daemon need not run. The library's times and the rules are those of the
    configuration; `fifo` serves the oldest request first, `largest` the disc of which most is
    wanted. The bound is a time that no policy can beat (docs/scheduler.md).
    """
    from dataclasses import asdict, replace

    from ...engine.schedule import rules
    from ...simulate import trace as traces
    from ...simulate.model import Model
    from ...simulate.report import run

    loaded = traces.load(trace)
    library, ours = ctl.config.library, rules(ctl.config)
    group = drives_per_magazine or library.drives_per_magazine
    model = Model.of(library, drives_per_magazine=group, arms=arms or library.arms)
    if drives_per_magazine and not library.drives_per_magazine:
        ours = replace(ours, spare=min(model.units - 1, max(1, ours.spare // drives_per_magazine)))
    runs = [run(loaded, model, policy, ours) for policy in policies or POLICIES]
    if plot is not None:
        from ...simulate.plot import draw

        draw(plot, loaded, runs)
    if ctl.out.as_json:
        ctl.out.json([asdict(report) for report, _ in runs])
        return
    ctl.out.line(
        f"{len(loaded.requests):,} requests, {size(loaded.size)}, {len(loaded.discs):,} discs,"
        f" {model.drives} drives"
    )
    ctl.out.table(
        ("POLICY", ">MAKESPAN", ">/BOUND", ">EXCHANGES", ">PER TB", ">DRIVES", ">ROBOT"),
        [_total(asdict(report)) for report, _ in runs],
    )
    ctl.out.line()
    ctl.out.table(
        ("POLICY", "CLASS", ">REQUESTS", ">MEAN", ">P50", ">P95", ">P99", ">LONGEST", ">OVER AGE"),
        [row for report, _ in runs for row in _waits(asdict(report))],
    )


def _seconds(value: float) -> str:
    return f"{value:,.0f} s"


def _total(report: dict[str, Any]) -> tuple[str, ...]:
    times = report["makespan"] / report["bound"] if report["bound"] else 1.0
    return (
        report["policy"], _seconds(report["makespan"]), f"{times:.3f}", f"{report['fetches']:,}",
        f"{1000 * report['exchanges_per_gb']:,.1f}", f"{100 * report['drive_use']:.0f} %",
        f"{100 * report['robot_use']:.0f} %",
    )  # fmt: skip


def _waits(report: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            report["policy"], name, f"{w['requests']:,}",
            *(_seconds(w[key]) for key in ("mean", "p50", "p95", "p99", "longest")), str(w["aged"]),
        )
        for name, w in report["waits"].items()
    ]  # fmt: skip
