"""hsmctl fsck: compares catalog, pools, discs and queues; with or without the daemon."""

from __future__ import annotations

from typing import Any

import click

from ..context import Ctl, json_option


@click.command(
    "fsck",
    epilog="""\b
Examples:
  hsmctl fsck
  hsmctl fsck --repair
  hsmctl fsck --deep --json
""",
)
@click.option("--repair", is_flag=True, help="Put right what can be; no user's bytes are deleted.")
@click.option("--deep", is_flag=True, help="Read archived files on disk and compare checksums.")
@json_option
def command(ctl: Ctl, repair: bool, deep: bool) -> int:
    """Look for what does not fit together: phantoms, orphans, duplicates, half-done work.

    With the daemon it runs beside the users, and what is in use is left alone; without it, it works
    on the catalog itself. Exit code 0: all is well, or was put right.
    """
    from ...errors import DaemonUnreachable, NotClean

    try:
        report = _asked(ctl, {"repair": repair, "deep": deep})
    except DaemonUnreachable:
        report = _offline(ctl, repair=repair, deep=deep)
    if ctl.out.as_json:
        ctl.out.json(report)
    else:
        _show(ctl, report)
    return 0 if report["clean"] else NotClean.exit_code


def _asked(ctl: Ctl, body: dict[str, bool]) -> dict[str, Any]:
    """The daemon's report."""
    for item in ctl.client.lines("POST", "/fsck", body):
        if item.pop("kind") == "end":
            return dict(item)
        _doing(ctl, item.get("check", ""))
    from ...errors import HsmError

    raise HsmError("hsmfsd ended the answer early", next_step="see its log")


def _offline(ctl: Ctl, *, repair: bool, deep: bool) -> dict[str, Any]:
    """A report made here, on the catalog that no daemon holds."""
    import trio

    from ...engine.setup import fsck_offline

    async def run() -> dict[str, Any]:
        report = await fsck_offline(
            ctl.config, repair=repair, deep=deep, begun=lambda name: _doing(ctl, name)
        )
        return report.as_dict()

    return trio.run(run)


def _doing(ctl: Ctl, name: str) -> None:
    if name and not ctl.out.as_json and ctl.out.terminal:
        click.echo(f"\r\x1b[K{name.replace('_', ' ')}", nl=False, err=True)


def _show(ctl: Ctl, report: dict[str, Any]) -> None:
    out = ctl.out
    if out.terminal:
        click.echo("\r\x1b[K", nl=False, err=True)
    left = {(f["check"], f["object"], f["inode"]) for f in report["left"]}
    for finding in report["findings"]:
        stays = (finding["check"], finding["object"], finding["inode"]) in left
        mark = out.style(finding["severity"], "red" if stays else "green")
        line = f"{mark}: {finding['object']}: {finding['message']}"
        if not stays:
            line += " (put right)"
        elif finding["repair"]:
            line += f"; repair: {finding['repair']}"
        out.line(line)
    out.line(report["verdict"])
