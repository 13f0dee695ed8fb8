"""hsmctl volume export, leaving, stay, import, labels, adopt: discs out of the library and in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ...errors import HsmError, SameLabel
from ..context import Ctl, json_option, path_query
from ..output import Out, ago, plural, size

_names = click.argument("names", metavar="SET-or-BARCODE...", nargs=-1, required=True)
_labels = click.option(
    "--labels", "sheet", type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="Write a sheet of labels for the discs, a PDF.",
)  # fmt: skip


@click.command(
    "export",
    epilog="""\b
Examples:
  hsmctl volume export SET00001 --to "vault A, shelf 3" --labels labels.pdf
  hsmctl volume export S0001D03 S0001D04 --to "fire safe" --dry-run
  hsmctl volume export SET00002     to where its policy wants it
""",
)
@_names
@click.option(
    "--to", "destination", metavar="PLACE",
    help="Where the discs are to be put; left out: where a policy wants them.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print the pick list and do nothing.")
@_labels
@json_option
def export(
    ctl: Ctl, names: tuple[str, ...], destination: str | None, dry_run: bool, sheet: Path | None
) -> None:
    """Order discs out of the library, to a vault or a shelf, and print the pick list.

    The discs are carried to the mail slots, as many as fit, and the next ones when those were
    taken; without mail slots an operator takes them from the slots that are named.
    """
    body = {"names": list(names), "destination": destination, "dry_run": dry_run}
    found = ctl.client.post("/export", body)
    if ctl.out.as_json:
        ctl.out.json(found)
    else:
        _ordered(ctl.out, found)
    if sheet is not None:
        _sheet(ctl, sheet, found["discs"])


def _ordered(out: Out, found: dict[str, Any]) -> None:
    """The pick list, and what to mind."""
    _table(out, found["discs"])
    _problems(out, found["discs"])
    if found["only_there"]:
        out.warn(
            f"{plural(found['only_there'], 'file')} will have no copy inside the library:"
            " reading them will take an operator"
        )
    if found["ordered"]:
        where = "mail slots" if found["mail_slots"] else "slots"
        out.line(
            f"{plural(len(found['discs']), 'disc')} ordered out; take them from the {where} that"
            " 'hsmctl volume leaving' names"
        )


@click.command("leaving", epilog="\b\nExamples:\n  hsmctl volume leaving")
@json_option
def leaving(ctl: Ctl) -> None:
    """List discs that were ordered out and lie in the library still."""
    found = ctl.client.get("/export")
    if ctl.out.as_json:
        ctl.out.json(found)
        return
    ctl.out.table(
        ("DISC", "SET", "PLACE", "TAKE", "TO", "ORDERED"),
        [
            (
                d["barcode"], d["set"] or "-", d["place"], _when(d), d["destination"],
                ago(d["asked_ns"]),
            )
            for d in found
        ],
    )  # fmt: skip
    _problems(ctl.out, found)


def _when(disc: dict[str, Any]) -> str:
    if disc["problem"]:
        return "see below"
    return "now" if disc["ready"] else "later"


@click.command("stay", epilog="\b\nExamples:\n  hsmctl volume stay SET00001")
@_names
@json_option
def stay(ctl: Ctl, names: tuple[str, ...]) -> None:
    """Take an export back for discs that lie in the library still."""
    found = ctl.client.post("/export/cancel", {"names": list(names)}, timeout=None)
    if ctl.out.as_json:
        ctl.out.json(found)
        return
    ctl.out.line(f"{plural(found['detail']['discs'], 'disc')} stay")


@click.command(
    "import",
    epilog="""\b
Examples:
  hsmctl volume import              whatever was put into mail slots, or straight into slots
  hsmctl volume import SET00001     only the discs of a set
""",
)
@click.argument("names", metavar="[SET-or-BARCODE]...", nargs=-1)
@json_option
def import_(ctl: Ctl, names: tuple[str, ...]) -> None:
    """Take discs from the mail slots into the library and serve who waits for them."""
    found = ctl.client.post("/import", {"names": list(names)}, timeout=None)
    if ctl.out.as_json:
        ctl.out.json(found)
    else:
        for discs, how in ((found["imported"], "imported from mail slots"),
                           (found["found"], "found in slots")):  # fmt: skip
            ctl.out.line(f"{plural(len(discs), 'disc')} {how}")
            for barcode in discs:
                ctl.out.line(f"  {barcode}")
    refused = [SameLabel(barcode, places) for barcode, places in found["refused"].items()]
    for fault in refused[1:]:
        ctl.out.warn(str(fault))
    if refused:
        raise refused[0]


@click.command("labels", epilog="\b\nExamples:\n  hsmctl volume labels SET00001 -o labels.pdf")
@_names
@click.option(
    "-o", "--output", "sheet", required=True, type=click.Path(path_type=Path, dir_okay=False),
    help="The PDF to write.",
)  # fmt: skip
@json_option
def labels(ctl: Ctl, names: tuple[str, ...], sheet: Path) -> None:
    """Write a sheet of labels: the barcode in Code 128, the set, and where the disc belongs."""
    discs = ctl.client.post("/labels", {"names": list(names)})
    pages = _sheet(ctl, sheet, discs)
    if ctl.out.as_json:
        ctl.out.json({"file": str(sheet), "pages": pages, "labels": discs})


@click.command(
    "adopt",
    epilog="""\b
Examples:
  hsmctl volume adopt B0001D01 B0001D02 --into /mnt/hsmfs/from-b
  hsmctl volume adopt /media/images --into /mnt/hsmfs/from-b
""",
)
@click.argument("sources", metavar="BARCODE-or-IMAGE-or-DIR...", nargs=-1, required=True)
@click.option("--into", required=True, metavar="FOLDER", help="A folder of the mount.")
@json_option
def adopt(ctl: Ctl, sources: tuple[str, ...], into: str) -> None:
    """Take over discs that another catalog wrote: their files come under FOLDER as stubs.

    A source is a disc in the library, by its barcode, or a path of an image or a folder of images.
    Name all discs of a set: then their parity serves them too. Nothing is copied. Repeat it if it
    was cut off: what is there already stays.
    """
    paths = [name for name in sources if "/" in name or Path(name).exists()]
    body = {
        "images": [str(Path(name).resolve()) for name in paths],
        "discs": [name for name in sources if name not in paths],
        "into": path_query(ctl.namespace(into)),
    }
    last: dict[str, Any] = {}
    for last in ctl.client.lines("POST", "/volumes/adopt", body):
        if ctl.out.as_json:
            ctl.out.json_line(last)
        elif ctl.out.terminal:
            click.echo(f"\r{last['disc']}: {last['lines']:,} lines", nl=False, err=True)
    if last.get("kind") != "end":
        raise HsmError("hsmfsd ended the answer early", next_step="run it again: it goes on")
    if not ctl.out.as_json:
        ctl.out.line(
            f"{plural(last['made'], 'file')} from {plural(last['discs'], 'disc')} below {into};"
            f" {plural(last['older'], 'older version')} left out"
        )
        if last["refused"]:
            ctl.out.warn(f"{plural(last['refused'], 'name')} taken by something else: left out")


def _sheet(ctl: Ctl, path: Path, discs: list[dict[str, Any]]) -> int:
    from ..labels import write

    try:
        pages = write(path, discs)
    except OSError as fault:
        raise click.FileError(str(path), str(fault.strerror)) from fault
    if not ctl.out.as_json:
        ctl.out.line(f"{plural(len(discs), 'label')} on {plural(pages, 'page')}: {path}")
    return pages


def _problems(out: Out, discs: list[dict[str, Any]]) -> None:
    for disc in discs:
        if disc["problem"]:
            out.warn(disc["problem"])


def _table(out: Out, discs: list[dict[str, Any]]) -> None:
    out.table(
        ("DISC", "SET", ">DISC OF SET", "TAKE FROM", "PUT INTO", ">FILES", ">USED"),
        [
            (
                d["barcode"], d["set"] or "-", f"{d['index']} of {d['of']}" if d["set"] else "-",
                d["place"], d["destination"], f"{d['files']:,}", size(d["used"]),
            )
            for d in discs
        ],
    )  # fmt: skip
