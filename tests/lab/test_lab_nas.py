"""The mount on the network, in a real kernel with real servers and clients: the proof, in parts."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT_S = 900
"""After which the kernel ends by itself."""
PARTS = ("names", "programs", "stores", "smb", "discs")
"""Of tools/prove nas, each with a kernel of its own, so that the workers of CI share them. By hand
are run: the whole proof with its bounds on times, which has the programs by NFS 3, too; and
nas-crash."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.timeout(LIMIT_S + 60),
    pytest.mark.skipif(
        not all(map(shutil.which, ("linux.uml", "exportfs", "rpcbind"))),
        reason="the lab needs user-mode-linux and nfs-kernel-server: tools/test installs them",
    ),
]


@pytest.mark.parametrize("part", PARTS)
def test_on_the_network(repo: Path, part: str) -> None:
    words = [sys.executable, str(repo / "tools/proofs/nas.py"), "--part", part, "--shared"]
    done = subprocess.run(words, cwd=repo, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
