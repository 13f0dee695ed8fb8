"""hsmctl verify: files against the checksums of their ingest, and a signed report of it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from ..context import Ctl, json_option, path_list, paths_argument
from ..output import plural, size
from ..progress import follow
from ..signing import CERT, FILE, KEY, signer_of, write_paper

PATIENCE_S = 600.0
"""A daemon that ended while it compared is waited for so long."""


@click.command(
    "verify",
    epilog="""\b
Examples:
  hsmctl verify scans/2019
  hsmctl verify --deep scans/2019 -o reports/2031-02 --key seal.pem
  openssl pkeyutl -verify -pubin -inkey seal.pub -rawin \\
      -in reports/2031-02.json -sigfile reports/2031-02.json.sig
""",
)
@paths_argument
@click.option("--deep", is_flag=True, help="Read every copy on the discs in the library, too.")
@click.option("--anew", is_flag=True, help="From the beginning, also if it was cut off.")
@click.option("-o", "--report", "paper", type=FILE, help="PATH of a signed report, no suffix.")
@KEY
@CERT
@json_option
def command(
    ctl: Ctl, paths: tuple[str, ...], deep: bool, anew: bool, paper: Path | None,
    key: Path | None, cert: Path | None,
) -> int:  # fmt: skip
    """Compare files (for a folder: all below it) with the checksums that they had at ingest.

    What is on disk is read; --deep reads each copy, as bulk work that lets readers go first. Copies
    on discs outside the library are listed as not read. Checksums that clients left
    (user.checksum.sha256, SHA256SUMS) are compared, too. Exit code 26 if anything is wrong. With -o
    a report is signed: PATH.json, .json.sig, .txt, .pem.

    If it is cut off, the same order within a day goes on where it stood; if hsmfsd is started
    again, it goes on by itself.
    """
    from ...errors import NotIntact

    by = signer_of(ctl, key, cert) if paper is not None else None
    found = _verified(ctl, {"paths": path_list(ctl, paths), "deep": deep}, anew)
    del found["kind"]
    if not ctl.out.as_json:
        for item in found["findings"]:
            where = f" (disc {item['disc']})" if "disc" in item else ""
            ctl.out.warn(f"{ctl.shown(item)}: {item['error']}{where}")
        ctl.out.line(_text(ctl, found))
    if paper is not None and by is not None:
        facts = {"what": "hsmfs verification", "version": 1, **found}
        sha256 = write_paper(paper, facts, _text(ctl, found), by)
        ctl.client.post("/verify/reports", {
            "path": ctl.name(found["paths"][0]), "record": found["record"], "sha256": sha256,
            "key_sha256": by.party.fingerprint,
        })  # fmt: skip
        if ctl.out.as_json:
            ctl.out.json_line({"file": f"{paper}.json", "sha256": sha256})
        else:
            ctl.out.line(f"signed report: {paper}.json, .txt, .json.sig")
    return NotIntact.exit_code if found["failed"] else 0


def _verified(ctl: Ctl, order: dict[str, Any], anew: bool) -> dict[str, Any]:
    """The report; a daemon that went away under it is waited for. Raises DaemonUnreachable."""
    from ...errors import DaemonUnreachable

    ctl.client.get("/status")  # one that is not there at all is not
    while True:
        try:
            return follow(ctl, "/verify", {**order, "anew": anew}, "verifying")
        except DaemonUnreachable as fault:
            ctl.out.warn(f"{fault.message}; this goes on when hsmfsd is back")
            _wait_for_daemon(ctl)
        anew = False


def _wait_for_daemon(ctl: Ctl) -> None:
    from ...errors import DaemonUnreachable

    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            ctl.client.get("/status")
            return
        except DaemonUnreachable:
            if time.monotonic() > until:
                raise
        time.sleep(1)


def _text(ctl: Ctl, found: dict[str, Any]) -> str:
    """The report for people."""
    at = datetime.fromtimestamp(found["ended_ns"] // 10**9, UTC)
    parts = sum(disc["parts_read"] for disc in found["discs"])
    lines = [
        f"VERIFICATION of {', '.join(map(ctl.name, found['paths']))},"
        f" {at:%Y-%m-%d %H:%M:%S} UTC",
        f"{plural(found['files'], 'file')} ({size(found['bytes'])}),"
        f" {found['on_disk']:,} compared on disk ({size(found['bytes_on_disk'])}),"
        f" {found['copies']:,} copies on discs",
        f"  {parts:,} parts of copies read, {found['unread']:,} not read;"
        f" {found['claimed']:,} files compared with their client's checksum",
    ]
    if found["unarchived"] or found["changed"]:
        lines.append(
            f"  {found['unarchived']:,} without a checksum (not archived as they are now),"
            f" {found['changed']:,} written meanwhile"
        )
    if found["resumed"]:
        lines.append(f"  interrupted {plural(found['resumed'], 'time')}, and went on each time")
    if found["accepted"]:
        lines.append(f"  {found['accepted']:,} not as their client says, accepted as they are")
    if found["heads"]:
        lines.append(f"  {size(found['heads'])} of heads of files on discs not compared: --deep")
    if found["away"]:
        lines.append(f"  {found['away']:,} of the files only on discs that cannot be read now")
    for disc in found["discs"]:
        if disc["not_here"] or (found["deep"] and disc["parts_bad"]):
            left = disc["parts"] - disc["parts_read"] - disc["parts_bad"]
            bad = f"{disc['parts_bad']:,} bad; " if disc["parts_bad"] else ""
            lines.append(f"  disc {disc['barcode']}: {bad}{left:,} not read: {disc['not_here']}")
    lines += [f"  {ctl.name(item)}: {item['error']}" for item in found["findings"][:_SHOWN]]
    if found["failed"] > _SHOWN:
        lines.append(f"  and {found['failed'] - _SHOWN:,} more in the JSON file or the audit log")
    lines.append(_verdict(found))
    return "\n".join(lines)


def _verdict(found: dict[str, Any]) -> str:
    """Nothing is called intact that was not compared."""
    if found["failed"]:
        return f"{found['failed']:,} NOT INTACT"
    left = any(found[what] for what in ("unread", "heads", "unarchived", "changed"))
    return "what was compared is intact; not all was compared" if left else "all intact"


_SHOWN = 20
"""Findings that the text names."""
