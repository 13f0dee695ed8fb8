"""hsmctl waiters: readers that wait for a disc."""

from __future__ import annotations

import click

from ...units import format_duration
from ..context import Ctl, json_option, path_query
from ..output import ago, plural


@click.group(
    "waiters",
    invoke_without_command=True,
    epilog="""\b
Examples:
  hsmctl waiters
  hsmctl waiters fail --volume S0001D03
""",
)
@click.pass_context
def command(context: click.Context) -> None:
    """Show readers that wait for a disc (without a command, as list), or end their waits."""
    if context.invoked_subcommand is None:
        context.invoke(list_)


@command.command("list", epilog="\b\nExamples:\n  hsmctl waiters list")
@json_option
def list_(ctl: Ctl) -> None:
    """List who waits for what, the longest first."""
    found = ctl.client.get("/waiters")
    out = ctl.out
    if out.as_json:
        out.json(found)
    elif not found:
        out.line("nobody waits")
    else:
        out.table(
            (">PID", "PROCESS", ">UID", "SINCE", "DISC", ">EXPECTED", "FILE"),
            [
                (
                    w["pid"], w["process"], w["uid"], ago(w["since_ns"]), w["volume"] or "-",
                    "-" if w["expected_s"] is None else format_duration(w["expected_s"]),
                    ctl.shown(w),
                )
                for w in found
            ],
        )  # fmt: skip


@command.command(
    "fail", epilog="\b\nExamples:\n  hsmctl waiters fail --pid 4711\n  hsmctl waiters fail --all"
)
@click.option("--file", "path", metavar="PATH", help="Those of this file.")
@click.option("--volume", metavar="BARCODE", help="Those for this disc.")
@click.option("--pid", type=int, help="Those of this process.")
@click.option("--uid", type=int, help="Those of this user.")
@click.option("--all", "everyone", is_flag=True, help="All of them.")
@json_option
def fail(
    ctl: Ctl, path: str | None, volume: str | None, pid: int | None, uid: int | None, everyone: bool
) -> None:
    """End waits: the readers get an I/O error at once. The recalls go on."""
    ino = None
    if path is not None:
        ino = ctl.client.get("/info", **path_query(ctl.namespace(path)))["entry"]["ino"]
    if not everyone and all(value is None for value in (ino, volume, pid, uid)):
        raise click.UsageError("say whose waits to end, or --all")
    body = {"ino": ino, "volume": volume, "pid": pid, "uid": uid, "everyone": everyone}
    answer = ctl.client.post("/waiters/fail", body)
    if ctl.out.as_json:
        ctl.out.json(answer)
    else:
        ctl.out.line(f"{plural(answer['detail']['ended'], 'wait')} ended")
