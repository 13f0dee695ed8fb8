"""hsmctl library: what is in the robot, looking again, and moving a disc."""

from __future__ import annotations

import click

from ..context import Ctl, json_option


@click.group(
    "library",
    epilog="""\b
Examples:
  hsmctl library inventory
  hsmctl library inventory --rescan
  hsmctl library move S0001D03 1003
""",
)
def command() -> None:
    """Show what is where in the library, or move a disc."""


@command.command(
    "inventory", epilog="\b\nExamples:\n  hsmctl library inventory --rescan --all"
)
@click.option("--rescan", is_flag=True, help="Make the robot read every label again; slow.")
@click.option("--all", "everything", is_flag=True, help="Show empty places, too.")
@json_option
def inventory(ctl: Ctl, rescan: bool, everything: bool) -> None:
    """Ask the robot what is where, and take it over: the robot is right.

    Says what was not as the catalog had it: discs that are new, gone, or moved by hand.
    """
    found = ctl.client.post(
        f"/library/inventory?rescan={'true' if rescan else 'false'}", timeout=None
    )
    places = ctl.client.get("/library")
    out = ctl.out
    if out.as_json:
        out.json({"differences": found, "elements": places})
        return
    out.table(
        (">ADDRESS", "PLACE", "DISC", "STATE"),
        [
            (p["address"], p["place"], p["barcode"] or "-", out.state(p["volume_state"]))
            for p in places
            if everything or p["full"]
        ],
    )
    for difference in found:
        out.warn(f"{difference['kind']}: {difference['meaning']}")


@command.command("move", epilog="\b\nExamples:\n  hsmctl library move S0001D03 1003")
@click.argument("barcode")
@click.argument("address", type=click.IntRange(0, 65_535))
@json_option
def move(ctl: Ctl, barcode: str, address: int) -> None:
    """Move a disc that is in no drive to an element of the library, by its address."""
    answer = ctl.client.post(
        "/library/move", {"barcode": barcode, "address": address}, timeout=None
    )
    if ctl.out.as_json:
        ctl.out.json(answer)
    else:
        ctl.out.line(f"{barcode} is in element {address}")
