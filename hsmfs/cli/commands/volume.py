"""hsmctl volume: the discs."""

from __future__ import annotations

from typing import Any

import click

from ..context import Ctl, json_option
from ..output import percent, size, when
from .handover import handover
from .health import show_health
from .quarantine import quarantine
from .replace import certificate, refresh, repack, replacements
from .sets import close, rebuild, set_group
from .vault import adopt, export, import_, labels, leaving, stay

STATES = ("blank", "burning", "full", "suspect", "damaged", "exported", "lost", "retired")


@click.group(
    "volume",
    epilog="""\b
Examples:
  hsmctl volume list --state full
  hsmctl volume info S0001D03
""",
)
def command() -> None:
    """Show discs: state, place, what is on them, and their health."""


for _part in (
    set_group, close, rebuild, refresh, repack, replacements, certificate, quarantine, export,
    handover, leaving, stay, import_, labels, adopt,
):  # fmt: skip
    command.add_command(_part)


@command.command("list", epilog="\b\nExamples:\n  hsmctl volume list --state suspect")
@click.option("--state", type=click.Choice(STATES), help="Only discs in this state.")
@json_option
def list_(ctl: Ctl, state: str | None) -> None:
    """List the discs the catalog knows."""
    found = ctl.client.get("/volumes", state=state)
    out = ctl.out
    if out.as_json:
        out.json(found)
        return
    out.table(
        ("DISC", "STATE", "PLACE", ">USED", ">", "BURNED", ">LOADS", ">ERRORS", "REASON"),
        [
            (
                v["barcode"], out.state(v["state"]), v["place"], size(v["used"]),
                percent(v["used"], v["capacity"]), when(v["burned_ns"]), v["loads"],
                v["read_errors"] + v["write_errors"], _reason(v),
            )
            for v in found
        ],
    )  # fmt: skip


@command.command("info", epilog="\b\nExamples:\n  hsmctl volume info S0001D03")
@click.argument("barcode")
@json_option
def info(ctl: Ctl, barcode: str) -> None:
    """Show everything known of one disc: place, tests, faults with their sectors, drives."""
    volume = ctl.client.get(f"/volumes/{barcode}")
    volume["health"] = ctl.client.get(f"/volumes/{barcode}/health")
    out = ctl.out
    if out.as_json:
        out.json(volume)
        return
    out.fields(
        [
            ("disc", volume["barcode"]),
            ("state", out.state(volume["state"])),
            ("reason", volume["reason"] or None),
            ("quarantine", volume["quarantine"] or None),
            ("place", volume["place"]),
            ("to be kept in", volume["vault"] or None),
            ("used", f"{size(volume['used'])} of {size(volume['capacity'])}"),
            ("uuid", volume["uuid"]),
            ("first seen", when(volume["created_ns"])),
            ("burned", when(volume["burned_ns"])),
            ("burned by", volume["written_by"]),
            ("verified", when(volume["verified_ns"])),
            ("loads", volume["loads"]),
            ("errors", f"{volume['read_errors']} reading, {volume['write_errors']} writing"),
            ("root hash", volume["root_hash"]),
        ]
    )
    show_health(ctl, volume["health"])


def _reason(volume: dict[str, Any]) -> str:
    """Why it is as it is, an admin's own word first."""
    spared = volume["quarantine"] and f"quarantine: {volume['quarantine']}"
    return "; ".join(filter(None, (spared, volume["reason"])))
