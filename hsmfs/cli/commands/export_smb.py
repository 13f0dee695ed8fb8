"""hsmctl export smb, export rm smb: folders for Samba."""

from __future__ import annotations

import click

from ..context import Ctl, json_option


@click.command(
    "smb",
    epilog="""\b
Examples:
  hsmctl export smb archive /srv/archive
  hsmctl export smb radiology /srv/archive/ct --to 'anna, @radiology' --read-only
""",
)
@click.argument("name", metavar="NAME")
@click.argument("path", metavar="PATH")
@click.option(
    "--to", "users", metavar="USERS", default="",
    help="Users and groups (@name), with commas. Without it: whom Samba lets in.",
)
@click.option("--read-only", is_flag=True, help="Nobody writes through this share.")
@click.option(
    "--locks", type=click.Choice(["smb", "posix"]),
    help="posix: locks are those of local programs and NFS, too, and a lost connection loses open"
    " files. smb: Samba keeps both. Default: posix if NFS exports the folder.",
)
@json_option
def smb(
    ctl: Ctl, name: str, path: str, users: str, read_only: bool, locks: str | None
) -> None:
    """Offer a folder by SMB under a name, or change how.

    It is in force at once and after a reboot. Samba must be installed; hsmctl writes a file that
    smb.conf includes. Who may log in is Samba's own affair (smbpasswd, a domain).
    """
    from ...shares import smb
    from ..folders import folder

    share = smb.add(
        name, folder(ctl, path), ctl.config.daemon.mountpoint,
        users=[user for user in users.split(",") if user.strip()], read_only=read_only,
        posix_locks=None if locks is None else locks == "posix",
        snapshots=ctl.config.snapshots.name,
    )  # fmt: skip
    running = smb.running()
    out = ctl.out
    if out.as_json:
        out.json({"name": share.name, "path": path, "to": share.to, "options": share.options,
                  "file": str(smb.FILE), "running": running})  # fmt: skip
    else:
        out.line(f"{path} is the share {share.name}: {share.options}")
    if not running:
        out.warn("Samba does not run: systemctl enable --now smbd")


@click.command("smb", epilog="\b\nExamples:\n  hsmctl export rm smb archive")
@click.argument("name", metavar="NAME")
@json_option
def rm_smb(ctl: Ctl, name: str) -> None:
    """Take a share of Samba back."""
    from ...shares import smb

    gone = smb.remove(name)
    if ctl.out.as_json:
        ctl.out.json({"name": gone.name, "path": str(gone.path)})
    else:
        ctl.out.line(f"{gone.path} is no longer the share {gone.name}")
