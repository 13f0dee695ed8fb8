"""hsmctl adopt: an existing tree becomes part of the namespace, without copying."""

from __future__ import annotations

import base64
import os
from typing import Any

import click

from ..context import Ctl, json_option, path_query
from ..output import plural, size


@click.command(
    "adopt",
    epilog="""\b
Examples:
  hsmctl adopt /pool/hdd/old-nas
  hsmctl adopt /pool/hdd/old-nas --to /srv/archive/nas
  hsmctl adopt --undo /pool/hdd/old-nas
  hsmctl adopt --list
""",
)
@click.argument("directory", required=False)
@click.option("--to", metavar="PATH", help="Where what is in it shall be; default: the mountpoint.")
@click.option("--pool", metavar="NAME", help="The pool that takes the files.")
@click.option("--link", is_flag=True, help="Share the files by hard links; the tree stays.")
@click.option("--undo", is_flag=True, help="Give the tree back; until its files were migrated.")
@click.option("--list", "list_", is_flag=True, help="Show what was adopted.")
@json_option
def command(
    ctl: Ctl,
    directory: str | None,
    to: str | None,
    pool: str | None,
    link: bool,
    undo: bool,
    list_: bool,
) -> int:
    """Take the tree in DIRECTORY into hsmfs: files move into a pool by rename, no byte is copied.

    The tree must be on the pool's filesystem, and quiet. A run that was cut off goes on when it is
    repeated. Names, owners, times, links and xattrs stay as they were.
    """
    if list_:
        _list(ctl)
        return 0
    if directory is None:
        raise click.UsageError("which DIRECTORY?")
    source = path_query(os.fsencode(os.path.abspath(directory)))
    target = path_query(ctl.namespace(to)) if to else None
    body = {"source": source, "target": target, "link": link, "pool": pool, "undo": undo}
    last: dict[str, Any] = {}
    for last in ctl.client.lines("POST", "/adopt", body):
        if ctl.out.as_json:
            ctl.out.json_line(last)
        elif ctl.out.terminal and last.get("total"):
            done = f"{last['entries']:,} of {last['total']:,}"
            click.echo(f"\r\x1b[K{done}", nl=False, err=True)
    return _report(ctl, last, "given back" if undo else "adopted")


def _report(ctl: Ctl, report: dict[str, Any], done: str) -> int:
    from ...errors import Conflict, HsmError

    if report.get("kind") != "end":
        raise HsmError("hsmfsd ended the answer early", next_step="run it again: it goes on")
    out = ctl.out
    if not out.as_json:
        if out.terminal:
            click.echo("\r\x1b[K", nl=False, err=True)
        out.line(
            f"{plural(report['files'], 'file')}, {plural(report['folders'], 'folder')} "
            f"{done} ({size(report['bytes'])})"
        )
        for failure in report["failed"]:
            out.warn(f"{ctl.name(failure)}: {failure['error']}")
        for kept in report["kept"]:
            out.warn(f"{ctl.name(kept)}: stays, it is not from the tree or a retention folder")
        if report["linked_outside"]:
            out.warn(f"{plural(report['linked_outside'], 'file')} also linked from elsewhere")
    return Conflict.exit_code if report["failed"] else 0


def _list(ctl: Ctl) -> None:
    from ...logs import printable

    found = ctl.client.get("/adoptions")
    if ctl.out.as_json:
        ctl.out.json(found)
        return
    ctl.out.table(
        ("STATE", "POOL", "TREE", "TO"),
        [
            (
                a["state"], a["pool"], printable(base64.b64decode(a["source_b64"])),
                printable(base64.b64decode(a["target_b64"])),
            )
            for a in found
        ],
    )  # fmt: skip
