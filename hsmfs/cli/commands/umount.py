"""hsmctl umount: stops hsmfsd cleanly."""

from __future__ import annotations

import click

from ..context import Ctl, json_option


@click.command(
    "umount",
    epilog="""\b
Examples:
  hsmctl umount
  hsmctl umount --timeout 60
""",
)
@click.option("--timeout", default=10_800.0, show_default=True, help="Seconds to wait for the end.")
@json_option
def command(ctl: Ctl, timeout: float) -> None:
    """Unmount and stop hsmfsd; returns when it has ended.

    Readers that wait for a disc get an error. A disc that is being burned is finished and read
    back first, which can take hours with large discs; nothing is lost if you cannot wait and kill
    the daemon, but the disc.
    """
    from ...errors import Conflict
    from ..launch import wait_for_end

    _ = ctl.config  # only here: the process is waited for
    pid = ctl.client.post("/stop")["detail"]["pid"]
    if not wait_for_end(pid, timeout):
        raise Conflict(
            f"hsmfsd (process {pid}) has not ended after {timeout:g} s",
            next_step="see its log; it goes on stopping",
        )
    if ctl.out.as_json:
        ctl.out.json({"pid": pid, "stopped": True})
    else:
        ctl.out.line("unmounted")
