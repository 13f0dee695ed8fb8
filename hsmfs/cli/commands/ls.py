"""hsmctl ls: a folder with the states of its files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from ..context import Ctl, json_option, path_query
from ..output import size, when


@click.command(
    "ls",
    epilog="""\b
Examples:
  hsmctl ls /srv/archive/scans
  hsmctl ls --json . | jq -r '.[] | select(.state == "migrated") .path'
""",
)
@click.argument("path", default=".")
@json_option
def command(ctl: Ctl, path: str) -> None:
    """List a folder with each file's state and bytes on disk. Recalls nothing.
    """
    out = ctl.out
    entries = _entries(ctl, path)
    if out.as_json:
        out.json(list(entries))
        return
    out.table(
        ("STATE", ">SIZE", ">ON DISK", "MODIFIED", "NAME"),
        (
            (
                out.state(e["state"] or e["kind"]), size(e["size"]),
                size(e["disk_bytes"]) if e["kind"] == "file" else "-",
                when(e["mtime_ns"]), ctl.name(e) + ("/" if e["kind"] == "folder" else ""),
            )
            for e in entries
        ),
    )  # fmt: skip


def _entries(ctl: Ctl, path: str) -> Iterator[dict[str, Any]]:
    """The folder's entries, page by page."""
    after: int | None = 0
    while after is not None:
        page = ctl.client.get("/ls", after=after, **path_query(ctl.namespace(path)))
        yield from page["entries"]
        after = page["next"]
