"""hsmctl request: discs that operators are asked to bring, or to take to a vault."""

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
    """Show and answer what operators are asked for: discs to bring, discs to take to a vault."""


@command.command("ls", epilog="\b\nExamples:\n  hsmctl request ls")
@json_option
def ls(ctl: Ctl) -> None:
    """List discs to bring, and who waits for each; and finished sets to take to a vault.

    Take a set out with 'hsmctl volume export SET'.
    """
    found = ctl.client.get("/requests")
    if ctl.out.as_json:
        ctl.out.json(found)
        return
    ctl.out.table(
        ("WHAT", "DISC OR SET", "FROM", "TO", "SINCE", ">DISCS", ">FILES", ">READERS", "ASKED BY"),
        [
            (
                r["kind"], r["name"], r["place"], r["destination"], ago(r["asked_ns"]),
                len(r["discs"]), f"{r['files']:,}", len(r["readers"]), r["who"],
            )
            for r in found
        ],
    )  # fmt: skip


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
@click.argument("name", metavar="BARCODE-or-SET")
@click.option("--reason", default="", help="What readers are told.")
@json_option
def refuse(ctl: Ctl, name: str, reason: str) -> None:
    """Say that a disc will not be brought, or that a set will not be taken out.

    Who waits for the disc gets an error; the set stays in the library for good.
    """
    found = ctl.client.post(f"/requests/{name}/refuse", {"reason": reason})
    if ctl.out.as_json:
        ctl.out.json(found)
        return
    ctl.out.line(f"{plural(found['detail']['recalls'], 'recall')} ended")
