"""Do the robot, the discs and the catalog of a stopped hsmfs agree? Read without hsmfs's own code.

The simulated library's folders say where each disc truly lies, the disc's own files what was done
to it, `hsm-disc` what is on it, SQLite what the catalog believes.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

HSM_DISC = Path(__file__).resolve().parents[1] / "hsm-disc"
BLANK, BURNING, FULL, SUSPECT, DAMAGED, EXPORTED, LOST, RETIRED = range(8)
"""Column volumes.state."""
VALID = 1
"""Column copies.state."""
DONE = 3
"""Column refreshes.state."""
ELSEWHERE = "elsewhere"
"""Column volumes.written_by of discs that another hsmfs wrote."""
CLOSED = 2
"""Column volume_sets.state."""
Held = tuple[int, int, int]
"""A part of a file: inode number, version, part from 0."""
_said: dict[tuple[str, bytes], tuple[int, list[dict]]] = {}
MAIL, DRIVES, STORED = range(16, 256), range(256, 1024), range(1024, 1 << 16)
"""Element addresses of a simulated library: mail slots, drives, and the magazines' slots."""


@dataclass(frozen=True)
class Disc:
    """A disc as it truly is. status: None while blank, INCOMPLETE if spoiled, else CLOSED."""

    folder: Path
    status: str | None

    @property
    def address(self) -> int | None:
        """Its element, None on the shelf."""
        name = self.folder.parent.name
        return int(name) if name.isdigit() else None


def discs(library: Path) -> dict[str, list[Disc]]:
    """Every disc by its label; more than one of a label is a fault."""
    found: dict[str, list[Disc]] = defaultdict(list)
    for folder in (*library.glob("elements/*/*"), *library.glob("shelf/*")):
        if folder.is_dir() and not folder.name.startswith("."):
            note = folder / "medium.json"
            image = (folder / "disc.iso").exists()
            status = json.loads(note.read_text())["status"] if note.exists() else None
            status = status if status != "BLANK" else None
            found[folder.name].append(Disc(folder, status or ("INCOMPLETE" if image else None)))
    return found


def disagreements(folder: Path, *, settled: bool) -> list[str]:
    """What does not fit together in the hsmfs of that folder, a line each.

    settled: nothing is left to do, so no burn may be on the list either.
    """
    catalog = _catalog(folder)
    try:
        there = discs(folder / "library")
        leaving = {row["volume"] for row in catalog.execute("SELECT volume FROM exports")}
        burns = {row["volume"] for row in catalog.execute("SELECT volume FROM burns")}
        faults = [f"disc {name} is in {len(d)} places" for name, d in there.items() if len(d) > 1]
        faults += [
            f"the move of {row['barcode']} has no end"
            for row in catalog.execute("SELECT barcode FROM moves WHERE finished_ns IS NULL")
        ]
        if settled:
            faults += [f"volume {volume} is still on the list of burns" for volume in burns]
            rebuilds = catalog.execute("SELECT volume FROM rebuilds")
            faults += [f"volume {volume} is still being made anew" for (volume,) in rebuilds]
            faults += _replaced(catalog, folder / "state/certificates")
            left = set(os.listdir(folder / "spool")) - _open_sets(catalog)
            faults += [f"the spool holds {name}" for name in left if not name.startswith("old-")]
        for volume in catalog.execute("SELECT * FROM volumes ORDER BY barcode"):
            found = there.pop(volume["barcode"], None)
            if found is None:
                faults.append(f"{volume['barcode']}: no such disc exists")
            else:
                told = _place(volume, found[0], volume["id"] in leaving)
                told += _state(catalog, volume, found[0], volume["id"] in burns)
                faults += [f"disc {volume['barcode']} {fault}" for fault in told]
        strange = [name for name, found in there.items() if found[0].address is not None]
        return faults + [f"disc {name} is not in the catalog" for name in strange]
    finally:
        catalog.close()


def full(folder: Path) -> list[str]:
    """Labels of the discs that count."""
    with closing(_catalog(folder)) as catalog:
        rows = catalog.execute("SELECT barcode FROM volumes WHERE state = ? ORDER BY id", (FULL,))
        return [barcode for (barcode,) in rows]


def _catalog(folder: Path) -> sqlite3.Connection:
    catalog = sqlite3.connect(f"file:{folder / 'state/catalog.db'}?mode=ro", uri=True)
    catalog.row_factory = sqlite3.Row
    return catalog


def _replaced(catalog: sqlite3.Connection, certificates: Path) -> list[str]:
    """Orders to replace discs, all done: the discs are retired, and certificates tell of them."""
    faults = []
    orders = "SELECT r.*, v.barcode, v.state AS volume_state FROM refreshes r"
    for row in catalog.execute(f"{orders} JOIN volumes v ON v.id = r.volume"):
        disc = f"disc {row['barcode']} is to be replaced, but"
        if row["state"] != DONE or row["volume_state"] != RETIRED:
            faults.append(f"{disc} is in state {row['state']}, the disc in {row['volume_state']}")
            continue
        for suffix in (".json", ".txt"):
            path = certificates / (row["certificate"] + suffix)
            if not path.is_file() or not path.stat().st_size:
                faults.append(f"{disc} there is no certificate {path.name}")
    return faults


def _open_sets(catalog: sqlite3.Connection) -> set[str]:
    """Names in the spool that sets without their parity discs need."""
    images = catalog.execute(
        "SELECT v.id FROM volumes v JOIN volume_sets s ON v.set_id = s.id WHERE s.state != ?",
        (CLOSED,),
    )
    rows = catalog.execute("SELECT file FROM set_parity")
    return {f"volume-{id}.iso" for (id,) in images} | {file for (file,) in rows}


def _place(volume: sqlite3.Row, disc: Disc, leaving: bool) -> list[str]:
    faults = []
    if volume["element"] != disc.address:
        faults.append(f"lies in element {disc.address}, the catalog says {volume['element']}")
    if disc.address is not None and disc.address < MAIL.start:
        faults.append("was left in the robot's gripper")
    inside = disc.address is not None and disc.address not in MAIL
    if volume["state"] in (EXPORTED, LOST) and inside and not leaving:
        faults.append(f"lies in element {disc.address}, but counts as exported or lost")
    return faults


def _state(
    catalog: sqlite3.Connection, volume: sqlite3.Row, disc: Disc, burning: bool
) -> list[str]:
    """What the catalog believes of the disc, against what it is."""
    state = volume["state"]
    if state in (EXPORTED, LOST) and volume["former"] is not None:
        state = volume["former"]
    rows = catalog.execute("SELECT * FROM copies WHERE volume = ?", (volume["id"],)).fetchall()
    faults = []
    # Of a disc outside the library a catalog made from discs knows only what it was before.
    if state == BLANK and disc.status is not None and disc.address is not None:
        faults.append(f"counts as blank, but is {disc.status}")
    if state == BURNING and not burning:
        faults.append("counts as being burned, but no burn is on the list")
    if state in (BLANK, DAMAGED) and any(row["state"] == VALID for row in rows):
        faults.append("is blank or damaged, but has valid copies")
    if state == RETIRED and disc.status != "CLOSED":
        faults.append(f"counts as retired, but is {disc.status}")
    if not burning and state != FULL and any(row["state"] not in (VALID, 2, 3) for row in rows):
        faults.append("has pending copies, but no burn is on the list")
    if state in (FULL, SUSPECT):
        if disc.status != "CLOSED":
            return [*faults, f"counts as full, but is {disc.status}"]
        faults += _content(catalog, volume, disc, rows)
    return faults


def _content(
    catalog: sqlite3.Connection, volume: sqlite3.Row, disc: Disc, rows: list[sqlite3.Row]
) -> list[str]:
    """A full disc: every byte right, and its manifest against the catalog's copies."""
    image = disc.folder / "disc.iso"
    code, verified = _hsm_disc("verify", image)
    if code or not verified:
        return [f"does not verify: {verified}"]
    _, (label,) = _hsm_disc("info", image)
    faults = []
    if label["uuid"] != volume["uuid"] or label["root_hash"] != volume["root_hash"]:
        faults.append("is another one than the catalog's")
    _, manifest = _hsm_disc("list", image)
    on_disc = {
        (line["ino"], line["version"], line.get("part", {"part": 1})["part"] - 1)
        for line in manifest
        if line["kind"] == "file"
    }
    if volume["written_by"] == ELSEWHERE:
        on_disc = _here(catalog, on_disc)
    known = {(row["ino"], row["version"], row["part"]) for row in rows}
    valid = {(row["ino"], row["version"], row["part"]) for row in rows if row["state"] == VALID}
    alive = set(catalog.execute("SELECT ino, version FROM inodes").fetchall())
    alive = {tuple(row) for row in alive}
    faults += [f"does not hold {file}, a valid copy" for file in sorted(valid - on_disc)]
    faults += [
        f"holds {file}, which the catalog does not know"
        for file in sorted(on_disc - known)
        if file[:2] in alive
    ]
    return faults


def _here(catalog: sqlite3.Connection, files: set[Held]) -> set[Held]:
    """Files of another hsmfs by the numbers that they were given here."""
    rows = catalog.execute("SELECT ino, version, own FROM foreign_files")
    own = {(row["ino"], row["version"]): row["own"] for row in rows}
    return {(own[ino, version], 1, part) for ino, version, part in files if (ino, version) in own}


def _hsm_disc(command: str, image: Path) -> tuple[int, list[dict]]:
    """What `hsm-disc` says of an image; asked once of the same bytes, however often they lie."""
    with image.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").digest()
    if (command, content) not in _said:
        done = subprocess.run(
            [sys.executable, HSM_DISC, command, "--json", image], capture_output=True, check=False
        )
        said = done.returncode, [json.loads(line) for line in done.stdout.splitlines()]
        _said[command, content] = said
    return _said[command, content]
