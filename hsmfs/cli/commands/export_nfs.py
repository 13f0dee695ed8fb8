"""hsmctl export nfs, export rm nfs: folders for the kernel's NFS server."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ...errors import Conflict
from ..context import Ctl, json_option, path_query

HEAD_BYTES = 256 * 1024
"""What NFS clients read ahead of a program that wants a header, see docs/nfs.md."""


@click.command(
    "nfs",
    epilog="""\b
Examples:
  hsmctl export nfs /srv/archive --to 10.1.0.0/16
  hsmctl export nfs /srv/archive/public --to '*' --options ro,all_squash
""",
)
@click.argument("path", metavar="PATH")
@click.option(
    "--to", "clients", metavar="CLIENTS", required=True,
    help="A host, a network (10.1.0.0/16), a netgroup (@name) or '*'.",
)
@click.option(
    "--options", metavar="OPTIONS", default="",
    help="Of exports(5), with commas. Without them: rw,sync,root_squash,no_subtree_check.",
)
@json_option
def nfs(ctl: Ctl, path: str, clients: str, options: str) -> None:
    """Export a folder by NFS 3 and 4, or change how: one line for each kind of clients.

    It is in force at once and after a reboot. The server's nfs-kernel-server must be installed.
    """
    from ...shares import nfs, nfsd

    config = ctl.config
    name = ctl.namespace(path)
    kind = ctl.client.get("/info", **path_query(name))["entry"]["kind"]
    if kind != "folder":
        raise Conflict(f"{path} is a {kind}", next_step="export the folder that it is in")
    given = tuple(filter(None, (option.strip() for option in options.split(","))))
    mountpoint = config.daemon.mountpoint
    share = nfs.add(_under(mountpoint, name), clients, mountpoint, given)
    running = nfsd.threads() > 0
    out = ctl.out
    if out.as_json:
        out.json({"path": share.name, "to": share.to, "options": share.options,
                  "file": str(nfs.FILE), "running": running})  # fmt: skip
    else:
        out.line(f"{path} is exported to {clients}: {share.options}")
    if not running:
        out.warn("the NFS server does not run: systemctl enable --now nfs-server")
    if config.fs.head < HEAD_BYTES:
        out.warn(f"NFS clients read ahead: with [fs] head below {HEAD_BYTES // 1024} KiB, looking"
                 " at a header recalls the file")  # fmt: skip


@click.command(
    "nfs",
    epilog="""\b
Examples:
  hsmctl export rm nfs /srv/archive
  hsmctl export rm nfs /srv/archive --to 10.1.0.0/16
""",
)
@click.argument("path", metavar="PATH")
@click.option("--to", "clients", metavar="CLIENTS", help="Only from these.")
@json_option
def rm_nfs(ctl: Ctl, path: str, clients: str | None) -> None:
    """Take an NFS export back, from all clients or from some."""
    from ...shares import nfs

    gone = nfs.remove(_under(ctl.config.daemon.mountpoint, ctl.namespace(path)), clients)
    if ctl.out.as_json:
        ctl.out.json([{"path": share.name, "to": share.to} for share in gone])
    else:
        for share in gone:
            ctl.out.line(f"{path} is no longer exported to {share.to}")


def _under(mountpoint: Path, name: bytes) -> Path:
    """The folder of that name in the namespace as the host has it."""
    return Path(os.fsdecode(os.fsencode(mountpoint) + name.rstrip(b"/")))
