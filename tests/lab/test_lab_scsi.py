"""The SCSI library in a real kernel: the tests of every library, and those that only it has."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

INSIDE = (
    "tests/library/test_library_conformance.py",
    "tests/lab/inside/test_inside_scsi.py",
    "tests/lab/inside/test_inside_daemon.py",
)
LIMIT_S = 900
EACH_S = 300
"""For one test there: programs are slow in that kernel, the more so on a busy machine."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.timeout(LIMIT_S + 60),
    pytest.mark.skipif(
        not (shutil.which("linux.uml") and shutil.which("tgtd")),
        reason="the lab needs user-mode-linux and tgt: tools/test installs them",
    ),
]


@pytest.mark.parametrize("file", INSIDE)
def test_in_the_lab(repo: Path, file: str) -> None:
    words = [
        str(repo / "tests/lab/uml"), "-m", "1536M", "-t", str(LIMIT_S), "env", "HSMFS_LAB=1",
        sys.executable, "-m", "pytest", "-p", "tests.lab.fixtures", "-p", "no:cacheprovider",
        "-o", f"timeout={EACH_S}", "-n0", "-q", file,
    ]  # fmt: skip
    done = subprocess.run(words, cwd=repo, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
