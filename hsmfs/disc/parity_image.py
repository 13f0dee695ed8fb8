"""The image of a parity disc: an ordinary disc like the others, whose one large file is the parity.

Its VOLUME.json names every member of the set with the checksum of its whole image, so that the set
can be checked and rebuilt from the discs alone (docs/disc-format.md section 8).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsmfs.disc.image import (
    ImageResult,
    Progress,
    arguments,
    building,
    own_files,
    run_xorriso,
    sha256_of,
)
from hsmfs.disc.iso9660 import Iso
from hsmfs.disc.layout import VolumeLabel
from hsmfs.disc.manifest import MANIFEST, PARITY, README, SUMS, VOLUME, write_volume
from hsmfs.disc.parity import MATRIX, POLYNOMIAL, coefficient
from hsmfs.disc.sums import parity_readme, sums_line
from hsmfs.errors import ForeignDisc, MediaError
from hsmfs.types import SECTOR

OVERHEAD = 512 * 1024
"""Bytes that a parity disc has more than the longest image of its set, at most."""


@dataclass(frozen=True, slots=True)
class Member:
    """A data disc of a set: index from 0, bytes of its image, checksums in hexadecimal."""

    index: int
    uuid: str
    barcode: str
    size: int
    sha256: str
    root_hash: str


@dataclass(frozen=True, slots=True)
class ParityRow:
    """One parity file of a set: row from 0, its bytes and their SHA-256 in hexadecimal."""

    row: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ParityFacts:
    """What VOLUME.json of a parity disc tells of its set."""

    row: int
    rows: tuple[ParityRow, ...]
    members: tuple[Member, ...]


def build_parity_image(
    source: Path,
    facts: ParityFacts,
    label: VolumeLabel,
    dest: Path,
    *,
    staging: Path,
    progress: Progress | None = None,
    xorriso: str = "xorriso",
) -> ImageResult:
    """Write the image of a parity disc to dest; source holds the row. Blocking; does not sync.

    Raises as `image.build_image`, and MediaError if the source is not what facts says of it.
    """
    with building(dest, staging):
        own = {name: staging / name for name in (MANIFEST, README, SUMS, VOLUME)}
        own[PARITY] = source
        root_hash = _describe(own, facts, label)
        script = staging / "commands"
        with script.open("wb") as out:
            out.writelines(own_files(own))
        size = next(row.size for row in facts.rows if row.row == facts.row)
        problems = run_xorriso(arguments(xorriso, label, dest, script), dest, progress, size)
        if problems:
            raise MediaError(f"xorriso met a problem: {'; '.join(problems)}")
        return ImageResult(_check(dest, facts), {}, root_hash, ())


def _describe(own: Mapping[str, Path], facts: ParityFacts, label: VolumeLabel) -> bytes:
    """Write the small files of the disc; the root hash is returned."""
    own[MANIFEST].touch()
    own[README].write_bytes(parity_readme(label, facts.row))
    this = next(row for row in facts.rows if row.row == facts.row)
    sums = {name: sha256_of(own[name]) for name in (MANIFEST, README)}
    sums[PARITY] = bytes.fromhex(this.sha256)
    own[SUMS].write_bytes(b"".join(sums_line(sha, name.encode()) for name, sha in sums.items()))
    sums[SUMS] = sha256_of(own[SUMS])
    volume = write_volume(
        label,
        files=0,
        stored=0,
        sums={name: sha.hex() for name, sha in sums.items()},
        parity=_facts(facts, this),
    )
    own[VOLUME].write_bytes(volume)
    return hashlib.sha256(volume).digest()


def _facts(facts: ParityFacts, this: ParityRow) -> dict[str, Any]:
    return {
        "row": facts.row,
        "file": PARITY,
        "size": this.size,
        "sha256": this.sha256,
        "field": f"GF(2^8), polynomial {POLYNOMIAL:#x}, generator 2",
        "matrix": MATRIX,
        "members": [
            {
                "index": member.index + 1,
                "coefficient": coefficient(facts.row, member.index),
                "uuid": member.uuid,
                "barcode": member.barcode,
                "image_bytes": member.size,
                "image_sha256": member.sha256,
                "root_hash": member.root_hash,
            }
            for member in facts.members
        ],
        "rows": [{"row": r.row, "size": r.size, "sha256": r.sha256} for r in facts.rows],
    }


def read_facts(volume: Mapping[str, Any]) -> ParityFacts | None:
    """The set that a disc's VOLUME.json describes; None if it is a data disc.

    Raises ForeignDisc if the code is one that this program does not know.
    """
    parity = volume.get("parity")
    if parity is None:
        return None
    if parity["matrix"] != MATRIX:
        raise ForeignDisc(
            f"the parity disc has the code {parity['matrix']!r}", next_step="use a newer hsmfs"
        )
    return ParityFacts(
        parity["row"],
        tuple(ParityRow(row["row"], row["size"], row["sha256"]) for row in parity["rows"]),
        tuple(
            Member(
                m["index"] - 1,
                m["uuid"],
                m["barcode"],
                m["image_bytes"],
                m["image_sha256"],
                m["root_hash"],
            )
            for m in parity["members"]
        ),
    )


def _check(dest: Path, facts: ParityFacts) -> int:
    """Bytes of the image, cut to its filesystem, if the parity in it is what it should be."""
    this = next(row for row in facts.rows if row.row == facts.row)
    with dest.open("r+b") as image:

        def read_at(sector: int, count: int) -> bytes:
            image.seek(sector * SECTOR)
            return image.read(count * SECTOR)

        iso = Iso(read_at)
        size = iso.sectors * SECTOR
        image.truncate(size)
        entry = iso.find(PARITY.encode())
        if entry is None or entry.size != this.size:
            raise MediaError(f"the image {dest} lacks its {PARITY}")
        sha, left = hashlib.sha256(), entry.size
        image.seek(entry.sector * SECTOR)
        while left:
            piece = image.read(min(left, 1 << 20))
            sha.update(piece)
            left -= len(piece)
    if sha.hexdigest() != this.sha256:
        raise MediaError(f"the parity in {dest} is not what was computed")
    return size


def parity_place(iso: Iso) -> int:
    """The first sector of the parity on an opened parity disc. Raises ForeignDisc."""
    entry = iso.find(PARITY.encode())
    if entry is None:
        raise ForeignDisc(f"the disc has no {PARITY}")
    return entry.sector
