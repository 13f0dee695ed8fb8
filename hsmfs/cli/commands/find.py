"""hsmctl find: files by state, age, size, owner, disc and name, and those that are lost."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click

from ...units import parse_duration, parse_size
from ..context import Ctl, json_option

STATES = ("resident", "premigrated", "partial", "migrated")


class Duration(click.ParamType[float]):
    """A duration such as "30 d", as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return parse_duration(value)
        except ValueError as fault:
            self.fail(str(fault), param, ctx)


class Size(click.ParamType[int]):
    """A size such as "10 MiB", as bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return parse_size(int(value) if str(value).isdecimal() else value)
        except ValueError as fault:
            self.fail(str(fault), param, ctx)


@click.command(
    "find",
    epilog="""\b
Examples:
  hsmctl find --state migrated
  hsmctl find --older '90 d' --larger '1 GiB' --state resident
  hsmctl find --volume S0001D03 --name '*.dcm'
  hsmctl find --lost                 what three lost discs of a 10+2 set took along
  hsmctl find --state partial --json | jq -r .path
""",
)
@click.option("--state", multiple=True, type=click.Choice(STATES), help="May be given repeatedly.")
@click.option("--older", type=Duration(), help="Modified longer ago than this.")
@click.option("--newer", type=Duration(), help="Modified less long ago than this.")
@click.option("--unused", type=Duration(), help="Not read for this long.")
@click.option("--larger", type=Size(), help="At least this size.")
@click.option("--smaller", type=Size(), help="At most this size.")
@click.option("--volume", metavar="BARCODE", help="With a copy on this disc.")
@click.option(
    "--lost", is_flag=True,
    help="With bytes that neither a disc, here or outside, nor parity brings back.",
)  # fmt: skip
@click.option("--name", metavar="PATTERN", help="Last component of the path, such as '*.dcm'.")
@click.option("--uid", type=int, help="Owned by this user.")
@click.option("--pinned/--not-pinned", default=None, help="Kept on disk whatever the policies say.")
@click.option("--limit", type=click.IntRange(min=1), help="No more than this many.")
@click.option("-0", "--null", is_flag=True, help="Paths end with NUL, raw bytes, for xargs -0.")
@json_option
def command(ctl: Ctl, null: bool, **chosen: Any) -> None:
    """Find files through the catalog, without a walk over folders. Recalls nothing.

    With --json one object a line.
    """
    query = _query(**chosen)
    if null:
        _raw(ctl, query)
        return
    shown = json.dumps if ctl.out.as_json else ctl.shown
    for items in ctl.client.blocks("GET", "/find", paths=not ctl.out.as_json or None, **query):
        sys.stdout.write("".join(shown(item) + "\n" for item in items))


def _raw(ctl: Ctl, query: dict[str, Any]) -> None:
    import base64
    import os

    out = sys.stdout.buffer
    mount = os.fsencode(ctl.mountpoint).rstrip(b"/")
    for item in ctl.client.lines("GET", "/find", paths=True, **query):
        out.write(mount + base64.b64decode(item["path_b64"]) + b"\0")
    out.flush()


def _query(**chosen: Any) -> dict[str, Any]:
    now = time.time_ns()

    def before(seconds: float | None) -> int | None:
        return None if seconds is None else now - int(seconds * 1e9)

    return {
        "state": list(chosen["state"]) or None,
        "modified_before_ns": before(chosen["older"]),
        "modified_after_ns": before(chosen["newer"]),
        "accessed_before_ns": before(chosen["unused"]),
        "min_size": chosen["larger"],
        "max_size": chosen["smaller"],
        "uid": chosen["uid"],
        "volume": chosen["volume"],
        "lost": "true" if chosen["lost"] else None,
        "name": chosen["name"],
        "pinned": None if chosen["pinned"] is None else json.dumps(chosen["pinned"]),
        "limit": chosen["limit"],
    }
