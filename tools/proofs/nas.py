"""The mount on the network does what clients rely on: NFS 3, 4.1, 4.2 by the kernel, SMB by Samba.

    tools/prove nas [WORD] [--part PART] [--shared]

In a real kernel (User Mode Linux): hsmfs on a slow simulated library is mounted, exported and
mounted back by its clients. The sections are tools/lib/nas/*.py, in parts that can be run one by
one (names, discs, smb, older, programs, stores); with a word only those are run whose title has
it. The whole runs in two such kernels at once, most of the programs in one of them. The bound on
seconds is the whole proof's: a part, or what a word chooses, prints its seconds without one. With
--shared other work runs on this machine: resident reads beside 200 waiting readers may then take a
second and not only twice their time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from _verdict import Proof, proof
from lib.lab import inside
from lib.nas import life, nfs, nfs_names, nfs_offline, rebuilt, records, smb, smb_files, snapshots
from lib.nas.world import Section, nas

CLAIM = "files are on the network as they are on the mount, and nobody hangs on a robot"
LIMIT_S = 480
KERNEL_S = 900
"""Only what hangs takes so long: on a busy machine all sections still tell what they found."""
MEMORY = "1536M"
TIMEOUT = 124
MODULES = f"{nfs.MODULES} {smb.MODULES}"
PARTS = {
    "names": nfs_names.SECTIONS,
    "discs": {**nfs_offline.SECTIONS, **records.SECTIONS, **snapshots.SECTIONS},
    "smb": {**smb_files.SECTIONS, **rebuilt.SECTIONS},
    "older": life.sections(life.OLDER),
    "programs": life.sections(life.PROGRAMS),
    "stores": life.sections(life.STORES),
}
BESIDE = ("programs", "stores")


def chosen(word: str, parts: Iterable[str]) -> dict[str, Section]:
    """The sections to run, by their titles."""
    return {
        title: section for name in parts for title, section in PARTS[name].items() if word in title
    }


def live(p: Proof, word: str, parts: Iterable[str], *, shared: bool) -> None:
    """The sections, inside the lab's kernel."""
    began = time.monotonic()
    sections = chosen(word, parts)
    p.require(bool(sections), f"no section has {word!r} in its title")
    with nas(p, sections.values(), shared=shared) as world:
        for title, section in sections.items():
            with world.section(title):
                section.run(world)
    p.figure("seconds of these sections", time.monotonic() - began, "s")


def kernel(
    word: str, parts: Iterable[str], out: IO[bytes] | None = None, *, shared: bool = False
) -> int:
    """The sections in a kernel of their own; 0 if all they require holds."""
    words = [__file__, "--inside", word, *(f"--part={part}" for part in parts)]
    if shared:
        words.append("--shared")
    return inside(words, memory=MEMORY, limit_s=KERNEL_S, modules=MODULES, out=out)


def whole(p: Proof) -> None:
    """All sections; what programs do is in a kernel beside, which has a processor of its own."""
    began = time.monotonic()
    with ThreadPoolExecutor() as pool, tempfile.TemporaryFile() as beside:
        programs = pool.submit(kernel, "", BESIDE, beside)
        code = kernel("", [part for part in PARTS if part not in BESIDE])
        p.require(code == 0, _ended("the servers", code))
        code = programs.result()
        beside.seek(0)
        p.say(beside.read().decode(errors="replace"))
        p.require(code == 0, _ended("programs", code))
    p.figure("seconds in all", time.monotonic() - began, "s", at_most=LIMIT_S)


def _ended(what: str, code: int) -> str:
    return f"{what}: {'their kernel ended early' if code == TIMEOUT else 'see above'}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("word", nargs="?", default="")
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--shared", action="store_true", help="the machine does other work, too")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    parts = given.part or list(PARTS)
    if given.inside:
        with proof(f"{CLAIM} ({', '.join(parts)})") as p:
            live(p, given.word, parts, shared=given.shared)
    if not given.word and not given.part and not given.shared:
        with proof(CLAIM) as p:
            whole(p)
    code = kernel(given.word, parts, shared=given.shared)
    if code == TIMEOUT:
        print(f"NOT PROVED: {CLAIM}: the lab's kernel ended early")
    sys.exit(1 if code else 0)


if __name__ == "__main__":
    main()
