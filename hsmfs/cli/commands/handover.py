"""hsmctl volume handover: a signed paper of who took which discs, for a chain of custody."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from ..context import Ctl, json_option
from ..output import plural
from ..signing import CERT, FILE, KEY, signer_of, write_paper


@click.command(
    "handover",
    epilog="""\b
Examples:
  hsmctl volume handover SET00001 --to 'J. Doe, courier, pass 123' -o papers/set1 --key seal.pem
""",
)
@click.argument("names", metavar="SET-or-BARCODE...", nargs=-1, required=True)
@click.option("--to", "taker", required=True, help="Who takes the discs.")
@click.option("-o", "--output", required=True, type=FILE, help="PATH of the paper, without suffix.")
@KEY
@CERT
@json_option
def handover(
    ctl: Ctl, names: tuple[str, ...], taker: str, output: Path, key: Path | None,
    cert: Path | None,
) -> None:  # fmt: skip
    """Write who takes which discs, with their hashes: PATH.json, its signature, and PATH.txt.

    It goes on record with its SHA-256. The text has lines for both to sign by hand.
    """
    by = signer_of(ctl, key, cert)
    discs = ctl.client.get("/custody", names=list(names))
    at = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    facts = {
        "what": "hsmfs handover of discs", "version": 1, "at": at, "taken_by": taker,
        "discs": discs,
    }  # fmt: skip
    sha256 = write_paper(output, facts, _text(at, taker, discs), by)
    ctl.client.post("/custody", {
        "to": taker, "discs": [disc["barcode"] for disc in discs], "sha256": sha256,
        "key_sha256": by.party.fingerprint,
    })  # fmt: skip
    if ctl.out.as_json:
        ctl.out.json({"file": f"{output}.json", "sha256": sha256, "discs": len(discs)})
    else:
        ctl.out.line(f"{plural(len(discs), 'disc')} for {taker}: {output}.json, .txt, .json.sig")


def _text(at: str, taker: str, discs: list[dict[str, Any]]) -> str:
    lines = ["HANDOVER OF DISCS", "", f"{at}, taken by {taker}", ""]
    for disc in discs:
        lines += [
            f"{disc['barcode']}  set {disc['set'] or '-'}  uuid {disc['uuid']}",
            f"  root hash      {disc['root_hash'] or 'not known'}",
            f"  image SHA-256  {disc['image_sha256'] or 'not known'}",
            f"  {disc['files']:,} files, {disc['used']:,} bytes",
        ]
    blank = "_" * 30
    return "\n".join([*lines, "", f"handed over by {blank}  taken by {blank}", ""])
