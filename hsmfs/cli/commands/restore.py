"""hsmctl restore: an older version of a file, back."""

from __future__ import annotations

import click

from ..context import Ctl, json_option, path_query


@click.command(
    "restore",
    epilog="""\b
Examples:
  hsmctl restore reports/2031.odt --version 4711.2
  hsmctl restore reports/2031.odt --version 4711.2 --to reports/2031-old.odt
""",
)
@click.argument("path")
@click.option("--version", required=True, metavar="ID", help="As 'hsmctl versions' names it.")
@click.option("--to", help="A new path for it, instead of the file's place.")
@json_option
def command(ctl: Ctl, path: str, version: str, to: str | None) -> None:
    """Bring an older version of a file back; a reader of it recalls it from its disc.

    What is at PATH now goes to the trash; 'hsmctl versions' then lists it, too. Owner and
    permissions are those that the file has now.
    """
    order = {
        "path": path_query(ctl.namespace(path)), "version": version,
        "to": path_query(ctl.namespace(to)) if to else None,
    }  # fmt: skip
    done = ctl.client.post("/versions/restore", order)
    if ctl.out.as_json:
        ctl.out.json(done)
    else:
        ctl.out.line(f"version {version} is {ctl.shown(done['detail'])}")
