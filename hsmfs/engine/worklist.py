"""Lists of what will be wanted: text files of patients, studies and paths, and DICOM worklists.

A text has a wish a line: `patient ID`, `study UID` or `path PATH`; a line that begins with a slash
is a path, '#' begins a comment. A DICOM worklist file (PS3.4 annex K, as dcmtk's wlmscpfs keeps
them) names the patient by PatientID.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ConfigError

DICOM = ".wl"
TEXT = (".list", ".txt")
LARGEST = 16 << 20
"""Bytes of a list."""
SETTLED_S = 2.0
"""A file that was changed less than this ago may still be written."""


@dataclass(slots=True)
class Wishes:
    """What a list asks for, in its order."""

    patients: list[str] = field(default_factory=list)
    studies: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


def parse(text: str, name: str) -> Wishes:
    """The wishes of a list. Raises ConfigError naming the line."""
    wishes = Wishes()
    kinds = {"patient": wishes.patients, "study": wishes.studies, "path": wishes.paths}
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("/"):
            wishes.paths.append(line)
            continue
        kind, _, value = line.partition(" ")
        if kind not in kinds or not value.strip():
            raise ConfigError(
                f"{name}, line {number}: 'patient ID', 'study UID' or 'path PATH' is expected,"
                f" not {line[:60]!r}",
                next_step="correct the list",
            )
        kinds[kind].append(value.strip())
    return wishes


def load(path: Path) -> Wishes:
    """The wishes of a file, by its suffix. Raises ConfigError; blocking."""
    try:
        if path.stat().st_size > LARGEST:
            raise ConfigError(f"{path} is larger than {LARGEST} bytes", next_step="divide it")
        if path.suffix == DICOM:
            return Wishes(patients=_patient(path))
        return parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as fault:
        raise ConfigError(f"{path} cannot be read: {fault}", next_step="correct it") from fault


def _patient(path: Path) -> list[str]:
    from .group import PATIENT_ID, tags  # it imports pydicom, which few sites need

    found = tags(path.read_bytes(), (PATIENT_ID,))
    if found is None or not found[0]:
        raise ConfigError(f"{path} is no DICOM file with a PatientID", next_step="correct it")
    return [found[0]]


class Watched:
    """A folder into which lists are put. Nothing in it is changed; each version is taken once.

    After a start only lists of the last day are taken: what they ask for is on disk already, or
    was read and let go.
    """

    def __init__(self, folder: Path, recent_s: float = 86_400.0) -> None:
        self.folder, self._recent = folder, recent_s
        self._taken: dict[str, int] = {}

    def new(self) -> list[Path]:
        """Lists that were not taken yet, the oldest first. Raises OSError; blocking."""
        now, found, there = time.time(), [], set()
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or Path(entry.name).suffix not in (*TEXT, DICOM):
                    continue
                there.add(entry.name)
                at = entry.stat().st_mtime_ns
                age = now - at / 1e9
                if self._taken.get(entry.name) != at and SETTLED_S <= age <= self._recent:
                    self._taken[entry.name] = at
                    found.append((at, Path(entry.path)))
        self._taken = {name: at for name, at in self._taken.items() if name in there}
        return [path for _, path in sorted(found)]
