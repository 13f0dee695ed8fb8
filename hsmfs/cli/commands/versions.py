"""hsmctl versions: what a file was before."""

from __future__ import annotations

import click

from ..context import Ctl, json_option, path_query
from ..output import size, when


@click.command(
    "versions",
    epilog="""\b
Examples:
  hsmctl versions reports/2031.odt
  hsmctl restore reports/2031.odt --version 4711.2 --to reports/2031-old.odt
""",
)
@click.argument("path")
@json_option
def command(ctl: Ctl, path: str) -> None:
    """List older versions of a file, also of one that was deleted: the newest first.

    Those on discs were archived before they were overwritten; those on disk were set aside then;
    those in the trash were deleted or replaced.
    """
    found = ctl.client.get("/versions", **path_query(ctl.namespace(path)))
    if ctl.out.as_json:
        ctl.out.json(found)
        return
    ctl.out.table(
        ("VERSION", "MODIFIED", "UNTIL", ">SIZE", "WHERE", "DISCS", "SHA-256"),
        [
            (
                v["id"], when(v["mtime_ns"]), when(v["until_ns"]), size(v["size"]), v["where"],
                ", ".join(f"{d} (outside)" if d in v["outside"] else d for d in v["discs"]) or "-",
                (v["sha256"] or "-")[:16],
            )
            for v in found
        ],
    )  # fmt: skip
