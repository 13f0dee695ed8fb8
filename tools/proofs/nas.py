"""The mount on the network does what clients rely on: NFS 3, 4.1, 4.2 by the kernel, SMB by Samba.

    tools/prove nas [WORD] [--part PART]

In a real kernel (User Mode Linux): hsmfs on a slow simulated library is mounted, exported and
mounted back by its clients. The sections are tools/lib/nas/*.py, in parts that can be run one by
one (names, discs, smb, programs); with a word only those are run whose title has it. The bound on
seconds is the whole proof's: a part, or what a word chooses, prints its seconds without one.
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
from lib.nas import life, nfs, nfs_names, nfs_offline, records, smb, smb_files, snapshots
from lib.nas.world import Section, nas

CLAIM = "files are on the network as they are on the mount, and nobody hangs on a robot"
LIMIT_S = 480
MEMORY = "1536M"
MODULES = f"{nfs.MODULES} {smb.MODULES}"
PARTS = {
    "names": nfs_names.SECTIONS,
    "discs": {**nfs_offline.SECTIONS, **records.SECTIONS, **snapshots.SECTIONS},
    "smb": smb_files.SECTIONS,
    "programs": life.SECTIONS,
}


def chosen(word: str, part: str | None) -> dict[str, Section]:
    """The sections to run, by their titles."""
    parts = PARTS if part is None else [part]
    return {
        title: section for name in parts for title, section in PARTS[name].items() if word in title
    }


def live(p: Proof, word: str, part: str | None) -> None:
    """The sections, inside the lab's kernel."""
    began = time.monotonic()
    sections = chosen(word, part)
    p.require(bool(sections), f"no section has {word!r} in its title")
    with nas(p, sections.values()) as world:
        for title, section in sections.items():
            with world.section(title):
                section.run(world)
    took = time.monotonic() - began
    if word or part:
        p.say("a part of the proof: the bound on seconds is that of the whole")
        p.figure("seconds in all", took, "s")
    else:
        p.figure("seconds in all", took, "s", at_most=LIMIT_S)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("word", nargs="?", default="")
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        with proof(CLAIM) as p:
            live(p, given.word, given.part)
    code = inside(
        [__file__, "--inside", *sys.argv[1:]], memory=MEMORY, limit_s=LIMIT_S + 60, modules=MODULES
    )
    if code == 124:
        print(f"NOT PROVED: {CLAIM}: the lab's kernel ended early")
    sys.exit(1 if code else 0)


if __name__ == "__main__":
    main()
