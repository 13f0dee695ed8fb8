"""hsmctl rebuild: makes the catalog again from discs alone, or rehearses that."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..context import Ctl, json_option
from ..output import plural, when

if TYPE_CHECKING:
    from ...engine.rebuild.run import Progress


@click.command(
    "rebuild",
    epilog="""\b
Examples:
  hsmctl rebuild                            from the library, its catalog being lost
  hsmctl rebuild --images /mnt/images       from a folder of disc images
  hsmctl rebuild --backup /mnt/backups      from a backup and the discs burned since
  hsmctl rebuild --new-pools                the disks are lost, too
  hsmctl rebuild --sample 5                 rehearse with 5 discs; changes nothing
""",
)
@click.option(
    "--images", type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Read images in this folder instead of the library's discs.",
)  # fmt: skip
@click.option(
    "--backup", type=click.Path(path_type=Path, exists=True), metavar="FOLDER|FILE",
    help="Begin with the newest backup there if it is newer than the snapshot.",
)  # fmt: skip
@click.option(
    "--archive", metavar="UUID",
    help="Whose catalog it is, if discs of several archives are there.",
)  # fmt: skip
@click.option("--new-pools", is_flag=True, help="Make pools that are not there; begin empty.")
@click.option(
    "--sample", metavar="N", type=click.IntRange(min=1),
    help="Compare N discs with the running catalog; tell how long a rebuild would take.",
)  # fmt: skip
@json_option
def command(
    ctl: Ctl, images: Path | None, backup: Path | None, archive: str | None, new_pools: bool,
    sample: int | None,
) -> int:
    """Make the catalog again from what discs say, in a state directory without one.

    The daemon must not run. Begins with the newest snapshot that a disc carries, and reads the
    manifests of newer discs alone. A run that was cut off goes on when it is repeated. Files that
    pools still have are matched, and none is deleted or overwritten. What does not come back is
    listed in rebuild.lost.jsonl in the state directory. With --json how far it is goes to standard
    error, an object a line.
    """
    from ...errors import NotClean

    if sample is not None:
        return _sample(ctl, sample)
    report = _rebuild(ctl, images, backup, archive, new_pools)
    if ctl.out.as_json:
        ctl.out.json(report)
    else:
        _show(ctl, report)
    lacking = any(report[key] for key in ("findings", "unread", "unknown", "foreign"))
    return NotClean.exit_code if lacking else 0


def _rebuild(
    ctl: Ctl, images: Path | None, backup: Path | None, archive: str | None, new_pools: bool
) -> dict[str, Any]:
    import trio

    from ... import logs
    from ...engine.rebuild.run import Rebuild
    from ...engine.rebuild.sources import Images, Robot

    if not logging.getLogger().handlers:
        logs.setup("warning")  # without it lines lack what they are about
    source = Images(images) if images else Robot(ctl.config.library)

    steps = _Steps(ctl)

    work = Rebuild(
        ctl.config, source, steps.told, new_pools=new_pools, backup=backup, archive=archive
    )
    report = asdict(trio.run(work.run))
    if ctl.out.terminal and not ctl.out.as_json:
        click.echo("\r\x1b[K", nl=False, err=True)
    return report


class _Steps:
    """How far it is, on standard error: a line that is written anew on a terminal; with --json a
    JSON object a line, when a phase begins and at most once a second."""

    def __init__(self, ctl: Ctl) -> None:
        self._ctl = ctl
        self._phase, self._at = "", 0.0

    def told(self, progress: Progress) -> None:
        """Show it; called by any thread."""
        if self._ctl.out.as_json:
            now = time.monotonic()
            if progress.phase != self._phase or now >= self._at + 1:
                self._phase, self._at = progress.phase, now
                click.echo(json.dumps({"kind": "progress", **asdict(progress)}), err=True)
        elif self._ctl.out.terminal:
            click.echo(f"\r\x1b[K{_shown(progress)}", nl=False, err=True)


def _shown(progress: Progress) -> str:
    from ...units import format_duration

    text = f"{progress.phase}: {progress.done:,}"
    if progress.total:
        text += f" of {progress.total:,}"
    if progress.disc:
        text += f", {progress.disc.replace('_', ' ')}"
    if progress.seconds_left is not None:
        text += f", {format_duration(float(round(progress.seconds_left)))} left in all"
    return text


def _show(ctl: Ctl, report: dict[str, Any]) -> None:
    out = ctl.out
    base = "no snapshot"
    if report["snapshot"]:
        base = f"the snapshot of {when(report['snapshot_ns'])} on {report['snapshot']}"
    out.line(
        f"{plural(report['files'], 'file')} ({plural(report['inodes'], 'inode')}), from {base} and"
        f" the manifests of {plural(report['discs'], 'disc')}"
    )
    if report["missing"]:
        out.warn(f"not in the library: {', '.join(report['missing'])}")
    for drive, why in report["drives"].items():
        out.warn(f"drive {drive} was used no more: {why}")
    for barcode, why in report["unread"].items():
        out.warn(f"disc {barcode} was passed over: {why}")
    for barcode, why in report["unknown"].items():
        out.warn(f"files that only disc {barcode} told of do not come back: {why}")
    if report["foreign"]:
        names = ", ".join(sorted(report["foreign"]))
        out.warn(f"discs of another archive, for 'hsmctl volume adopt': {names}")
    for kind, count in report["lost"].items():
        out.warn(f"{kind}: {count:,}")
    if report["list"]:
        out.line(f"what did not come back as it was: {report['list']}")
    if report["findings"]:
        out.warn(f"fsck has {plural(report['findings'], 'finding')}: run 'hsmctl fsck'")


def _sample(ctl: Ctl, discs: int) -> int:
    from ...errors import HsmError, NotClean

    last: dict[str, Any] = {}
    for last in ctl.client.lines("POST", "/rebuild/sample", {"discs": discs}):
        if not ctl.out.as_json and ctl.out.terminal and ("disc" in last or "phase" in last):
            done = last.get("phase") or f"{last['disc']}: {last['discs_done']} of {last['discs']}"
            click.echo(f"\r\x1b[K{done}", nl=False, err=True)
    if last.pop("kind", "") != "end":
        raise HsmError("hsmfsd ended the answer early", next_step="see its log")
    if ctl.out.as_json:
        ctl.out.json(last)
    else:
        _show_sample(ctl, last)
    return 0 if last["same"] == last["lines"] and not last["unread"] else NotClean.exit_code


def _show_sample(ctl: Ctl, found: dict[str, Any]) -> None:
    from ...units import format_duration

    out = ctl.out
    if out.terminal:
        click.echo("\r\x1b[K", nl=False, err=True)
    out.fields(
        [
            ("discs read", ", ".join(found["discs"]) or "none"),
            ("files compared", f"{found['lines']:,}, {found['same']:,} as in the catalog"),
            ("newest snapshot", found["snapshot"] or "on none of them"),
            ("coverage", f"{found['coverage']} %: {found['archived']:,} of {found['files']:,} files"
             " are on discs whole"),
            ("a full rebuild", f"about {format_duration(float(round(found['full_seconds'])))}:"
             f" {plural(found['full_discs'], 'disc')} with {plural(found['drives'], 'drive')}"),
            *((f"  {part}", format_duration(seconds)) for part, seconds in found["parts"].items()),
        ]
    )  # fmt: skip
    if found["unmeasured"]:
        out.warn(f"but for snapshot, names, pools and fsck: {found['unmeasured']}")
    if found["adopted"]:
        discs = plural(found["adopted"], "disc")
        out.warn(f"{discs} of other archives left out: after a rebuild they are adopted again,"
                 " but for those that its snapshot or backup knows")  # fmt: skip
    for text in found["different"]:
        out.warn(text)
    for barcode, why in found["unread"].items():
        out.warn(f"disc {barcode} does not read: {why}")
