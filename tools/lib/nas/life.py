"""Programs of a NAS's users: tests of tests/life, with a client's mount between."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

from ..tempfs import REPOSITORY
from .nfs import sh
from .world import Nas, Section

_BY_NFS = "not (wal or restic or orthanc)"
PROGRAMS = {
    "NFS: programs": ("v4.2", _BY_NFS),
    "SMB: programs": ("smb", "dcmtk"),
}
"""What is between, and which of the tests. By NFS rsync and tar leave extended attributes out:
nfsd offers none of a FUSE filesystem. SQLite's WAL is for one host (sqlite.org/wal.html), and by
SMB its database is locked. A share of SMB keeps no modes, owners and links, which most compare."""
OLDER = {"NFS 3: programs": ("v3", _BY_NFS)}
"""The same by the version whose locks are a protocol of their own."""
STORES = {
    "NFS: stores of programs": ("v4.2", "restic or orthanc"),
    "SMB: stores of programs": ("smb", "restic or orthanc"),
}
"""The same of what keeps its data in hundreds of files of its own naming; these take longest."""
SCRATCH = Path("/run/life")
SCRATCH_BYTES = 256 << 20


def programs(between: str, which: str, nas: Nas) -> None:
    """Each test is a program at work, its files on discs between its runs."""
    scratch()
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--durations=0",
             "--timeout=240", "-k", which, f"--basetemp={SCRATCH}/tests",
             REPOSITORY / "tests/life")  # fmt: skip
    done = subprocess.run(
        [sys.executable, *words],
        cwd=REPOSITORY, env={**os.environ, "HSMFS_LIFE": between},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    nas.p.say(done.stdout[-6000:] if done.returncode else done.stdout[-1500:])
    nas.p.require(done.returncode == 0, f"a program of a NAS's users fails over {between}")
    left_out = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    nas.p.require(not left_out, f"over {between} programs were left out: {left_out[:1]}")


def scratch() -> None:
    """A folder that knows xattrs, for what is copied: the memory of this kernel does not."""
    if SCRATCH.exists():
        return
    image = SCRATCH.with_suffix(".ext4")
    with image.open("wb") as file:
        file.truncate(SCRATCH_BYTES)
    SCRATCH.mkdir()
    sh("mkfs.ext4", "-q", image)
    sh("mount", "-o", "loop", image, SCRATCH)


def sections(kinds: dict[str, tuple[str, str]]) -> dict[str, Section]:
    """By title."""
    return {title: Section(functools.partial(programs, *kind)) for title, kind in kinds.items()}
