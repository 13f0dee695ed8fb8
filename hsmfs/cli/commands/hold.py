"""hsmctl hold: legal holds on files, trees and searches."""

from __future__ import annotations

import time
from typing import Any

import click

from ..context import Ctl, json_option, path_list
from ..output import plural, when
from .find import STATES, Duration, Size


@click.group(
    "hold",
    epilog="""\b
Examples:
  hsmctl hold place case-2031 --reason 'subpoena of 2031-02-11' records/ward-7
  hsmctl hold place audit-3 --reason 'tax audit' --name '*.pdf' --newer '3 w'
  hsmctl hold release case-2031 --reason 'settled, letter of 2034-05-02'
""",
)
def command() -> None:
    """Legal holds: while one names a file, nobody changes or deletes it, nor retires its discs."""


def _scope(command: Any) -> Any:
    """Paths and the conditions of a search."""
    for option in (
        click.option("--gid", type=int, multiple=True, help="Files of this group."),
        click.option("--uid", type=int, multiple=True, help="Files of this user."),
        click.option("--smaller", type=Size(), help="Files of at most this size."),
        click.option("--larger", type=Size(), help="Files of at least this size."),
        click.option("--newer", type=Duration(), help="Files modified less long ago."),
        click.option("--older", type=Duration(), help="Files modified longer ago."),
        click.option("--state", multiple=True, type=click.Choice(STATES), help="Files so."),
        click.option("--name", "pattern", metavar="PATTERN", help="Files of such a name."),
        click.argument("paths", metavar="[PATH]...", nargs=-1),
    ):
        command = option(command)
    return command


def _body(ctl: Ctl, paths: tuple[str, ...], **chosen: Any) -> dict[str, Any]:
    now = time.time_ns()

    def before(seconds: float | None) -> int | None:
        return None if seconds is None else now - int(seconds * 1e9)

    fields = {
        "name": chosen["pattern"], "states": list(chosen["state"]) or None,
        "uids": list(chosen["uid"]) or None, "gids": list(chosen["gid"]) or None,
        "min_size": chosen["larger"], "max_size": chosen["smaller"],
        "modified_before_ns": before(chosen["older"]),
        "modified_after_ns": before(chosen["newer"]),
    }  # fmt: skip
    search = {name: value for name, value in fields.items() if value is not None}
    if not paths and not search:
        raise click.UsageError("name files or folders, or the conditions of a search")
    return {"paths": path_list(ctl, paths), "search": search or None}


def _told(ctl: Ctl, found: dict[str, Any], what: str) -> None:
    if ctl.out.as_json:
        ctl.out.json(found)
    else:
        detail = found["detail"]
        ctl.out.line(f"{detail['hold']}: {plural(detail['files'], 'file')} {what}")


@command.command(
    "place",
    epilog="\b\nExamples:\n  hsmctl hold place case-2031 --reason 'subpoena' records/ward-7",
)
@click.argument("name")
@_scope
@click.option("--reason", required=True, help="Goes on record.")
@json_option
def place(ctl: Ctl, name: str, paths: tuple[str, ...], reason: str, **chosen: Any) -> None:
    """Place a hold called NAME on files and trees, and on what a search finds.

    A search is one of the whole archive: with PATHs as well, all that lies there is held, and all
    that is found. Of a tree, what is in the trash from there is held, too, and stays in the trash.
    Files that come into trees and searches later are held within an hour, or by 'hsmctl hold apply'
    at once.
    """
    body = _body(ctl, paths, **chosen) | {"name": name, "reason": reason}
    _told(ctl, ctl.client.post("/holds", body, timeout=None), "held")


@command.command("add", epilog="\b\nExamples:\n  hsmctl hold add case-2031 records/ward-9")
@click.argument("name")
@_scope
@json_option
def add(ctl: Ctl, name: str, paths: tuple[str, ...], **chosen: Any) -> None:
    """Widen the hold NAME by more files, trees or a search."""
    body = _body(ctl, paths, **chosen)
    _told(ctl, ctl.client.post(f"/holds/{name}/add", body, timeout=None), "more held")


@command.command("apply", epilog="\b\nExamples:\n  hsmctl hold apply case-2031")
@click.argument("name")
@json_option
def apply(ctl: Ctl, name: str) -> None:
    """Hold what came into the trees and searches of NAME since."""
    _told(ctl, ctl.client.post(f"/holds/{name}/apply", timeout=None), "more held")


@command.command("ls", epilog="\b\nExamples:\n  hsmctl hold ls --all")
@click.option("--all", "everything", is_flag=True, help="Released ones too.")
@json_option
def ls(ctl: Ctl, everything: bool) -> None:
    """List holds."""
    found = ctl.client.get("/holds", everything=everything)
    if ctl.out.as_json:
        ctl.out.json(found)
        return
    ctl.out.table(
        ("NAME", ">FILES", "PLACED", "BY", "RELEASED", "REASON"),
        [
            (
                h["name"], f"{h['files']:,}", when(h["placed_ns"]), h["placed_by"],
                when(h["released_ns"]), h["reason"],
            )
            for h in found
        ],
    )  # fmt: skip


@command.command("show", epilog="\b\nExamples:\n  hsmctl hold show case-2031")
@click.argument("name")
@json_option
def show(ctl: Ctl, name: str) -> None:
    """Show a hold: reason, who, what it is applied to, and the files that it names."""
    found = ctl.client.get(f"/holds/{name}")
    page = found["held"]
    while len(page) == 1000:
        page = ctl.client.get(f"/holds/{name}", after=page[-1]["ino"])["held"]
        found["held"] += page
    if ctl.out.as_json:
        ctl.out.json(found)
        return
    ctl.out.fields(
        [
            ("name", found["name"]),
            ("reason", found["reason"]),
            ("placed", f"{when(found['placed_ns'])} by {found['placed_by']}"),
            (
                "released",
                None if found["stands"]
                else f"{when(found['released_ns'])} by {found['released_by']}:"
                f" {found['release_reason']}",
            ),
            *(("applied to", path) for path in found["paths"]),
            *(("applied to", f"search {search}") for search in found["searches"]),
            ("files", f"{found['files']:,}"),
        ]
    )  # fmt: skip
    for file in found["held"]:
        ctl.out.line(f"  {file['path']}" + ("  (in the trash)" if file["deleted"] else ""))


@command.command(
    "release", epilog="\b\nExamples:\n  hsmctl hold release case-2031 --reason 'settled'"
)
@click.argument("name")
@click.option("--reason", required=True, help="Goes on record.")
@json_option
def release(ctl: Ctl, name: str, reason: str) -> None:
    """End the hold NAME. Retention and other holds on its files stand."""
    body = {"reason": reason}
    _told(ctl, ctl.client.post(f"/holds/{name}/release", body, timeout=None), "released")
