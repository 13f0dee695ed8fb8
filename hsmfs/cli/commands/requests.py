"""hsmctl requests: destructive orders that wait for a second person."""

from __future__ import annotations

import click

from ..context import Ctl, json_option
from ..output import ago, when


@click.command(
    "requests",
    epilog="""\b
Examples:
  hsmctl requests
""",
)
@json_option
def command(ctl: Ctl) -> None:
    """List orders that another admin must approve first ([access] two_person).

    Discs that operators are asked for are another matter: 'hsmctl request ls'.
    """
    found = ctl.client.get("/approvals")
    if ctl.out.as_json:
        ctl.out.json(found)
        return
    ctl.out.table(
        (">ID", "STATE", "ASKED BY", "SINCE", "UNTIL", "ORDER", "BODY"),
        [
            (
                r["id"], r["state"], r["asked_by"], ago(r["asked_ns"]), when(r["until_ns"]),
                r["act"], r["body"],
            )
            for r in found
        ],
    )  # fmt: skip
