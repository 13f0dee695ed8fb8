"""hsmctl drive: the drives, and taking one up or down."""

from __future__ import annotations

import click

from ..context import Ctl, json_option
from ..output import size
from .health import show_entries


@click.group(
    "drive",
    epilog="""\b
Examples:
  hsmctl drive list
  hsmctl drive info d2
  hsmctl drive down d2 --reason 'laser fails, ticket 4711'
  hsmctl drive up d2
""",
)
def command() -> None:
    """Show drives, or take one up or down."""


@command.command("list", epilog="\b\nExamples:\n  hsmctl drive list")
@json_option
def list_(ctl: Ctl) -> None:
    """List the drives with what they do and their ledgers."""
    found = ctl.client.get("/drives")
    out = ctl.out
    if out.as_json:
        out.json(found)
        return
    out.table(
        ("DRIVE", "SERIAL", "STATE", "DOES", "DISC", ">LOADS", ">READ ERR", ">WRITE ERR", "REASON"),
        [
            (
                d["name"], d["serial"], out.state(d["state"]), d["work"], d["disc"] or "-",
                d["loads"], d["read_errors"], d["write_errors"], d["reason"],
            )
            for d in found
        ],
    )  # fmt: skip


@command.command("info", epilog="\b\nExamples:\n  hsmctl drive info d2")
@click.argument("name")
@json_option
def info(ctl: Ctl, name: str) -> None:
    """Show a drive's record: speed, faults, and the discs that it wrote or could not read."""
    from urllib.parse import quote

    found = ctl.client.get(f"/drives/{quote(name, safe='')}/health")
    out = ctl.out
    if out.as_json:
        out.json(found)
        return
    speed = found["read_speed"]
    out.fields(
        [
            ("drive", found["drive"]),
            ("serial", found["serial"]),
            ("state", out.state(found["state"])),
            ("reason", found["reason"] or None),
            ("loads", found["loads"]),
            ("errors", found["errors"]),
            ("blamed for", f"{found['blamed']['reading']} reading, {found['blamed']['writing']}"
             " writing"),
            ("read", size(found["read_bytes"]) + (f", {size(speed)}/s" if speed else "")),
            ("discs written", f"{found['discs_written']}, of which"
             f" {found['discs_written_now_bad']} are bad now"),
        ]
    )  # fmt: skip
    if found["discs_with_errors"]:
        out.table(
            ("DISC", ">LOADS", ">ERRORS"),
            [(d["disc"], d["loads"], d["errors"]) for d in found["discs_with_errors"]],
        )
    show_entries(ctl, found["entries"], "volume")


@command.command("up", epilog="\b\nExamples:\n  hsmctl drive up d2")
@click.argument("name")
@json_option
def up(ctl: Ctl, name: str) -> None:
    """Use the drive (again); its record of faults starts anew."""
    _order(ctl, name, {"state": "up"})


@command.command("down", epilog="\b\nExamples:\n  hsmctl drive down d2 --reason 'laser fails'")
@click.argument("name")
@click.option("--reason", required=True, help="For the log and the next admin.")
@json_option
def down(ctl: Ctl, name: str, reason: str) -> None:
    """Use the drive no more; a burn or read that goes on in it ends first."""
    _order(ctl, name, {"state": "down", "reason": reason})


def _order(ctl: Ctl, name: str, body: dict[str, str]) -> None:
    from urllib.parse import quote

    answer = ctl.client.post(f"/drives/{quote(name, safe='')}", body)
    if ctl.out.as_json:
        ctl.out.json(answer)
    else:
        ctl.out.line(f"drive {name} is {body['state']}")
