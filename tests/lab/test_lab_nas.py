"""The mount on the network, in a real kernel with real servers and clients: the proofs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT_S = 540
PROOFS = ("nas",)
"""nas-crash does not hold with SMB clients at present, and is run by hand."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.timeout(LIMIT_S + 60),
    pytest.mark.skipif(
        not all(map(shutil.which, ("linux.uml", "exportfs", "rpcbind"))),
        reason="the lab needs user-mode-linux and nfs-kernel-server: tools/test installs them",
    ),
]


@pytest.mark.parametrize("name", PROOFS)
def test_on_the_network(repo: Path, name: str) -> None:
    words = [sys.executable, str(repo / f"tools/proofs/{name}.py")]
    done = subprocess.run(words, cwd=repo, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
