"""hsmctl rollback: a tree as it was at a time."""

from __future__ import annotations

from typing import Any

import click

from ..context import Ctl, json_option, path_query
from ..output import plural
from ..periods import Past


@click.command(
    "rollback",
    epilog="""\b
Examples:
  hsmctl rollback scans --to '2 h' --dry-run
  hsmctl rollback scans --to 2031-02-11T08:00
""",
)
@click.argument("tree", metavar="TREE")
@click.option("--to", required=True, type=Past(), help="A date (UTC), or how long ago.")
@click.option("--dry-run", is_flag=True, help="Only count.")
@json_option
def command(ctl: Ctl, tree: str, to: int, dry_run: bool) -> int:
    """Take TREE back to how it was: undo what was deleted, replaced, renamed, made, overwritten.

    Nothing is destroyed: what was made or changed since goes to the trash. Overwritten files come
    back as far as they were on discs, as stubs, or were set aside. What could not be kept is gone:
    --dry-run counts and names those files, and exit code 5 says so. Permissions stay as they are
    now. Take the share offline first.
    """
    from ...errors import Conflict

    order = {"path": path_query(ctl.namespace(tree)), "to_ns": to, "dry_run": dry_run}
    *_, end = ctl.client.lines("POST", "/rollback", order)
    found: dict[str, Any] = end
    if ctl.out.as_json:
        ctl.out.json(found)
    else:
        for item in found["failed"]:
            ctl.out.warn(f"{ctl.shown(item)}: {item['error']}")
        ctl.out.line(
            f"{plural(found['restored'], 'deletion')} and {plural(found['moved_back'], 'rename')}"
            f" undone, {plural(found['reverted'], 'file')} as before they were overwritten,"
            f" {found['set_aside']} made since set aside, {found['failures']} not taken back"
            + (" (dry run)" if dry_run else "")
        )
        if found["unkept"]:
            ctl.out.warn(
                f"{plural(found['unkept'], 'file')} of those overwritten before a disc had them"
                " could not be kept: what they were is nowhere, and no command brings it back"
            )
    return Conflict.exit_code if found["failures"] else 0
