"""hsmctl release: gives up bytes on disk that are on enough discs."""

from __future__ import annotations

import click

from ..context import Ctl, json_option, path_list, paths_argument
from ..progress import report


@click.command(
    "release",
    epilog="""\b
Examples:
  hsmctl release scans/2019
  hsmctl release --open scans/2019/movie.mp4
  hsmctl find --state premigrated --older '1 w' -0 | xargs -0 hsmctl release
""",
)
@paths_argument
@click.option(
    "--open", "even_open", is_flag=True,
    help="Also files that are open, unless written to just now; who reads on waits for the disc.",
)  # fmt: skip
@json_option
def command(ctl: Ctl, paths: tuple[str, ...], even_open: bool) -> int:
    """Free the disk space of files that have enough verified copies; the head stays.

    Files that are not on enough discs, pinned or open are refused, each with the reason; --open
    lets open ones go, too.
    """
    body = {"paths": path_list(ctl, paths), "even_open": even_open}
    found = ctl.client.post("/release", body, timeout=None)
    return report(ctl, found, "released", "freed")
