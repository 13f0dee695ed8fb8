"""hsmctl token: who may come in from other machines."""

from __future__ import annotations

import click

from ..context import Ctl, json_option
from ..output import ago, when
from ..periods import Period, seconds

ROLES = ("viewer", "operator", "auditor", "admin")
YEAR = "1 y"


@click.group(
    "token",
    epilog="""\b
Examples:
  hsmctl token create backup-host --role operator > /root/.hsmfs-token
  hsmctl token ls
  hsmctl token revoke backup-host
""",
)
def command() -> None:
    """Tokens by which programs and people come in from other machines (docs/access.md)."""


@command.command(
    "create",
    epilog="""\b
Examples:
  (umask 077; hsmctl token create backup-host --role operator > backup-host.token)
  hsmctl token create revision --role auditor --for '30 d'
""",
)
@click.argument("name")
@click.option("--role", required=True, type=click.Choice(ROLES), help="What it may do.")
@click.option(
    "--for", "lasts", type=Period(), default=YEAR, show_default=True,
    help='So long it is valid, such as "30 d"; "forever" until it is revoked.',
)  # fmt: skip
@json_option
def create(ctl: Ctl, name: str, role: str, lasts: float) -> None:
    """Make a token called NAME and print it: only now, it is kept nowhere."""
    body = {"name": name, "role": role, "lasts_s": seconds(lasts)}
    made = ctl.client.post("/tokens", body)
    if ctl.out.as_json:
        ctl.out.json(made)
        return
    ctl.out.line(made["token"])
    ctl.out.warn("it is shown only now: keep it in a file with mode 600, for --token-file")


@command.command("ls", epilog="\b\nExamples:\n  hsmctl token ls --all")
@click.option("--all", "everything", is_flag=True, help="Revoked ones too.")
@json_option
def ls(ctl: Ctl, everything: bool) -> None:
    """List tokens, without what they are."""
    found = ctl.client.get("/tokens", everything=everything)
    if ctl.out.as_json:
        ctl.out.json(found)
        return
    ctl.out.table(
        ("ID", "NAME", "ROLE", "CREATED", "BY", "VALID UNTIL", "USED", "REVOKED"),
        [
            (
                t["id"], t["name"], t["role"], when(t["created_ns"]), t["created_by"],
                "forever" if t["expires_ns"] is None else when(t["expires_ns"]),
                ago(t["used_ns"]), when(t["revoked_ns"]),
            )
            for t in found
        ],
    )  # fmt: skip


@command.command("revoke", epilog="\b\nExamples:\n  hsmctl token revoke backup-host")
@click.argument("name", metavar="NAME-or-ID")
@json_option
def revoke(ctl: Ctl, name: str) -> None:
    """End a token: from now on it opens nothing."""
    found = ctl.client.post("/tokens/revoke", {"name": name})
    if ctl.out.as_json:
        ctl.out.json(found)
        return
    ctl.out.line(f"{name} is revoked")
