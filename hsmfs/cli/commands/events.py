"""hsmctl events: what happened, and what happens."""

from __future__ import annotations

from typing import Any

import click

from ..context import Ctl, json_option
from ..output import when


@click.command(
    "events",
    epilog="""\b
Examples:
  hsmctl events
  hsmctl events --follow
  hsmctl events --follow --json | jq 'select(.kind == "drive_down")'
""",
)
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens, until interrupted.")
@click.option("--since", type=int, help="Only events with a greater number.")
@json_option
def command(ctl: Ctl, follow: bool, since: int | None) -> None:
    """Show events of the engine: files moved, discs burned, drives up and down.

    The newest some thousand are kept. With --json one object a line.
    """
    if since is None and follow:
        since = 0
    query: dict[str, Any] = {"since": since, "follow": "true" if follow else None}
    for event in ctl.client.lines("GET", "/events", **query):
        if ctl.out.as_json:
            ctl.out.json_line(event)
            continue
        fields = "  ".join(f"{name}={value}" for name, value in event["fields"].items())
        kind = ctl.out.style(event["kind"].ljust(18), "cyan")
        ctl.out.line(f"{when(event['time_ns'])}  {kind}  {fields}")
