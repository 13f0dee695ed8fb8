"""hsmctl volume set, close, rebuild: discs that stand up for each other."""

from __future__ import annotations

import click

from ..context import Ctl, json_option
from ..output import size, when


@click.group("set", epilog="\b\nExamples:\n  hsmctl volume set ls")
def set_group() -> None:
    """Show sets of discs: how full, how safe, which discs."""


@set_group.command("ls", epilog="\b\nExamples:\n  hsmctl volume set ls")
@json_option
def ls(ctl: Ctl) -> None:
    """List the sets. MISSING: discs that are gone or bad; AWAY: those that were taken out, to a
    vault perhaps; SPARE: how many more may be lost.
    """
    found = ctl.client.get("/sets")
    out = ctl.out
    if out.as_json:
        out.json(found)
        return
    out.table(
        ("SET", "STATE", ">DATA", ">PARITY", ">MISSING", ">AWAY", ">SPARE", ">COPY", ">USED",
         "CLOSED", "KEPT IN"),
        [
            (
                s["set"], out.state(s["state"]), f"{s['data_discs']}/{s['k']}",
                f"{s['parity_discs']}/{s['m']}", s["missing"], s["away"], s["spare"],
                s["copy"], size(s["used"]), when(s["closed_ns"]), s["vault"] or "library",
            )
            for s in found
        ],
    )  # fmt: skip


@set_group.command("info", epilog="\b\nExamples:\n  hsmctl volume set info SET00001")
@click.argument("name", metavar="SET")
@json_option
def info(ctl: Ctl, name: str) -> None:
    """Show a set and each of its discs."""
    found = ctl.client.get(f"/sets/{name}")
    out = ctl.out
    if out.as_json:
        out.json(found)
        return
    out.fields(
        [
            ("set", found["set"]),
            ("state", out.state(found["state"])),
            ("discs", f"{found['data_discs']} of {found['k']} data, {found['parity_discs']} of"
                      f" {found['m']} parity"),
            ("missing", found["missing"]),
            ("taken out", found["away"]),
            ("may lose", f"{found['spare']} more"),
            ("copy", found["copy"]),
            ("kept in", found["vault"] or "the library"),
            ("uuid", found["uuid"]),
            ("begun", when(found["created_ns"])),
            ("closed", when(found["closed_ns"])),
            ("root hash", found["root_hash"]),
        ]
    )  # fmt: skip
    out.table(
        (">", "DISC", "ROLE", "STATE", "IN PARITY", "PLACE", ">USED", "REASON"),
        [
            (
                d["index"], d["disc"], d["role"], out.state(d["state"]),
                ("yes" if d["in_parity"] else "no") if d["role"] == "data" else "",
                d["place"], size(d["used"]), d["reason"],
            )
            for d in found["discs"]
        ],
    )  # fmt: skip
    for r in found["rebuilds"]:
        out.line(f"disc {r['disc']} is being rebuilt: {r['phase']}, {size(r['done'])} of"
                 f" {size(r['size'])}" + (f"; {r['error']}" if r["error"] else ""))  # fmt: skip


@click.command("close", epilog="\b\nExamples:\n  hsmctl volume close SET00001")
@click.argument("name", metavar="SET")
@json_option
def close(ctl: Ctl, name: str) -> None:
    """Close a set that is not full: its parity is burned for the discs that it has."""
    done = ctl.client.post(f"/sets/{name}/close")
    if ctl.out.as_json:
        ctl.out.json(done)
    elif done["detail"]["begun"]:
        ctl.out.line(f"set {name} is being closed; 'hsmctl volume set info {name}' tells when")
    else:
        ctl.out.line(f"set {name} is closed, or being closed, already")


@click.command(
    "rebuild",
    epilog="\b\nExamples:\n  hsmctl volume rebuild S0001D03 --wait",
)
@click.argument("barcode")
@click.option("--wait", is_flag=True, help="Wait until the new disc is verified.")
@click.option("--cancel", is_flag=True, help="Forget an order that waits for its turn or a blank.")
@json_option
def rebuild(ctl: Ctl, barcode: str, wait: bool, cancel: bool) -> None:
    """Make a lost or bad disc anew from the others of its set, on a blank disc.

    It goes on in the background and after a restart. The new disc has its own label; inside it is
    the old one, byte by byte.
    """
    out = ctl.out
    if cancel:
        done = ctl.client.post(f"/volumes/{barcode}/rebuild/cancel")
        out.json(done) if out.as_json else out.line(f"disc {barcode} is not rebuilt")
        return
    path = f"/volumes/{barcode}/rebuild"
    for item in ctl.client.lines("POST", path, wait="true" if wait else None):
        if item["kind"] == "end":
            if out.as_json:
                out.json(item)
            elif "was" in item:
                out.line(f"disc {item['disc']} holds what was on {item['was']}, verified")
            else:
                out.line(f"disc {barcode} will be rebuilt; 'hsmctl volume set info' tells how far")
