"""hsmctl audit: search the audit log, export it, and judge its chain."""

from __future__ import annotations

import csv
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import click

from ...errors import BadSeal
from ..context import Ctl, json_option
from ..output import plural
from ..periods import Moment, shown_until
from ..signing import CERT, FILE, KEY, read_paper, signer_of, write_paper

ANCHOR = "hsmfs audit anchor"
FIELDS = ("seq", "at_ns", "worm_ns", "kind", "actor", "object", "outcome", "detail", "prev", "hash")


@click.group(
    "audit",
    epilog="""\b
Examples:
  hsmctl audit search --kind 'retention.*' --since 2031-01-01
  hsmctl audit verify
  hsmctl audit export --format jsonl -o audit.jsonl && hsm-disc audit audit.jsonl
""",
)
def command() -> None:
    """The audit log: who did what, when; a chain in which nothing can be changed unnoticed."""


def _which(command: Any) -> Any:
    """Options that say which records."""
    for option in (
        click.option("--limit", type=click.IntRange(min=1), help="No more than this many."),
        click.option("--until", "until_ns", type=Moment(), help="Up to this time, UTC."),
        click.option("--since", "since_ns", type=Moment(), help="From this time on, UTC."),
        click.option("--text", help="Anywhere in actor, object or detail."),
        click.option("--outcome", type=click.Choice(("done", "refused", "failed"))),
        click.option("--object", "object_", metavar="PATTERN", help="Of the object, '/records/*'."),
        click.option("--actor", metavar="PATTERN", help="Such as '*uid 1000*'."),
        click.option("--kind", metavar="PATTERN", help="Such as file.deleted or 'hold.*'."),
    ):
        command = option(command)
    return command


def _records(ctl: Ctl, chosen: dict[str, Any]) -> Any:
    query = {name.rstrip("_"): value for name, value in chosen.items()}
    return ctl.client.lines("GET", "/audit", **query)


@command.command(
    "search",
    epilog="""\b
Examples:
  hsmctl audit search --kind file.deleted --object '/scans/*'
  hsmctl audit search --outcome refused --since 2031-02-01 --json
""",
)
@_which
@json_option
def search(ctl: Ctl, **chosen: Any) -> None:
    """Show records, the oldest first. With --json one object a line."""
    for record in _records(ctl, chosen):
        if ctl.out.as_json:
            ctl.out.json_line(record)
            continue
        outcome = "" if record["outcome"] == "done" else f" {record['outcome'].upper()}"
        detail = record["detail"] if record["detail"] != "{}" else ""
        ctl.out.line(
            f"{record['seq']}  {shown_until(record['at_ns'])}  {record['kind']}{outcome}"
            f"  {record['object']}  by {record['actor']}  {detail}".rstrip()
        )


@command.command(
    "export",
    epilog="""\b
Examples:
  hsmctl audit export -o audit.jsonl
  hsmctl audit export --format csv --since 2031-01-01 -o 2031.csv
""",
)
@_which
@click.option("--format", "form", type=click.Choice(("jsonl", "csv")), default="jsonl")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="A file.")
@json_option
def export(ctl: Ctl, form: str, output: Path | None, **chosen: Any) -> None:
    """Write records to a file or standard output: JSON lines for 'hsm-disc audit', or CSV."""
    try:
        out = output.open("w", encoding="utf-8", newline="") if output else sys.stdout
    except OSError as fault:
        raise click.FileError(str(output), str(fault.strerror)) from fault
    with out if output else _left_open(out):
        count = _write(out, form, _records(ctl, chosen))
    if output is not None:
        if ctl.out.as_json:
            ctl.out.json({"file": str(output), "records": count})
        else:
            ctl.out.line(f"{plural(count, 'record')} written to {output}")


def _left_open(out: TextIO) -> Any:
    import contextlib

    return contextlib.nullcontext(out)


def _write(out: TextIO, form: str, records: Any) -> int:
    count = 0
    table = csv.DictWriter(out, FIELDS) if form == "csv" else None
    if table is not None:
        table.writeheader()
    for record in records:
        count += 1
        if table is not None:
            table.writerow(record)
        else:
            out.write(json.dumps(record, separators=(",", ":")) + "\n")
    return count


@command.command("sign", epilog="\b\nExamples:\n  hsmctl audit sign -o anchors/2031-02 --key k.pem")
@click.option("-o", "--output", required=True, type=FILE, help="PATH of the paper, without suffix.")
@KEY
@CERT
@json_option
def sign(ctl: Ctl, output: Path, key: Path | None, cert: Path | None) -> None:
    """Sign the head of the chain: PATH.json, its signature, and PATH.txt. Keep them elsewhere.

    Whoever rewrites the log later, catalog and discs included, contradicts them: see
    'hsmctl audit verify --anchor'.
    """
    by = signer_of(ctl, key, cert)
    found = ctl.client.get("/audit/verify")
    if found["breaks"]:
        raise BadSeal("the audit log is broken, and is not signed: see 'hsmctl audit verify'")
    at = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    facts = {"what": ANCHOR, "version": 1, "at": at, "head": found["head"]}
    text = f"ANCHOR OF AN AUDIT LOG\n\n{at}\nhead {found['head']}"
    sha256 = write_paper(output, facts, text, by)
    if ctl.out.as_json:
        ctl.out.json({"file": f"{output}.json", "sha256": sha256, "head": found["head"]})
    else:
        ctl.out.line(f"head {found['head']} signed: {output}.json")


def _anchored(ctl: Ctl, path: Path, signer: Path | None) -> list[dict[str, Any]]:
    """What is wrong by a signed anchor."""
    from ...sealing import keys

    facts = read_paper(path, keys.party(signer) if signer else None)
    if facts.get("what") != ANCHOR:
        raise BadSeal(f"{path} is no anchor of an audit log", next_step="see 'hsmctl audit sign'")
    number, _, digest = str(facts.get("head", "")).partition(":")
    seq = int(number) if number.isdecimal() else 0
    found = list(ctl.client.lines("GET", "/audit", after=max(0, seq - 1), limit=1))
    if seq and (not found or found[0]["seq"] != seq):
        return [{"seq": seq, "what": f"the log is cut off: {path} knows record {seq}"}]
    if seq and found[0]["hash"] != digest:
        return [{"seq": seq, "what": f"{path} has another hash of it: the log was written anew"}]
    return []


@command.command(
    "verify",
    epilog="""\b
Examples:
  hsmctl audit verify
  hsmctl audit verify --anchor anchors/2031-02.json --signer seal.pub
""",
)
@click.option("--anchor", "anchors", multiple=True, type=FILE, help="Of 'hsmctl audit sign'.")
@click.option("--signer", type=FILE, help="Whose key the anchors must be signed by.")
@json_option
def verify(ctl: Ctl, anchors: tuple[Path, ...], signer: Path | None) -> None:
    """Follow the whole chain and compare it with the heads on discs; each break is named.

    The catalog's own log is judged, with what the catalog knows of discs; and the catalog's
    retention, retention folders and holds with what the log says. That the discs say the same,
    'hsm-disc audit' shows from discs alone.
    """
    found = ctl.client.get("/audit/verify")
    for anchor in anchors:
        found["breaks"] += _anchored(ctl, anchor, signer)
    if ctl.out.as_json:
        ctl.out.json(found)
    else:
        for one in found["breaks"]:
            ctl.out.warn(f"record {one['seq']}: {one['what']}")
        ctl.out.line(
            f"{plural(found['records'], 'record')}, compared with"
            f" {plural(found['anchors'], 'disc')} and {plural(len(anchors), 'signed anchor')},"
            f" head {found['head']}"
        )
    if found["breaks"]:
        raise BadSeal(
            f"the audit log is broken in {plural(len(found['breaks']), 'place')}",
            next_step="compare with the discs: hsm-disc audit IMAGE...",
        )
