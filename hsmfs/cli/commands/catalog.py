"""hsmctl catalog: backups of the catalog, with or without the daemon."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from ..context import Ctl, json_option
from ..output import plural, size, when


@click.group(
    "catalog",
    epilog="""\b
Examples:
  hsmctl catalog backup /mnt/other-host/hsmfs-catalog
  hsmctl catalog verify /mnt/other-host/hsmfs-catalog
  hsmctl catalog restore /mnt/other-host/hsmfs-catalog
""",
)
def command() -> None:
    """Back the catalog up, check backups, and bring one back."""


_FOLDER = click.argument("folder", required=False, type=click.Path(path_type=Path))
_NAME = click.option("--backup", "name", metavar="NAME", help="Not the newest, but this one.")


@command.command(
    "backup",
    epilog="""\b
Examples:
  hsmctl catalog backup
  hsmctl catalog backup /mnt/other-host/hsmfs-catalog --keep 30
""",
)
@_FOLDER
@click.option("--keep", type=click.IntRange(min=1), help="Backups that stay there.")
@json_option
def backup(ctl: Ctl, folder: Path | None, keep: int | None) -> None:
    """Back the catalog up to FOLDER, or to the one in the configuration.

    Users go on meanwhile. Only what changed since the backup before is written.
    """
    from ...errors import DaemonUnreachable

    try:
        made = _asked(ctl, {"path": str(folder.absolute()) if folder else None, "keep": keep})
    except DaemonUnreachable:
        made = _offline(ctl, _folder(ctl, folder), keep)
    if ctl.out.as_json:
        ctl.out.json(made)
        return
    ctl.out.line(
        f"backup {made['name']}: {size(made['bytes'])}, {size(made['written'])} written in"
        f" {plural(made['new_pieces'], 'piece')} of {made['pieces']:,}"
    )


def _asked(ctl: Ctl, body: dict[str, Any]) -> dict[str, Any]:
    from ...errors import HsmError

    last: dict[str, Any] = {}
    for last in ctl.client.lines("POST", "/catalog/backup", body):
        _step(ctl, last.get("bytes_done", 0), last.get("bytes", 0))
    if last.pop("kind", "") != "end":
        raise HsmError("hsmfsd ended the answer early", next_step="run it again")
    _clear(ctl)
    return last


def _offline(ctl: Ctl, folder: Path, keep: int | None) -> dict[str, Any]:
    import trio

    from ...engine.backups import offline

    made = trio.run(lambda: offline(ctl.config, folder, keep))
    return {
        "name": made.name, "bytes": made.size, "pieces": made.pieces,
        "new_pieces": made.new_pieces, "written": made.new_bytes, "removed": list(made.removed),
    }  # fmt: skip


@command.command("list", epilog="\b\nExamples:\n  hsmctl catalog list /mnt/other-host/catalog")
@_FOLDER
@json_option
def list_(ctl: Ctl, folder: Path | None) -> int:
    """Show the backups in FOLDER, the newest first."""
    from ...catalog.backup import backups
    from ...errors import CatalogDamaged

    found, damaged = backups(_folder(ctl, folder))
    if ctl.out.as_json:
        ctl.out.json([_plain(one) for one in found])
    else:
        ctl.out.table(
            ("BACKUP", "MADE", ">SIZE"), [(b.name, when(b.created_ns), size(b.size)) for b in found]
        )
    for fault in damaged:
        ctl.out.warn(fault.message)
    return CatalogDamaged.exit_code if damaged else 0


@command.command("verify", epilog="\b\nExamples:\n  hsmctl catalog verify /mnt/backups --backup X")
@_FOLDER
@_NAME
@json_option
def verify(ctl: Ctl, folder: Path | None, name: str | None) -> int:
    """Read the newest backup in FOLDER, and compare every checksum."""
    from ...catalog import backup
    from ...errors import CatalogDamaged

    dest = _folder(ctl, folder)
    found = backup.find(dest, name)
    wrong = backup.verify(dest, found, lambda done, total: _step(ctl, done, total))
    _clear(ctl)
    if ctl.out.as_json:
        ctl.out.json({**_plain(found), "ok": not wrong, "wrong": wrong})
    else:
        for text in wrong:
            ctl.out.warn(text)
        if wrong:
            ctl.out.warn("a damaged piece that is moved away is written anew by the next backup,"
                         " if the catalog still holds what was in it")  # fmt: skip
        state = "is damaged" if wrong else "is as it was made"
        ctl.out.line(f"backup {found.name} of {when(found.created_ns)} {state}")
    return CatalogDamaged.exit_code if wrong else 0


@command.command(
    "restore",
    epilog="""\b
Examples:
  hsmctl catalog restore /mnt/other-host/hsmfs-catalog
  hsmctl catalog restore --backup 20261124T221500.000Z
""",
)
@_FOLDER
@_NAME
@json_option
def restore(ctl: Ctl, folder: Path | None, name: str | None) -> None:
    """Put the newest backup in FOLDER into a state directory without a catalog.

    The daemon must not run. Every checksum is compared first. Run 'hsmctl fsck' afterwards: files
    that changed since the backup differ.
    """
    from ...catalog import backup

    dest = _folder(ctl, folder)
    found = backup.find(dest, name)
    state = ctl.config.daemon.state
    backup.restore(dest, found, state, lambda done, total: _step(ctl, done, total))
    _clear(ctl)
    if ctl.out.as_json:
        ctl.out.json({**_plain(found), "state": os.fspath(state)})
    else:
        ctl.out.line(
            f"backup {found.name} of {when(found.created_ns)} is in {state}: run 'hsmctl fsck'"
        )


def _folder(ctl: Ctl, folder: Path | None) -> Path:
    found = folder or ctl.config.catalog.backup
    if found is None:
        raise click.UsageError("which FOLDER? [catalog] backup is not set")
    return found


def _plain(found: Any) -> dict[str, Any]:
    return {"name": found.name, "created_ns": found.created_ns, "bytes": found.size}


def _step(ctl: Ctl, done: int, total: int) -> None:
    if ctl.out.terminal and not ctl.out.as_json and total:
        click.echo(f"\r\x1b[K{size(done)} of {size(total)}", nl=False, err=True)


def _clear(ctl: Ctl) -> None:
    if ctl.out.terminal and not ctl.out.as_json:
        click.echo("\r\x1b[K", nl=False, err=True)
