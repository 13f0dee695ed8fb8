"""Do the robot, the discs and the catalog of a stopped hsmfs agree? Read without hsmfs's own code.

The simulated library's folders say where each disc truly lies, the disc's own files what was done
to it, `hsm-disc` what is on it, SQLite what the catalog believes.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

HSM_DISC = Path(__file__).resolve().parents[1] / "hsm-disc"
BLANK, BURNING, FULL, SUSPECT, DAMAGED, EXPORTED, LOST, RETIRED = range(8)
"""Column volumes.state."""
VALID = 1
"""Column copies.state."""
CLOSED = 2
"""Column volume_sets.state."""
MAIL, STORED = range(16, 256), range(1024, 1 << 16)
"""Element addresses of a simulated library: mail slots, and the magazines' slots."""


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
    catalog = sqlite3.connect(f"file:{folder / 'state/catalog.db'}?mode=ro", uri=True)
    catalog.row_factory = sqlite3.Row
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
        return faults + [f"disc {name} is not in the catalog" for name in there]
    finally:
        catalog.close()


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
    if state == BLANK and disc.status is not None:
        faults.append(f"counts as blank, but is {disc.status}")
    if state == BURNING and not burning:
        faults.append("counts as being burned, but no burn is on the list")
    if state in (BLANK, DAMAGED) and any(row["state"] == VALID for row in rows):
        faults.append("is blank or damaged, but has valid copies")
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


def _hsm_disc(command: str, image: Path) -> tuple[int, list[dict]]:
    done = subprocess.run(
        [sys.executable, HSM_DISC, command, "--json", image], capture_output=True, check=False
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]
