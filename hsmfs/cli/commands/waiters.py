"""hsmctl waiters: readers that wait for a disc."""

from __future__ import annotations

from typing import Any

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
            (">PID", "PROCESS", ">UID", "FROM", "SINCE", "DISC", "WHY", ">EXPECTED", "RANGE",
             "FILE"),
            [
                (
                    w["pid"], w["process"], w["uid"], w["client"] or w["via"], ago(w["since_ns"]),
                    w["volume"] or "-", why(w),
                    "-" if w["expected_s"] is None else format_duration(round(w["expected_s"], 1)),
                    f"{w['start']}-{w['end']}", ctl.shown(w),
                )
                for w in found
            ],
        )  # fmt: skip


def why(waiter: dict[str, Any]) -> str:
    """What the reader's recall does now."""
    state: str = waiter["state"] or "asking"
    if waiter["discs_ahead"]:
        state += f", {plural(waiter['discs_ahead'], 'disc')} ahead"
    elif waiter["drive"]:
        state += f" in {waiter['drive']}"
    return f"{state} (slow)" if waiter["slow"] and state != "slow lane" else state


@command.command(
    "fail",
    epilog="""\b
Examples:
  hsmctl waiters fail --pid 4711
  hsmctl waiters fail --volume S0001D03 --errno EAGAIN
  hsmctl waiters fail --all
""",
)
@click.option("--file", "path", metavar="PATH", help="Those of this file.")
@click.option("--volume", metavar="BARCODE", help="Those for this disc.")
@click.option("--pid", type=int, help="Those of this process.")
@click.option("--uid", type=int, help="Those of this user.")
@click.option("--process", metavar="NAME", help="Those of programs of this name; nfsd: all of NFS.")
@click.option("--client", metavar="ADDRESS", help="Those of this SMB client.")
@click.option("--all", "everyone", is_flag=True, help="All of them.")
@click.option(
    "--errno", "error", type=click.Choice(["EIO", "EAGAIN", "EACCES", "ETIMEDOUT"]),
    default="EIO", show_default=True, help="What the readers get.",
)  # fmt: skip
@json_option
def fail(ctl: Ctl, path: str | None, everyone: bool, error: str, **whose: Any) -> None:
    """End waits: the readers get an error at once. All that is given must match.

    A recall that nobody else waits for ends too, unless its disc is being read.
    """
    ino = None
    if path is not None:
        ino = ctl.client.get("/info", **path_query(ctl.namespace(path)))["entry"]["ino"]
    if not everyone and all(value is None for value in (ino, *whose.values())):
        raise click.UsageError("say whose waits to end, or --all")
    body = {"ino": ino, "everyone": everyone, "error": error, **whose}
    answer = ctl.client.post("/waiters/fail", body)
    if ctl.out.as_json:
        ctl.out.json(answer)
    else:
        ctl.out.line(f"{plural(answer['detail']['ended'], 'wait')} ended")
