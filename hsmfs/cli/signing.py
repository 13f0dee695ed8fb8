"""Options and helpers of commands that sign: whose key, and papers signed by it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import BadSeal, ConfigError

if TYPE_CHECKING:
    from ..sealing.keys import Party, Signer

FILE = click.Path(path_type=Path, dir_okay=False)
KEY = click.option(
    "--key", type=FILE, help="Private Ed25519 key, PEM.  [default: [seal] key]"
)  # fmt: skip
CERT = click.option("--cert", type=FILE, help="Certificate of the key, PEM.")


def signer_of(ctl: Any, key: Path | None, cert: Path | None) -> Signer:
    """The key that was named, or the configured one. Raises ConfigError."""
    from ..sealing.keys import signer

    settings = ctl.config.seal
    if key is None:
        key, cert = settings.key, cert or settings.certificate
    if key is None:
        raise ConfigError(
            "no key to sign with", next_step="give --key, or set [seal] key in the configuration"
        )
    return signer(key, cert)


def write_paper(path: Path, facts: dict[str, Any], text: str, by: Signer) -> str:
    """Write PATH.json, .json.sig, .txt and .pem (the public key); returns the SHA-256 of the JSON,
    which the text names at its end. Raises ClickException."""
    signed_by = {"name": by.party.name, "key_sha256": by.party.fingerprint}
    facts = {**facts, "signed_by": signed_by}
    body = (json.dumps(facts, indent=1) + "\n").encode()
    sha256 = hashlib.sha256(body).hexdigest()
    whole = f"{text.rstrip()}\n\nSHA-256 of the JSON file: {sha256}\n"
    files = {
        ".json": body, ".json.sig": by.sign(body), ".txt": whole.encode(), ".pem": by.party.pem,
    }  # fmt: skip
    for suffix, data in files.items():
        target = path.with_name(path.name + suffix)
        try:
            target.write_bytes(data)
        except OSError as fault:
            raise click.FileError(str(target), str(fault.strerror)) from fault
    return sha256


def read_paper(path: Path, known: Party | None) -> dict[str, Any]:
    """The facts of PATH.json if its signature holds, by the key that is known or the one beside it.
    Raises BadSeal."""
    from ..sealing.keys import Party

    stem = path.with_name(path.name.removesuffix(".json"))
    try:
        body, signature, pem = (
            stem.with_name(stem.name + suffix).read_bytes()
            for suffix in (".json", ".json.sig", ".pem")
        )
        facts = json.loads(body)
    except (OSError, ValueError) as fault:
        raise BadSeal(f"{path} is no signed paper: {fault}") from fault
    if not (known or Party(pem, f"{stem}.pem")).signed(body, signature):
        raise BadSeal(f"the signature of {path} does not hold")
    if not isinstance(facts, dict):
        raise BadSeal(f"{path} is no signed paper")
    return facts
