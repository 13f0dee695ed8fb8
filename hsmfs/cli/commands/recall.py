"""hsmctl recall: files from discs back to disk, or only what that would cost."""

from __future__ import annotations

from typing import Any

import click

from ...units import format_duration
from ..context import Ctl, json_option, path_list, paths_argument
from ..output import plural, size
from ..progress import run


@click.command(
    "recall",
    epilog="""\b
Examples:
  hsmctl recall --wait scans/2019
  hsmctl recall --estimate /srv/archive/projects
  hsmctl recall --over-budget /srv/archive/projects
""",
)
@paths_argument
@click.option("--wait", is_flag=True, help="Return when all bytes are on disk.")
@click.option(
    "--class", "urgency", type=click.Choice(("interactive", "standard", "bulk")),
    help="Who goes first.  [default: standard; with --over-budget bulk]",
)  # fmt: skip
@click.option("--estimate", is_flag=True, help="Only tell discs, exchanges, bytes and time.")
@click.option("--over-budget", is_flag=True, help="Also if [recall] budget_* does not cover it.")
@json_option
def command(
    ctl: Ctl, paths: tuple[str, ...], wait: bool, urgency: str | None, estimate: bool,
    over_budget: bool,
) -> int:  # fmt: skip
    """Bring files (for a folder: all below it) back from discs, in the discs' order.

    What would take more exchanges or bytes than the configuration's [recall] budget_exchanges or
    budget_bytes is refused unless --over-budget is given. Files for which there is no room below
    their pool's high mark wait until there is.
    """
    # What is larger than an order may be would keep readers waiting for hours as standard.
    urgency = urgency or ("bulk" if over_budget else "standard")
    body: dict[str, Any] = {"paths": path_list(ctl, paths), "urgency": urgency}
    if estimate:
        _show(ctl, ctl.client.post("/recall/estimate", body, timeout=None))
        return 0
    body |= {"wait": wait, "over_budget": over_budget}
    return run(ctl, "/recall", body, "recalling", "recalled" if wait else "queued to be recalled")


def _show(ctl: Ctl, found: dict[str, Any]) -> None:
    out, seconds = ctl.out, found["seconds"]
    if out.as_json:
        out.json(found)
        return
    files, discs = found["files"], found["of_discs"]
    took = "unknown: no drive is up"
    if seconds is not None:
        took = f"about {format_duration(round(seconds))}"
    out.fields(
        (
            ("to bring in", f"{plural(files, 'file')}, {size(found['bytes'])}"),
            ("on disk", plural(found["on_disk"], "file")),
            ("discs", f"{found['discs']:,}"),
            ("exchanges", f"{found['exchanges']:,}"),
            ("time", took),
            ("by parity", plural(found["by_parity"], "file") if found["by_parity"] else None),
            ("outside", _some(found["outside"], "an operator must bring discs")),
            ("lost", _some(found["unreadable"], "no copy is left")),
            ("budget", found["over"] or "covers it"),
        )
    )
    if discs:
        out.line()
        out.table(
            ("DISC", "PLACE", ">FILES", ">SIZE"),
            [(d["barcode"], d["place"], f"{d['files']:,}", size(d["bytes"])) for d in discs],
        )


def _some(files: int, why: str) -> str | None:
    return f"{plural(files, 'file')}: {why}" if files else None
