"""hsmctl status: the daemon at a glance."""

from __future__ import annotations

from typing import Any

import click

from ..context import Ctl, json_option
from ..output import Out, ago, bar, percent, plural, size


@click.command(
    "status",
    epilog="""\b
Examples:
  hsmctl status
  hsmctl status --json | jq .drives
""",
)
@json_option
def command(ctl: Ctl) -> None:
    """Show pools, drives, queues and whether all is well."""
    status = ctl.client.get("/status")
    if ctl.out.as_json:
        ctl.out.json(status)
        return
    _show(ctl.out, status)


def _show(out: Out, status: dict[str, Any]) -> None:
    out.line(
        f"hsmfs {status['version']} on {status['mountpoint']}, process {status['pid']}, "
        f"started {ago(status['started_ns'])}{', stopping' if status['stopping'] else ''}"
    )
    out.line()
    out.table(
        ("POOL", "TIER", ">USED", ">OF", "", ">"),
        [
            (
                pool["name"], pool["tier"], size(pool["used"]), size(pool["capacity"]),
                bar(pool["used"], pool["capacity"]), percent(pool["used"], pool["capacity"]),
            )
            for pool in status["pools"]
        ],
    )  # fmt: skip
    for pool in status["pools"]:
        if pool["old_versions"]:
            out.line(f"  old versions of files in {pool['name']}: {size(pool['old_versions'])}")
    out.line()
    out.table(
        ("DRIVE", "STATE", "DISC", "DOES", ">LOADS", ">ERRORS", "REASON"),
        [
            (
                drive["name"], out.state(drive["state"]), drive["disc"] or "-", _work(drive),
                drive["loads"], drive["read_errors"] + drive["write_errors"], drive["reason"],
            )
            for drive in status["drives"]
        ],
    )  # fmt: skip
    if move := status["move"]:
        out.line(f"robot: {move['disc']} from {move['source']} to {move['target']}")
    out.line()
    out.line(
        f"to discs    {plural(status['migrations_waiting'], 'file')} "
        f"({size(status['migration_bytes'])}) wait"
        + (
            f", the oldest since {ago(status['oldest_migration_ns'])}"
            if status["oldest_migration_ns"]
            else ""
        )
        + f"; {plural(len(status['burns']), 'disc')} in the making"
    )
    out.line(
        f"from discs  {plural(status['recalls_waiting'], 'file')} asked for, "
        f"{plural(status['readers_waiting'], 'reader')} waiting"
    )
    if status["requests"]:
        out.warn(f"operator: bring {plural(status['requests'], 'disc')}, see 'hsmctl request ls'")
    if status["leaving"]:
        out.warn(f"operator: take out {plural(status['leaving'], 'disc')}, see 'hsmctl volume"
                 " leaving'")
    if status["for_vault"]:
        out.warn(f"operator: take {plural(status['for_vault'], 'finished set')} to a vault, see"
                 " 'hsmctl request ls'")  # fmt: skip
    for worker in status["workers"]:
        if worker["error"]:
            out.warn(
                f"{worker['name']} crashed {plural(worker['restarts'], 'time')}, "
                f"last: {worker['error']}"
            )


def _work(drive: dict[str, Any]) -> str:
    if drive["work_total"]:
        return f"{drive['work']} {percent(drive['work_done'], drive['work_total'])}"
    return str(drive["work"])
