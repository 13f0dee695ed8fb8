"""hsmctl library: what is connected, what is in the robot, looking again, and moving a disc."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..context import Ctl, json_option

if TYPE_CHECKING:
    from ...library.scsi.discovery import Found, Map


@click.group(
    "library",
    epilog="""\b
Examples:
  hsmctl library discover
  hsmctl library inventory
  hsmctl library inventory --rescan
  hsmctl library move S0001D03 1003
""",
)
def command() -> None:
    """Show what is where in the library, or move a disc."""


@command.command("discover", epilog="\b\nExamples:\n  hsmctl library discover --json")
@json_option
def discover(ctl: Ctl) -> None:
    """Show the SCSI changer of this host, its drives, and which device each of them is.

    Looks at the devices themselves and needs no daemon. [library] changer and drive_devices of the
    configuration count, if there is one; without them it shows what hsmfs would choose.
    """
    from ...library.configured import scsi
    from ...library.scsi.config import ScsiConfig
    from ...library.scsi.discovery import survey

    configured = ctl.config_path is not None or ctl.file.exists()
    found = survey(scsi(ctl.config.library) if configured else ScsiConfig())
    if ctl.out.as_json:
        ctl.out.json(_as_json(found))
    else:
        _show(ctl, found)


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
    whole = any(p["unit"] for p in places)
    out.table(
        (">ADDRESS", "PLACE", *(["AT"] if whole else []), "DISC", "STATE"),
        [
            (
                p["address"], p["place"],
                *([f"unit {p['unit']}" if p["unit"] else "rack"] if whole else []),
                p["barcode"] or "-", out.state(p["volume_state"]),
            )
            for p in places
            if everything or p["full"]
        ],
    )  # fmt: skip
    for difference in found:
        out.warn(f"{difference['kind']}: {difference['meaning']}")


@command.command("move", epilog="\b\nExamples:\n  hsmctl library move S0001D03 1003")
@click.argument("barcode")
@click.argument("address", type=click.IntRange(0, 65_535))
@json_option
def move(ctl: Ctl, barcode: str, address: int) -> None:
    """Move a disc that is in no drive to an element of the library, by its address.

    Refused where magazines move whole.
    """
    answer = ctl.client.post(
        "/library/move", {"barcode": barcode, "address": address}, timeout=None
    )
    if ctl.out.as_json:
        ctl.out.json(answer)
    else:
        ctl.out.line(f"{barcode} is in element {address}")


def _show(ctl: Ctl, found: Map) -> None:
    changer = found.changer
    who = changer.identity
    ctl.out.line(
        f"changer {changer.path}: {who.vendor} {who.product} {who.revision}, "
        f"serial {who.serial or 'none'}"
    )
    for span in found.spans:
        kind = span.kind.name.lower().replace("_", "/")
        ctl.out.line(f"  {span.count} {kind}, from address {span.first}")
    ctl.out.table(
        ("DRIVE", ">ADDRESS", "DEVICE", "BURNS AT", "SERIAL", "THE ROBOT SAYS"),
        [
            (
                place.name, place.address,
                place.device.path if place.device else "not found",
                (place.device.node if place.device else None) or "-",
                (place.device.identity.serial if place.device else "") or "-",
                place.told or "nothing",
            )
            for place in found.places
        ],
    )  # fmt: skip
    if any(place.device is None for place in found.places):
        ctl.out.warn(
            "a drive's device is not known: set [library] drive_devices, serial numbers in the "
            "order of the table"
        )
    for other in found.others:
        ctl.out.line(f"not in this changer: {other.path}, serial {other.identity.serial or 'none'}")


def _as_json(found: Map) -> dict[str, Any]:
    return {
        "changer": _device(found.changer),
        "elements": [
            {"kind": s.kind.name.lower(), "first": s.first, "count": s.count} for s in found.spans
        ],
        "drives": [
            {
                "name": place.name, "address": place.address, "told": place.told,
                "device": _device(place.device) if place.device else None,
            }
            for place in found.places
        ],
        "others": [_device(other) for other in found.others],
    }  # fmt: skip


def _device(found: Found) -> dict[str, Any]:
    identity = found.identity
    return {
        "path": str(found.path),
        "node": str(found.node) if found.node else None,
        "vendor": identity.vendor,
        "product": identity.product,
        "revision": identity.revision,
        "serial": identity.serial,
    }
