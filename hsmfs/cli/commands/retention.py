"""hsmctl retention: folders in which files become records, and the records in them."""

from __future__ import annotations

import click

from ..context import Ctl, json_option, path_list, path_query, paths_argument
from ..periods import Moment, Period, seconds, shown_period, shown_until


@click.group(
    "retention",
    epilog="""\b
Examples:
  hsmctl retention set /srv/archive/records --mode compliance --default '15 y' --max '30 y'
  touch -a -d 2041-01-01 scan.dcm && chmod a-w scan.dcm      make a record of a file
  hsmctl retention show scan.dcm
""",
)
def command() -> None:
    """Retention: files that nobody can change, nor delete before their time.

    In a retention folder a file becomes a record when its last write permission is taken away, or
    after an idle time. It is kept until its time of access, which was set before, or for the
    folder's default. See docs/retention.md.
    """


@command.command(
    "set",
    epilog="""\b
Examples:
  hsmctl retention set records --mode compliance --default '15 y' --min '10 y' --max '30 y'
  hsmctl retention set inbox --mode enterprise --default '3 y' --autocommit '2 h'
""",
)
@click.argument("folder")
@click.option(
    "--mode", required=True, type=click.Choice(("compliance", "enterprise")),
    help="compliance: nobody deletes a record early; enterprise: 'hsmctl retention delete' can.",
)  # fmt: skip
@click.option("--default", "default_", required=True, type=Period(), help="If no time is asked.")
@click.option("--min", "min_", type=Period(), default="0 s", help="[default: 0 s]")
@click.option("--max", "max_", type=Period(), default="forever", help="[default: forever]")
@click.option("--autocommit", type=Period(), help="Commit files unchanged for so long.")
@json_option
def set_(
    ctl: Ctl, folder: str, mode: str, default_: float, min_: float, max_: float,
    autocommit: float | None,
) -> None:  # fmt: skip
    """Make FOLDER a retention folder, or change what holds for files committed later.

    A year counts as 366 days, so that no retention is shorter than the calendar's.
    """
    body = {
        "path": path_query(ctl.namespace(folder)), "mode": mode, "min_s": min_,
        "default_s": seconds(default_), "max_s": seconds(max_), "autocommit_s": autocommit,
    }  # fmt: skip
    found = ctl.client.post("/retention/folders", body, timeout=None)
    if ctl.out.as_json:
        ctl.out.json(found)
    else:
        ctl.out.line(f"{ctl.shown(found)} is a retention folder, {mode} mode")


@command.command("unset", epilog="\b\nExamples:\n  hsmctl retention unset inbox")
@click.argument("folder")
@json_option
def unset(ctl: Ctl, folder: str) -> None:
    """Make FOLDER an ordinary folder; refused while records must be kept in it."""
    body = {"path": path_query(ctl.namespace(folder))}
    found = ctl.client.post("/retention/folders/unset", body)
    if ctl.out.as_json:
        ctl.out.json(found)
    else:
        ctl.out.line(f"{folder} is an ordinary folder")


@command.command("ls", epilog="\b\nExamples:\n  hsmctl retention ls")
@json_option
def ls(ctl: Ctl) -> None:
    """List retention folders, and what the compliance clock shows."""
    found = ctl.client.get("/retention/folders")
    if ctl.out.as_json:
        ctl.out.json(found)
        return
    ctl.out.table(
        ("MODE", ">MIN", ">DEFAULT", ">MAX", ">AUTOCOMMIT", ">RECORDS", ">KEPT", "FOLDER"),
        [
            (
                f["mode"], shown_period(f["min_s"]), shown_period(f["default_s"]),
                shown_period(f["max_s"]),
                "-" if f["autocommit_s"] is None else shown_period(f["autocommit_s"]),
                f"{f['records']:,}", f"{f['retained']:,}", ctl.shown(f),
            )
            for f in found["folders"]
        ],
    )  # fmt: skip
    ctl.out.line(f"compliance clock: {shown_until(found['clock_ns'])}")


@command.command("show", epilog="\b\nExamples:\n  hsmctl retention show records/scan.dcm")
@paths_argument
@json_option
def show(ctl: Ctl, paths: tuple[str, ...]) -> None:
    """Show until when files are kept, and which holds name them."""
    found = [ctl.client.get("/retention/file", **path_query(ctl.namespace(p))) for p in paths]
    if ctl.out.as_json:
        ctl.out.json(found[0] if len(found) == 1 else found)
        return
    for number, file in enumerate(found):
        if number:
            ctl.out.line()
        ctl.out.fields(
            [
                ("path", ctl.shown(file)),
                ("state", file["state"]),
                ("mode", file["mode"]),
                ("kept until", shown_until(file["until_ns"]) if file["mode"] else None),
                ("since", shown_until(file["committed_ns"]) if file["mode"] else None),
                ("held by", ", ".join(file["holds"]) or None),
                ("retention folder", file["folder"]),
                ("compliance clock", shown_until(file["clock_ns"])),
            ]
        )


@command.command(
    "extend",
    epilog="""\b
Examples:
  hsmctl retention extend --until 2050-12-31 records/scan.dcm
  touch -a -d 2050-12-31 records/scan.dcm      does the same through the mount
""",
)
@paths_argument
@click.option("--until", required=True, type=Moment(), help="UTC; or 'forever'.")
@json_option
def extend(ctl: Ctl, paths: tuple[str, ...], until: int) -> None:
    """Keep records longer, up to the folder's maximum. Nothing shortens a retention."""
    body = {"paths": path_list(ctl, paths), "until_ns": until}
    found = ctl.client.post("/retention/extend", body, timeout=None)
    if ctl.out.as_json:
        ctl.out.json(found)
        return
    for path, time_ns in zip(paths, found["detail"]["until_ns"], strict=True):
        ctl.out.line(f"{path} is kept until {shown_until(time_ns)}")


@command.command(
    "delete",
    epilog="\b\nExamples:\n  hsmctl retention delete inbox/scan.dcm --reason 'wrong patient'",
)
@click.argument("path")
@click.option("--reason", required=True, help="Goes on record.")
@json_option
def delete(ctl: Ctl, path: str, reason: str) -> None:
    """Delete a record of enterprise mode before its time. It goes to the trash, and on record."""
    body = {"path": path_query(ctl.namespace(path)), "reason": reason}
    found = ctl.client.post("/retention/delete", body, timeout=None)
    if ctl.out.as_json:
        ctl.out.json(found)
    else:
        ctl.out.line(f"{path} is deleted; see 'hsmctl trash ls'")

