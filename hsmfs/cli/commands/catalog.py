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
  hsmctl catalog backup --file /mnt/usb/catalog.zst
  hsmctl catalog verify /mnt/other-host/hsmfs-catalog
  hsmctl catalog restore /mnt/other-host/hsmfs-catalog
""",
)
def command() -> None:
    """Back the catalog up, check backups, and bring one back."""


_FOLDER = click.argument("folder", required=False, type=click.Path(path_type=Path))
_SOURCE = click.argument(
    "source", required=False, type=click.Path(path_type=Path), metavar="[FOLDER|FILE]"
)
_NAME = click.option("--backup", "name", metavar="NAME", help="Not the newest, but this one.")


@command.command(
    "backup",
    epilog="""\b
Examples:
  hsmctl catalog backup
  hsmctl catalog backup /mnt/other-host/hsmfs-catalog --keep 30
  hsmctl catalog backup --file /mnt/usb/catalog.zst
""",
)
@_FOLDER
@click.option(
    "--file", metavar="FILE", type=click.Path(path_type=Path),
    help="Write one whole, compressed file. An older backup in it is replaced.",
)  # fmt: skip
@click.option("--keep", type=click.IntRange(min=1), help="Backups that stay in the folder.")
@click.option(
    "--new-folder", is_flag=True,
    help="Begin in an empty folder, though backups went there before.",
)  # fmt: skip
@json_option
def backup(
    ctl: Ctl, folder: Path | None, file: Path | None, keep: int | None, new_folder: bool
) -> None:
    """Back the catalog up to FOLDER, or to the one in the configuration.

    Users go on meanwhile. Only what changed since the backup before is written. If backups went to
    FOLDER before and none is there, nothing is written: its filesystem is not mounted.
    """
    from ...errors import DaemonUnreachable

    if file and (folder or keep or new_folder):
        raise click.UsageError("--file goes without FOLDER, --keep and --new-folder")
    dest = file or folder
    body = {
        "path": str(dest.absolute()) if dest else None, "file": file is not None, "keep": keep,
        "new_folder": new_folder,
    }  # fmt: skip
    try:
        made = _asked(ctl, body)
    except DaemonUnreachable:
        made = _offline(ctl, _place(ctl, dest).absolute(), body)
    if ctl.out.as_json:
        ctl.out.json(made)
        return
    written = f"backup {made['name']}: {size(made['bytes'])}, {size(made['written'])} written"
    if not file:
        written += f" in {plural(made['new_pieces'], 'piece')} of {made['pieces']:,}"
    ctl.out.line(written)


def _asked(ctl: Ctl, body: dict[str, Any]) -> dict[str, Any]:
    from ...errors import HsmError

    last: dict[str, Any] = {}
    for last in ctl.client.lines("POST", "/catalog/backup", body):
        _step(ctl, last.get("bytes_done", 0), last.get("bytes", 0))
    if last.pop("kind", "") != "end":
        raise HsmError("hsmfsd ended the answer early", next_step="run it again")
    _clear(ctl)
    return last


def _offline(ctl: Ctl, dest: Path, body: dict[str, Any]) -> dict[str, Any]:
    import trio

    from ...engine.backups import offline, told_of

    made = trio.run(
        lambda: offline(ctl.config, dest, body["keep"], file=body["file"], new=body["new_folder"])
    )
    return told_of(made)


@command.command("list", epilog="\b\nExamples:\n  hsmctl catalog list /mnt/other-host/catalog")
@_SOURCE
@json_option
def list_(ctl: Ctl, source: Path | None) -> int:
    """Show the backups in FOLDER, the newest first, or what a FILE holds."""
    from ...catalog.backup import backups
    from ...errors import CatalogDamaged

    found, damaged = backups(_place(ctl, source))
    if ctl.out.as_json:
        ctl.out.json([_plain(one) for one in found])
    else:
        ctl.out.table(
            ("BACKUP", "MADE", ">SIZE"), [(b.name, when(b.created_ns), size(b.size)) for b in found]
        )
    for fault in damaged:
        ctl.out.warn(fault.message)
    return CatalogDamaged.exit_code if damaged else 0


@command.command(
    "verify",
    epilog="""\b
Examples:
  hsmctl catalog verify /mnt/other-host/hsmfs-catalog --backup 20261124T221500.000Z
  hsmctl catalog verify /mnt/usb/catalog.zst
""",
)
@_SOURCE
@_NAME
@json_option
def verify(ctl: Ctl, source: Path | None, name: str | None) -> int:
    """Read the newest backup in FOLDER, or a FILE, and compare every checksum."""
    from ...catalog import backup
    from ...errors import CatalogDamaged

    dest = _place(ctl, source)
    found = backup.find(dest, name)
    wrong = backup.verify(dest, found, lambda done, total: _step(ctl, done, total))
    _clear(ctl)
    if ctl.out.as_json:
        ctl.out.json({**_plain(found), "ok": not wrong, "wrong": wrong})
    else:
        for text in wrong:
            ctl.out.warn(text)
        if wrong and dest.is_dir():
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
  hsmctl catalog restore /mnt/usb/catalog.zst
  hsmctl catalog restore --backup 20261124T221500.000Z
""",
)
@_SOURCE
@_NAME
@json_option
def restore(ctl: Ctl, source: Path | None, name: str | None) -> None:
    """Put the newest backup in FOLDER, or a FILE, into a state directory without a catalog.

    The daemon must not run. Every checksum is compared first. Run 'hsmctl fsck' afterwards: files
    that changed since the backup differ.
    """
    from ...catalog import backup

    dest = _place(ctl, source)
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


def _place(ctl: Ctl, path: Path | None) -> Path:
    found = path or ctl.config.catalog.backup
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
