"""hsmctl whoami: who one is to the daemon."""

from __future__ import annotations

import click

from ..context import Ctl, json_option


@click.command(
    "whoami",
    epilog="""\b
Examples:
  hsmctl whoami
  hsmctl --server https://nas:8443 --token-file ~/.hsmfs-token whoami
""",
)
@json_option
def command(ctl: Ctl) -> None:
    """Show who you are to hsmfsd, and your role."""
    found = ctl.client.get("/whoami")
    if ctl.out.as_json:
        ctl.out.json(found)
        return
    ctl.out.line(f"{found['name']}, role {found['role']}")
