"""hsmctl cancel: takes files out of the queues."""

from __future__ import annotations

import click

from ..context import Ctl, json_option, path_list, paths_argument
from ..progress import report


@click.command("cancel", epilog="\b\nExamples:\n  hsmctl cancel scans/2019")
@paths_argument
@json_option
def command(ctl: Ctl, paths: tuple[str, ...]) -> int:
    """Cancel what was asked for files: recalls, and migrations that are not being burned yet.

    Readers that wait for a cancelled recall get an error.
    """
    found = ctl.client.post("/cancel", {"paths": path_list(ctl, paths)}, timeout=None)
    return report(ctl, found, "out of the queues")
