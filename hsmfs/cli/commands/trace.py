"""hsmctl trace: traces of requests for hsmctl simulate, made or recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ...units import parse_size
from ..context import Ctl, json_option
from ..output import ago, plural, size

KINDS = ("priors", "bulk", "mixed", "storm", "burns", "hot")


@click.group(
    "trace",
    epilog="""\b
Examples:
  hsmctl trace start
  hsmctl trace stop
  hsmctl trace make mixed mixed.jsonl --size '2 TB'
""",
)
def command() -> None:
    """Traces of requests: record what is asked for, or make one as hospitals do."""


@command.command("start", epilog="\b\nExamples:\n  hsmctl trace start --file /var/tmp/week.jsonl")
@click.option("--file", type=click.Path(path_type=Path, dir_okay=False),
              help="[default: the configured one, or trace.jsonl in the state folder]")  # fmt: skip
@json_option
def start(ctl: Ctl, file: Path | None) -> None:
    """Record what is asked of the discs from now on, until 'stop' or the daemon ends.

    A file that is there is kept as FILE.1. The key [trace] file records from every start on.
    """
    body = {"file": None if file is None else str(file.absolute())}
    _show(ctl, ctl.client.post("/trace/start", body))


@command.command("stop", epilog="\b\nExamples:\n  hsmctl trace stop")
@json_option
def stop(ctl: Ctl) -> None:
    """End the recording and say what it came to."""
    _show(ctl, ctl.client.post("/trace/stop", {}))


@command.command("status", epilog="\b\nExamples:\n  hsmctl trace status")
@json_option
def status(ctl: Ctl) -> None:
    """Say whether a trace is being recorded."""
    _show(ctl, ctl.client.get("/trace"))


def _show(ctl: Ctl, found: dict[str, Any]) -> None:
    out, now = ctl.out, found["recording"]
    if out.as_json:
        out.json(found)
    elif now is None:
        out.line("nothing is recorded")
    else:
        lost = f", {now['left_out']} left out" if now["left_out"] else ""
        since = ago(now["since_ns"])
        out.line(f"{now['file']}: {plural(now['requests'], 'request')} since {since}{lost}")


def _bytes(ctx: click.Context, param: click.Parameter, value: str) -> int:
    try:
        return parse_size(value)
    except ValueError as fault:
        raise click.BadParameter(str(fault)) from fault


@command.command("make", epilog="\b\nExamples:\n  hsmctl trace make mixed mixed.jsonl --hours 48")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--hours", type=click.FloatRange(0.1), default=24.0, show_default=True)
@click.option("--exams", type=click.FloatRange(1), default=1000.0, show_default=True,
              help="A day.")  # fmt: skip
@click.option("--online", type=click.FloatRange(0, 60), default=24.0, show_default=True,
              help="Months of studies that are still on disk.")  # fmt: skip
@click.option("--size", "total", callback=_bytes, default="10 TB", show_default=True,
              help="Of a bulk restore.")  # fmt: skip
@click.option("--requests", type=click.IntRange(1), default=1000, show_default=True,
              help="Of a storm, or for the hot set.")  # fmt: skip
@click.option("--seed", type=int, default=1, show_default=True)
@json_option
def make(
    ctl: Ctl, kind: str, file: Path, hours: float, exams: float, online: float, total: int,
    requests: int, seed: int,
) -> None:  # fmt: skip
    """Write a trace about a full library as the configuration describes it.

    \b
    priors  readers open earlier studies that are no longer on disk
    bulk    a restore of studies from anywhere, asked for at once
    mixed   both
    storm   priors, while a program runs over the archive
    burns   priors, while a disc is burned each half hour
    hot     the same few studies again and again, by Zipf's law
    """
    from ...errors import TraceError
    from ...simulate import generate, trace

    library = ctl.config.library
    archive = generate.Archive(library.magazines, library.slots_per_magazine, library.disc)
    if kind == "bulk":
        made = generate.scattered(archive, seed, size=total)
    elif kind == "hot":
        made = generate.hot_set(archive, seed, hours=hours, requests=requests, studies=60)
    else:
        made = generate.priors(archive, seed, hours=hours, exams_a_day=exams, online_months=online)
        if kind == "mixed":
            made = made.merged(generate.scattered(archive, seed, size=total))
        elif kind == "storm":
            made = made.merged(generate.storm(archive, seed, requests=requests, seconds=1800.0))
        elif kind == "burns":
            discs = min(archive.discs, round(2 * hours))
            made = made.merged(generate.burns(archive, seed, hours=hours, discs=discs))
    try:
        with file.open("w", encoding="utf-8") as out:
            out.writelines(trace.dump(made))
    except OSError as error:
        raise TraceError(f"cannot write {file}: {error.strerror}") from error
    if ctl.out.as_json:
        ctl.out.json({"file": str(file), "requests": len(made.requests), "bytes": made.size})
    else:
        ctl.out.line(f"{file}: {plural(len(made.requests), 'request')}, {size(made.size)}")
