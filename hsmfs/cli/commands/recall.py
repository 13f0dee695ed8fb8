"""hsmctl recall: files from discs back to disk."""

from __future__ import annotations

import click

from ..context import Ctl, json_option, path_list, paths_argument
from ..progress import run


@click.command(
    "recall",
    epilog="""\b
Examples:
  hsmctl recall --wait scans/2019
  hsmctl recall --class bulk /srv/archive/projects
""",
)
@paths_argument
@click.option("--wait", is_flag=True, help="Return when all bytes are on disk.")
@click.option(
    "--class", "urgency", type=click.Choice(("interactive", "standard", "bulk")),
    default="standard", show_default=True, help="Who goes first.",
)  # fmt: skip
@json_option
def command(ctl: Ctl, paths: tuple[str, ...], wait: bool, urgency: str) -> int:
    """Bring files (for a folder: all below it) back from discs, in the discs' order."""
    body = {"paths": path_list(ctl, paths), "wait": wait, "urgency": urgency}
    return run(ctl, "/recall", body, "recalling", "recalled" if wait else "queued to be recalled")
