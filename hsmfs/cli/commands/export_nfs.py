"""hsmctl export nfs, export rm nfs: folders for the kernel's NFS server."""

from __future__ import annotations

import click

from ..context import Ctl, json_option

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
    from ...shares import nfs, nfsd, smb
    from ..folders import folder

    config = ctl.config
    given = tuple(filter(None, (option.strip() for option in options.split(","))))
    mountpoint = config.daemon.mountpoint
    share = nfs.add(folder(ctl, path), clients, mountpoint, given)
    nested = [s.path for s in nfs.below(mountpoint) if s.path in share.path.parents]
    running = nfsd.threads() > 0
    out = ctl.out
    if out.as_json:
        out.json({"path": share.name, "to": share.to, "options": share.options,
                  "file": str(nfs.FILE), "running": running})  # fmt: skip
    else:
        out.line(f"{path} is exported to {clients}: {share.options}")
    if nested:
        out.warn(f"clients of NFS 4 come through {nested[0]}, whose options are in force there")
    if not running:
        out.warn("the NFS server does not run: systemctl enable --now nfs-server")
    for other in smb.shares():
        if smb.overlap(other.path, share.path) and other.options.endswith("locks=smb"):
            out.warn(f"Samba keeps the locks of the share {other.name} to itself: export it anew"
                     " with --locks posix")  # fmt: skip
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
    from ..folders import host_path

    gone = nfs.remove(host_path(ctl, path), clients)
    if ctl.out.as_json:
        ctl.out.json([{"path": share.name, "to": share.to} for share in gone])
    else:
        for share in gone:
            ctl.out.line(f"{path} is no longer exported to {share.to}")
