"""hsmctl export: shares of the mount, a file a server (export_*.py), and the list of all."""

from __future__ import annotations

from dataclasses import asdict

import click

from ..context import Ctl, json_option
from .export_nfs import nfs, rm_nfs
from .export_smb import rm_smb, smb


@click.group(
    "export",
    epilog="""\b
Examples:
  hsmctl export nfs /srv/archive --to 10.1.0.0/16
  hsmctl export smb archive /srv/archive
  hsmctl export ls
  hsmctl export rm nfs /srv/archive
""",
)
def command() -> None:
    """Offer folders to the network, by the servers of this host; needs root, not the daemon's API.

    The servers keep the list: what hsmctl writes is a file of theirs, named by 'hsmctl export ls'.
    """


@command.command("ls", epilog="\b\nExamples:\n  hsmctl export ls")
@json_option
def ls(ctl: Ctl) -> None:
    """List what is exported, to whom, and how."""
    from ...logs import printable
    from ...shares import nfs, smb

    mountpoint = ctl.config.daemon.mountpoint
    found = [*nfs.below(mountpoint), *smb.below(mountpoint)]
    out = ctl.out
    if out.as_json:
        out.json([asdict(share) | {"path": printable(str(share.path))} for share in found])
    elif not found:
        out.line("nothing is exported")
    else:
        out.table(
            ("KIND", "NAME", "PATH", "TO", "OPTIONS"),
            [
                (s.kind, s.name if s.kind == "smb" else "", printable(str(s.path)), s.to, s.options)
                for s in found
            ],
        )


@command.group(
    "rm",
    epilog="""\b
Examples:
  hsmctl export rm nfs /srv/archive
  hsmctl export rm smb archive
""",
)
def rm() -> None:
    """Take an export back. The files stay; clients that use it get errors."""


command.add_command(nfs)
rm.add_command(rm_nfs)
command.add_command(smb)
rm.add_command(rm_smb)
