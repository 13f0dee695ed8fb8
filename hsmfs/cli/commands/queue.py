"""hsmctl queue: what waits for a disc, in either direction."""

from __future__ import annotations

import click

from ..context import Ctl, json_option
from ..output import ago, size


@click.command("queue", epilog="\b\nExamples:\n  hsmctl queue\n  hsmctl queue --limit 20")
@click.option("--limit", default=1000, show_default=True, help="Files shown of each queue.")
@json_option
def command(ctl: Ctl, limit: int) -> None:
    """Show recalls, files that wait to be burned, and discs in the making."""
    queue = ctl.client.get("/queue", limit=limit)
    out = ctl.out
    if out.as_json:
        out.json(queue)
        return
    if not any(queue.values()):
        out.line("nothing waits")
    if queue["recalls"]:
        out.table(
            ("RECALL", "CLASS", "SINCE", ">TRIED", "FOR", "LAST FAULT"),
            [
                (
                    ctl.shown(r), r["urgency"], ago(r["since_ns"]), r["attempts"],
                    r["requester"], r["error"],
                )
                for r in queue["recalls"]
            ],
        )  # fmt: skip
    if queue["migrations"]:
        out.table(
            ("TO DISC", ">SIZE", ">COPIES", "SINCE", "BY"),
            [
                (ctl.shown(m), size(m["size"]), m["copies"], ago(m["since_ns"]), m["policy"])
                for m in queue["migrations"]
            ],
        )
    if queue["burns"]:
        out.table(
            ("DISC", ">COPY", "STATE", "SINCE", "FAULT"),
            [
                (
                    b["volume"], b["copy_no"], out.state(b["state"]), ago(b["since_ns"]),
                    b["error"],
                )
                for b in queue["burns"]
            ],
        )  # fmt: skip
