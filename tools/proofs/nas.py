"""The mount on the network does what clients rely on: NFS 3, 4.1, 4.2 by the kernel, SMB by Samba.

    tools/prove nas [WORD] [--without WORD]

In a real kernel (User Mode Linux): hsmfs on a slow simulated library is mounted, exported and
mounted back by its clients. The sections are tools/lib/nas/*.py; with a word only those whose title
has it, or has it not.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from _verdict import Proof, proof
from lib.lab import inside
from lib.nas import life, nfs, nfs_names, nfs_offline, records, smb, smb_files
from lib.nas.world import nas

CLAIM = "files are on the network as they are on the mount, and nobody hangs on a robot"
LIMIT_S = 480
MEMORY = "1536M"
MODULES = f"{nfs.MODULES} {smb.MODULES}"
SECTIONS = {
    **nfs_names.SECTIONS, **nfs_offline.SECTIONS, **records.SECTIONS, **smb_files.SECTIONS,
    **life.SECTIONS,
}  # fmt: skip


def live(p: Proof, word: str, without: str | None) -> None:
    """The sections, inside the lab's kernel."""
    began = time.monotonic()
    chosen = {
        title: run for title, run in SECTIONS.items()
        if word in title and (without is None or without not in title)
    }  # fmt: skip
    p.require(bool(chosen), f"no section has {word!r} in its title")
    with nas(p) as world:
        for title, run in chosen.items():
            with world.section(title):
                run(world)
    p.figure("seconds in all", time.monotonic() - began, "s", at_most=LIMIT_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("word", nargs="?", default="")
    parser.add_argument("--without")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        with proof(CLAIM) as p:
            live(p, given.word, given.without)
    code = inside(
        [__file__, "--inside", *sys.argv[1:]], memory=MEMORY, limit_s=LIMIT_S + 60, modules=MODULES
    )
    if code == 124:
        print(f"NOT PROVED: {CLAIM}: the lab's kernel ended early")
    sys.exit(1 if code else 0)


if __name__ == "__main__":
    main()
