"""The unit under a real systemd, in the lab's kernel."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT_S = 240

pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.timeout(LIMIT_S + 60),
    pytest.mark.skipif(
        not (shutil.which("linux.uml") and Path("/lib/systemd/systemd").exists()),
        reason="the lab needs user-mode-linux and systemd: tools/test installs them",
    ),
]


def test_under_systemd(repo: Path) -> None:
    words = [
        str(repo / "tests/lab/uml"), "-s", "-m", "1024M", "-t", str(LIMIT_S), "env", "HSMFS_LAB=1",
        sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n0", "-q",
        "tests/lab/inside/test_inside_systemd.py",
    ]  # fmt: skip
    done = subprocess.run(words, cwd=repo, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
