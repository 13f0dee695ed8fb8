"""hsmctl request: discs that operators are asked to bring."""

from __future__ import annotations

import click

from ..context import Ctl, json_option
from ..output import ago, plural


@click.group(
    "request",
    epilog="""\b
Examples:
  hsmctl request ls
  hsmctl request done S0001D03
""",
)
def command() -> None:
    """Show and answer requests for discs that lie outside the library."""


@command.command("ls", epilog="\b\nExamples:\n  hsmctl request ls")
@json_option
def ls(ctl: Ctl) -> None:
    """List wanted discs: where each lies, who waits for it, since when."""
    found = ctl.client.get("/requests")
    if ctl.out.as_json:
        ctl.out.json(found)
        return
    ctl.out.table(
        ("DISC", "LIES IN", "SINCE", ">FILES", ">READERS", "ASKED BY"),
        [
            (r["barcode"], r["place"], ago(r["asked_ns"]), r["files"], len(r["readers"]), r["who"])
            for r in found
        ],
    )


@command.command("done", epilog="\b\nExamples:\n  hsmctl request done S0001D03")
@click.argument("barcode")
@json_option
def done(ctl: Ctl, barcode: str) -> None:
    """Say that the disc was put into the library; who waits for it is served."""
    found = ctl.client.post(f"/requests/{barcode}/done", timeout=None)
    if ctl.out.as_json:
        ctl.out.json(found)
        return
    ctl.out.line(f"disc {barcode} is in the library")


@command.command(
    "refuse", epilog='\b\nExamples:\n  hsmctl request refuse S0001D03 --reason "disc is broken"'
)
@click.argument("barcode")
@click.option("--reason", default="", help="What readers are told.")
@json_option
def refuse(ctl: Ctl, barcode: str, reason: str) -> None:
    """Say that the disc will not be brought; who waits for it gets an error."""
    found = ctl.client.post(f"/requests/{barcode}/refuse", {"reason": reason})
    if ctl.out.as_json:
        ctl.out.json(found)
        return
    ctl.out.line(f"{plural(found['detail']['recalls'], 'recall')} ended")
