"""hsmctl df: where the bytes are."""

from __future__ import annotations

import click

from ..context import Ctl, json_option
from ..output import bar, percent, size


@click.command("df", epilog="\b\nExamples:\n  hsmctl df\n  hsmctl df --json")
@json_option
def command(ctl: Ctl) -> None:
    """Show bytes by pool, by state of files and by state of discs."""
    space = ctl.client.get("/df")
    out = ctl.out
    if out.as_json:
        out.json(space)
        return
    out.table(
        ("POOL", "TIER", ">USED", ">FREE", ">SIZE", "", ">", ">HIGH", ">LOW"),
        [
            (
                p["name"], p["tier"], size(p["used"]), size(max(0, p["capacity"] - p["used"])),
                size(p["capacity"]), bar(p["used"], p["capacity"]),
                percent(p["used"], p["capacity"]), f"{p['high']} %", f"{p['low']} %",
            )
            for p in space["pools"]
        ],
    )  # fmt: skip
    out.line()
    out.table(
        ("FILES", ">NUMBER", ">SIZE"),
        [(out.state(f["state"]), f"{f['files']:,}", size(f["bytes"])) for f in space["files"]],
    )
    out.line()
    out.table(
        ("DISCS", ">NUMBER", ">USED", ">SIZE"),
        [
            (out.state(d["state"]), f"{d['discs']:,}", size(d["used"]), size(d["capacity"]))
            for d in space["discs"]
        ],
    )
