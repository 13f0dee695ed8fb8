"""Whom to blame when a disc does not read or burn in a drive: pure rules over recent attempts.

A drive's and a disc's blame are separate: a disc that reads elsewhere clears itself and accuses
the drive, a drive that reads other discs clears itself and accuses the disc. In a history the
oldest attempt comes first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from hsmfs.types import Barcode


@dataclass(frozen=True, slots=True)
class Attempt:
    """One use of a disc in a drive (load, read, burn or verify) and whether it went well."""

    drive: str
    volume: Barcode
    ok: bool


class Blame(Enum):
    """Who caused an error."""

    DRIVE = "drive"
    MEDIUM = "medium"
    UNDECIDED = "undecided"
    """Not enough evidence: try the disc in another drive."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """How many discs accuse each drive, and how many drives accuse each disc."""

    drives: Mapping[str, int]
    volumes: Mapping[Barcode, int]


def blame(history: Sequence[Attempt], drive: str, volume: Barcode) -> Blame:
    """Whom the history accuses for the failures of this disc in this drive.

    Only what happened since the last success counts: discs that failed in this drive since then
    accuse it, drives in which this disc failed since then accuse the disc, the longer list wins.
    """
    drive_errors: set[Barcode] = set()
    volume_errors: set[str] = set()
    drive_worked = volume_worked = False
    for attempt in reversed(history):
        if attempt.drive == drive and not drive_worked:
            drive_worked = attempt.ok
            drive_errors |= set() if attempt.ok else {attempt.volume}
        if attempt.volume == volume and not volume_worked:
            volume_worked = attempt.ok
            volume_errors |= set() if attempt.ok else {attempt.drive}
        if drive_worked and volume_worked:
            break
    if len(drive_errors) > len(volume_errors):
        return Blame.DRIVE
    if len(drive_errors) < len(volume_errors):
        return Blame.MEDIUM
    return Blame.UNDECIDED


def may_pair(history: Iterable[Attempt], drive: str, volume: Barcode) -> bool:
    """Whether the disc may be tried in the drive: not if their last try together failed."""
    last = True
    for attempt in history:
        if attempt.drive == drive and attempt.volume == volume:
            last = attempt.ok
    return last


def ledger(history: Sequence[Attempt]) -> Ledger:
    """The counters of blame, one for each pair that failed and was decided."""
    drives: Counter[str] = Counter()
    volumes: Counter[Barcode] = Counter()
    for drive, volume in sorted({(a.drive, a.volume) for a in history if not a.ok}):
        verdict = blame(history, drive, volume)
        if verdict is Blame.DRIVE:
            drives[drive] += 1
        elif verdict is Blame.MEDIUM:
            volumes[volume] += 1
    return Ledger(dict(drives), dict(volumes))
