"""hsmctl prefetch: brings files in before they are read, by patient, study, path or list."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from ..context import Ctl, json_option, path_list
from ..output import plural, size

_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command(
    "prefetch",
    epilog="""\b
Examples:
  hsmctl prefetch --patient 4711 --patient 4712
  hsmctl prefetch --list tomorrow.list
  hsmctl prefetch --index /srv/archive/ct
  hsmctl prefetch
""",
)
@click.argument("paths", nargs=-1)
@click.option("--patient", "patients", multiple=True, metavar="ID", help="All studies of it.")
@click.option("--study", "studies", multiple=True, metavar="UID", help="By StudyInstanceUID.")
@click.option("--list", "lists", multiple=True, type=_FILE,
              help="Lines 'patient ID', 'study UID', 'path PATH' (from the root of the mount); or a"
              " DICOM worklist.")  # fmt: skip
@click.option("--index", is_flag=True, help="Learn studies of PATHS from the headers on disk.")
@json_option
def command(
    ctl: Ctl, paths: tuple[str, ...], patients: tuple[str, ...], studies: tuple[str, ...],
    lists: tuple[Path, ...], index: bool,
) -> None:  # fmt: skip
    """Bring files in before anybody reads them, or say how much of that there is.

    They fill no more than [prefetch] share of a pool, and go first when room is needed. Patients
    and studies are known of files that were archived with group = "dicom-study" or were indexed.
    """
    if index:
        if not paths or patients or studies or lists:
            raise click.UsageError("--index takes PATHS and nothing else")
        _indexed(ctl, ctl.client.post("/prefetch/index", {"paths": path_list(ctl, paths)},
                                      timeout=None))  # fmt: skip
        return
    body = _wishes(ctl, paths, patients, studies, lists)
    if any(body.values()):
        _ordered(ctl, ctl.client.post("/prefetch", body, timeout=None))
    else:
        _status(ctl, ctl.client.get("/prefetch"))


def _wishes(
    ctl: Ctl, paths: tuple[str, ...], patients: tuple[str, ...], studies: tuple[str, ...],
    lists: tuple[Path, ...],
) -> dict[str, list[str]]:  # fmt: skip
    from ...engine.worklist import load

    asked = [os.fsdecode(ctl.namespace(path)) for path in paths]
    body = {"patients": list(patients), "studies": list(studies), "paths": asked}
    for wishes in map(load, lists):
        body["patients"] += wishes.patients
        body["studies"] += wishes.studies
        body["paths"] += wishes.paths
    return body


def _ordered(ctl: Ctl, found: dict[str, Any]) -> None:
    if ctl.out.as_json:
        ctl.out.json(found)
        return
    there = f", {found['on_disk']:,} on disk already" if found["on_disk"] else ""
    ctl.out.line(f"{plural(found['files'], 'file')} ordered ({size(found['bytes'])}){there}")
    if found["refused"]:
        ctl.out.warn(f"{plural(found['refused'], 'file')} not: {found['why']}")
    for name in found["unknown"]:
        ctl.out.warn(f"{name}: nothing is known of it")


def _indexed(ctl: Ctl, found: dict[str, Any]) -> None:
    if ctl.out.as_json:
        ctl.out.json(found)
    else:
        ctl.out.line(f"{found['dicom']:,} of {plural(found['files'], 'file')} are DICOM")


def _status(ctl: Ctl, found: dict[str, Any]) -> None:
    if ctl.out.as_json:
        ctl.out.json(found)
        return
    known = f"{found['studies_known']:,}, {plural(found['files_known'], 'file')} of them"
    ctl.out.fields(
        (
            ("held", f"{plural(found['files'], 'file')}, {size(found['bytes'])}"),
            ("unread", plural(found["unread"], "file")),
            ("share", f"{found['share']} % of each pool"),
            ("siblings", found["siblings"]),
            ("worklists", found["worklist"] or "none watched"),
            ("studies", known),
        )
    )
