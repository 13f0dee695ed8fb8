"""The lab's kernel for the proofs: a command in it, and an hsmfs on its SCSI library."""

from __future__ import annotations

import compileall
import subprocess
import sys
from pathlib import Path
from typing import IO

from .tempfs import REPOSITORY, Tables, TempFs

UML = REPOSITORY / "tests/lab/uml"
READY_S = 120.0
"""Programs start slowly there: each page of theirs comes from the host."""


def inside(
    words: list[str], *, memory: str, limit_s: int, modules: str = "", out: IO[bytes] | None = None
) -> int:
    """Run Python with these words in the lab's kernel; its exit status, 124 if it did not end.

    out: where its output goes, here if nothing is given.

    Nothing is compiled there, where it takes long, for each program that starts.
    """
    for folder in ("hsmfs", "tools", "tests/life"):
        compileall.compile_dir(REPOSITORY / folder, quiet=1)
    command = [str(UML), "-m", memory, "-t", str(limit_s), "-k", modules, sys.executable, "-P"]
    command += words
    return subprocess.run(command, stdout=out, stderr=out, check=False).returncode


def scsi_fs(tables: Tables, folder: Path) -> TempFs:
    """An hsmfs whose library is the SCSI changer of this kernel."""
    whole = {**tables, "library": {"kind": "scsi", **tables.get("library", {})}}
    return TempFs(whole, folder=folder, ready_s=READY_S)
