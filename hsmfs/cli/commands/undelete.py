"""hsmctl undelete: what was deleted, back to where it was."""

from __future__ import annotations

import click

from ..context import Ctl, json_option, path_list, paths_argument
from ..output import plural
from ..periods import Past


@click.command(
    "undelete",
    epilog="""\b
Examples:
  hsmctl undelete scans/0001.dcm
  hsmctl undelete --since '2 h' scans
  hsmctl undelete --since 2031-02-11T08:00 --dry-run scans
""",
)
@paths_argument
@click.option("--since", type=Past(), help="Deleted after a date (UTC), or less long ago.")
@click.option("--dry-run", is_flag=True, help="Only show it.")
@json_option
def command(ctl: Ctl, paths: tuple[str, ...], since: int | None, dry_run: bool) -> int:
    """Bring back files, links and folders that were deleted at or below each PATH.

    All is as it was: bytes, times, owners, permissions, ACLs and other attributes. Of several that
    had one name the newest comes back. What has the name by now stays, and exit code 5 says so.
    """
    from ...errors import Conflict

    order = {"paths": path_list(ctl, paths), "since_ns": since or 0, "dry_run": dry_run}
    found = ctl.client.post("/undelete", order, timeout=None)
    if ctl.out.as_json:
        ctl.out.json(found)
    else:
        for item in found["restored"]:
            ctl.out.line(ctl.shown(item))
        for item in found["failed"]:
            ctl.out.warn(f"{ctl.shown(item)} (inode {item['ino']}): {item['error']}")
        word = "would come back" if dry_run else "brought back"
        ctl.out.line(f"{plural(len(found['restored']), 'name')} {word}")
    return Conflict.exit_code if found["failed"] else 0
