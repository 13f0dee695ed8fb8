"""hsmctl approve: the second person's word."""

from __future__ import annotations

import click

from ..context import Ctl, json_option


@click.command(
    "approve",
    epilog="""\b
Examples:
  hsmctl requests
  hsmctl approve 7
  hsmctl approve 7 --refuse
""",
)
@click.argument("number", type=int, metavar="ID")
@click.option("--refuse", is_flag=True, help="Say no.")
@json_option
def command(ctl: Ctl, number: int, refuse: bool) -> None:
    """Approve a destructive order of another admin, who then gives it again (see 'requests')."""
    found = ctl.client.post(f"/approvals/{number}", {"approved": not refuse})
    if ctl.out.as_json:
        ctl.out.json(found)
        return
    word = "refused" if refuse else "approved"
    ctl.out.line(f"request {number} of {found['asked_by']} is {word}: {found['act']}")
