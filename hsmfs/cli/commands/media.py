"""hsmctl media: how many discs will be needed."""

from __future__ import annotations

from typing import Any

import click

from ...units import parse_size
from ..context import Ctl, json_option
from ..output import size


@click.group("media", epilog="\b\nExamples:\n  hsmctl media forecast --growth '100 TB'")
def command() -> None:
    """Plan the purchase of discs."""


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    try:
        return None if value is None else parse_size(value)
    except ValueError as fault:
        raise click.BadParameter(str(fault)) from fault


@command.command(
    "forecast",
    epilog="\b\nExamples:\n  hsmctl media forecast\n  hsmctl media forecast --growth '100 TB'",
)
@click.option(
    "--growth", callback=_size, metavar="SIZE",
    help="Bytes of new files a year; default: as the history was.",
)  # fmt: skip
@json_option
def forecast(ctl: Ctl, growth: Any) -> None:
    """Tell how many blank discs a year are needed, and what that assumes."""
    found = ctl.client.get("/media/forecast", growth=growth)
    out = ctl.out
    if out.as_json:
        out.json(found)
        return
    losses, scrub = found["losses"], found["scrub"]
    most = "" if losses["at_most"] is None else f" (at most {losses['at_most']:g})"
    hours = scrub["drive_hours_a_year"]
    last = found["blanks_last_years"]
    out.fields(
        [
            ("discs a year", f"{found['discs_a_year']:g}"),
            ("for growth", f"{found['growth']:g}"),
            ("for discs that fail", f"{losses['discs']:g}{most}"),
            ("for repacking", f"{found['repack']['discs']:g}"),
            ("blank discs", found["blanks"]),
            ("they last", f"{last:g} years" if last is not None else None),
            (
                "tests read",
                f"{size(scrub['bytes_a_year'])} a year"
                + (f", {hours:g} hours of one drive" if hours is not None else ""),
            ),
        ]
    )
    out.line("assumed:")
    for text in found["assumed"]:
        out.line(f"  - {text}")
