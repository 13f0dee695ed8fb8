"""hsmctl archive: files to discs."""

from __future__ import annotations

import click

from ..context import Ctl, json_option, path_list
from ..progress import follow, run


@click.command(
    "archive",
    epilog="""\b
Examples:
  hsmctl archive scans/2019
  hsmctl archive --now --wait scans/2019      burn at once and wait for it
  hsmctl archive --now                        burn what waits
  hsmctl archive --copies 2 --release report.pdf
""",
)
@click.argument("paths", metavar="[PATH]...", nargs=-1)
@click.option("--copies", type=click.IntRange(1, 8), help="On so many different discs.")
@click.option("--now", is_flag=True, help="Burn what waits now, also if no disc becomes full.")
@click.option("--wait", is_flag=True, help="Return when the copies are verified.")
@click.option("--release", is_flag=True, help="Then give up the bytes on disk, but the head.")
@click.option(
    "--vault", metavar="PLACE",
    help="One of two or more copies goes to discs of sets of their own, to be kept there.",
)  # fmt: skip
@click.option(
    "--accept", is_flag=True, help="Also what is not as its client's checksum says; on record."
)
@json_option
def command(
    ctl: Ctl, paths: tuple[str, ...], copies: int | None, now: bool, wait: bool, release: bool,
    vault: str | None, accept: bool,
) -> int:  # fmt: skip
    """Put files (for a folder: all below it) on discs.

    They wait until a disc is worth burning, or a deadline passes; --now does not wait for that, and
    without a PATH it burns what waits already. A copy counts when it was read back from the disc
    and compared.
    """
    if not paths and (wait or not now):
        raise click.UsageError("which PATH? Only --now can do without one.")
    body = {
        "paths": path_list(ctl, paths),
        "copies": copies,
        "now": now,
        "wait": wait,
        "release": release,
        "vault": vault,
        "accept": accept,
    }
    if not paths:
        follow(ctl, "/archive", body, "")
        if not ctl.out.as_json:
            ctl.out.line("what waits is burned now; 'hsmctl status' tells how far")
        return 0
    done = "archived" if wait else "queued to be archived"
    return run(ctl, "/archive", body, "archiving", done)
