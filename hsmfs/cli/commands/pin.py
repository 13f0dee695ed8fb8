"""hsmctl pin: keeps files on disk."""

from __future__ import annotations

import click

from ..context import Ctl, json_option, path_list, paths_argument
from ..progress import report


@click.command("pin",
    epilog="""\b
Examples:
  hsmctl pin reports/
  hsmctl pin --off reports/2019
""",
)
@paths_argument
@click.option("--off", is_flag=True, help="They may be released again.")
@json_option
def command(ctl: Ctl, paths: tuple[str, ...], off: bool) -> int:
    """Keep files (for a folder: those now below it) on disk, whatever the policies say.

    A pinned file is archived as others are, but never released. It is not recalled by this.
    """
    body = {"paths": path_list(ctl, paths), "pinned": not off}
    found = ctl.client.post("/pin", body, timeout=None)
    return report(ctl, found, "unpinned" if off else "pinned")
