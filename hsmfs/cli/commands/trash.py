"""hsmctl trash: deleted files, and bringing them back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from ..context import Ctl, json_option, path_query
from ..output import ago, plural, size, when


@click.group(
    "trash",
    epilog="""\b
Examples:
  hsmctl trash ls
  hsmctl trash restore 4711
  hsmctl trash restore 4711 --to /srv/archive/found.dcm
""",
)
def command() -> None:
    """Show deleted files, bring them back, or delete them for good."""


def _kept(ctl: Ctl) -> Iterator[dict[str, Any]]:
    after = 0
    while page := ctl.client.get("/trash", after=after):
        yield from page
        after = page[-1]["ino"]


@command.command("ls", epilog="\b\nExamples:\n  hsmctl trash ls | grep scans")
@json_option
def ls(ctl: Ctl) -> None:
    """List what can be had back, with its inode number and until when."""
    out = ctl.out
    if out.as_json:
        out.json(list(_kept(ctl)))
        return
    out.table(
        (">INODE", "STATE", ">SIZE", "DELETED", "KEPT UNTIL", "WAS"),
        (
            (
                item["ino"], out.state(item["state"]), size(item["size"]),
                ago(item["deleted_ns"]), when(item["purge_ns"]), ctl.shown(item),
            )
            for item in _kept(ctl)
        ),
    )  # fmt: skip


@command.command("restore", epilog="\b\nExamples:\n  hsmctl trash restore 4711")
@click.argument("inode", type=int)
@click.option("--to", metavar="PATH", help="To this path, not to where it was.")
@click.option("--recursive", is_flag=True, help="A folder with what was deleted from it.")
@json_option
def restore(ctl: Ctl, inode: int, to: str | None, recursive: bool) -> None:
    """Bring a deleted file or folder back, by its inode number (see 'trash ls')."""
    path = path_query(ctl.namespace(to)) if to else None
    answer = ctl.client.post(
        "/trash/restore", {"ino": inode, "path": path, "recursive": recursive}, timeout=None
    )
    if ctl.out.as_json:
        ctl.out.json(answer)
    else:
        ctl.out.line(f"restored {ctl.shown(answer['detail'])}")


@command.command(
    "purge", epilog="\b\nExamples:\n  hsmctl trash purge 4711\n  hsmctl trash purge --all"
)
@click.argument("inode", type=int, required=False)
@click.option("--all", "everything", is_flag=True, help="All of it.")
@json_option
def purge(ctl: Ctl, inode: int | None, everything: bool) -> None:
    """Delete something in the trash, or all of it, for good now. Copies on discs stay there."""
    if (inode is None) is not everything:
        raise click.UsageError("give either an INODE or --all")
    query = "" if inode is None else f"?ino={inode}"
    answer = ctl.client.post(f"/trash/purge{query}", timeout=None)
    if ctl.out.as_json:
        ctl.out.json(answer)
        return
    detail = answer["detail"]
    kept = f", {plural(detail['kept'], 'file')} still open" if detail["kept"] else ""
    ctl.out.line(f"{plural(detail['purged'], 'file')} deleted for good{kept}")


def _freeze(ctl: Ctl, frozen: bool) -> None:
    found = ctl.client.post("/trash/freeze", {"frozen": frozen})
    if ctl.out.as_json:
        ctl.out.json(found)
    else:
        ctl.out.line("nothing in it is deleted for good" if frozen else "it is emptied as before")


@command.command("freeze", epilog="\b\nExamples:\n  hsmctl trash freeze")
@json_option
def freeze(ctl: Ctl) -> None:
    """Delete nothing in the trash for good because its time is over, until 'thaw'."""
    _freeze(ctl, True)


@command.command("thaw", epilog="\b\nExamples:\n  hsmctl trash thaw")
@json_option
def thaw(ctl: Ctl) -> None:
    """Let what is long enough in the trash be deleted for good again."""
    _freeze(ctl, False)
