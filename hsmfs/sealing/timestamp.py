"""RFC 3161 timestamps: asks an authority over HTTP (section 3.4) and checks its answer.

Encoding and checking are the work of the program `openssl ts`: libraries were found to refuse
tokens of authorities that order their certificates otherwise than DER wants.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import urllib.request
from pathlib import Path
from urllib.error import URLError

from ..errors import BadSeal, ConfigError, HsmError

TIMEOUT_S = 30.0
LONGEST = 1 << 20
"""Bytes of an answer; real ones are some thousand."""
_TYPE = "application/timestamp-query"


def ask(url: str, data: bytes) -> bytes:
    """The authority's answer for data, as DER of a TimeStampResp. Raises HsmError."""
    query = _openssl(data, "ts", "-query", "-data", "{}", "-sha256", "-cert")
    if query.returncode:
        raise HsmError(f"openssl ts: {_said(query)}")
    request = urllib.request.Request(url, query.stdout, {"Content-Type": _TYPE})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            token = bytes(answer.read(LONGEST))
    except (URLError, OSError, ValueError) as fault:
        raise HsmError(f"no timestamp from {url}: {fault}", next_step="correct the TSA") from fault
    asked = _openssl(query.stdout, "ts", "-query", "-in", "{}", "-text")
    text = _text(token)
    if "Status: Granted" not in text:
        raise HsmError(f"{url} grants no timestamp", next_step="ask who runs it")
    for name in ("Nonce", "Message data"):
        if _field(name, asked.stdout.decode()) != _field(name, text):
            raise HsmError(f"{url} answered another request", next_step="ask it again")
    return token


def at(token: bytes) -> str:
    """When the authority saw the data, by the token alone. Raises BadSeal."""
    return _field("Time stamp", _text(token))


def check(token: bytes, data: bytes, authority: Path) -> None:
    """Whether an authority below this certificate (PEM) made the token of data. Raises BadSeal."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(token)
        file.flush()
        done = _openssl(
            data, "ts", "-verify", "-data", "{}", "-in", file.name, "-CAfile", str(authority)
        )
    if done.returncode or b"Verification: OK" not in done.stdout:
        raise BadSeal(f"the timestamp does not hold: {_said(done)}")


def _text(token: bytes) -> str:
    done = _openssl(token, "ts", "-reply", "-in", "{}", "-text")
    if done.returncode:
        raise BadSeal(f"the timestamp does not decode: {_said(done)}")
    return done.stdout.decode("utf-8", "replace")


def _field(name: str, text: str) -> str:
    """A field's value; a hex dump is all of its lines."""
    found = re.search(rf"^{name}: *\n?(.*(?:\n    .*)*)", text, re.MULTILINE)
    return found[1].strip() if found else ""


def _openssl(data: bytes, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Run it, with `{}` as a file of data."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        command = ["openssl", *(word.replace("{}", file.name) for word in words)]
        try:
            return subprocess.run(command, capture_output=True, check=False, timeout=TIMEOUT_S)
        except FileNotFoundError as fault:
            raise ConfigError("timestamps need openssl", next_step="install it") from fault


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return next((line for line in lines if "error" in line), lines[0] if lines else "no reason")
