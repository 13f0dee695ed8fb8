"""hsmctl mount: starts hsmfsd in the background."""

from __future__ import annotations

import click

from ..context import Ctl, json_option


@click.command(
    "mount",
    epilog="""\b
Examples:
  hsmctl mount
  hsmctl --config ./hsmfs.toml mount --timeout 600
""",
)
@click.option("--timeout", default=300.0, show_default=True, help="Seconds to wait until ready.")
@json_option
def command(ctl: Ctl, timeout: float) -> None:
    """Start hsmfsd in the background and wait until the files can be used.

    Its log goes to hsmfsd.log in [daemon] state. Under systemd use 'systemctl start hsmfs'.
    """
    from .. import launch

    daemon = ctl.config.daemon
    pid = launch.start(ctl.file, daemon.state, timeout)
    if ctl.out.as_json:
        ctl.out.json({"pid": pid, "mountpoint": str(daemon.mountpoint)})
    else:
        ctl.out.line(f"mounted on {daemon.mountpoint} (process {pid})")
