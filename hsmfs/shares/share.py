"""A share, whatever serves it, and the errors of making one."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..durable import sync
from ..errors import HsmError

_SECONDS = 60.0


class ShareError(HsmError):
    """A server of this host cannot be told of a share."""

    default_next = "run it as root on the host that serves the files"


@dataclass(frozen=True, slots=True)
class Share:
    """One folder offered to clients.

    Attributes:
        kind: "nfs" or "smb".
        name: what clients ask for: the path for NFS, the share's name for SMB.
        to: the clients that may; empty if the server decides otherwise.
    """

    kind: str
    name: str
    path: Path
    to: str = ""
    options: str = ""


def run(words: Sequence[str], *, package: str) -> str:
    """What a server's tool prints. Raises ShareError with its message, or naming the package."""
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False
        )
    except FileNotFoundError:
        raise ShareError(
            f"{words[0]} is not there: {package} is not installed",
            next_step=f"install it: apt-get install {package}",
        ) from None
    except subprocess.TimeoutExpired:
        raise ShareError(f"{words[0]} did not end in {_SECONDS:g} s") from None
    said = (done.stderr or done.stdout).decode(errors="replace").strip()
    if done.returncode:
        raise ShareError(f"{words[0]}: {said or f'exit status {done.returncode}'}")
    return done.stdout.decode(errors="replace")


def replace(file: Path, text: str | None) -> None:
    """Put text into a file of a server's, whole and durable, or take the file away (None).

    Raises ShareError.
    """
    new = file.with_name(f".{file.name}.new")
    try:
        if text is None:
            file.unlink(missing_ok=True)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(text, encoding="utf-8")
            new.chmod(0o644)
            sync(new)
            os.replace(new, file)
        if file.parent.is_dir():
            sync(file.parent)
    except OSError as fault:
        with contextlib.suppress(OSError):
            new.unlink()
        raise ShareError(f"{file}: {fault.strerror}") from fault
