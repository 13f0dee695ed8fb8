"""Faults that a simulated library acts out, given by Python or from outside by faults.json.

faults.json lies in the library's directory and is read again whenever it changes: a JSON list of
objects with `kind` (a value of FaultKind) and, as they apply, the other fields of Fault:

    [{"kind": "burn_fails", "drive": "d1", "at_byte": 1048576},
     {"kind": "unreadable", "barcode": "S0001D01", "sector": 300, "count": 8, "times": null},
     {"kind": "robot_jam", "leaves": "transport"}]

`times` is how often the fault happens: 1 unless told otherwise, null for as long as it is listed.
unreadable, corrupt and door_open last unless `times` is given; missing and label always last.
How often each has happened is kept in faults.spent.json, so a restart does not repeat a spent
fault; writing faults.json again arms all in it again. Replace the file by a rename.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any, cast

from hsmfs.errors import ConfigError
from hsmfs.library.simulated.files import replace_text
from hsmfs.types import Barcode

FAULTS_FILE = "faults.json"
SPENT_FILE = "faults.spent.json"


class FaultKind(Enum):
    """What can go wrong; each says which fields of Fault it uses."""

    LOAD_FAILS = "load_fails"
    """drive, barcode: the drive does not get ready."""
    BURN_FAILS = "burn_fails"
    """drive, barcode, at_byte: the drive fails after at_byte bytes; the disc is spoiled."""
    BURN_REFUSED = "burn_refused"
    """drive, barcode: the drive fails before a byte was written; the disc stays blank."""
    READ_FAILS = "read_fails"
    """drive, barcode: the drive fails while reading."""
    UNREADABLE = "unreadable"
    """barcode, sector, count, drive: these sectors do not read."""
    CORRUPT = "corrupt"
    """barcode, sector, count, drive: these sectors read without an error, but wrong."""
    ROBOT_JAM = "robot_jam"
    """barcode, leaves: a move fails; the disc stays at the `source` or in the `transport`."""
    MISSING = "missing"
    """barcode: the disc is not in its slot."""
    DOOR_OPEN = "door_open"
    LABEL = "label"
    """barcode, reads_as: the robot reads this label instead, or none without reads_as."""


LASTING = {
    FaultKind.UNREADABLE,
    FaultKind.CORRUPT,
    FaultKind.MISSING,
    FaultKind.DOOR_OPEN,
    FaultKind.LABEL,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; a drive or barcode of None means any."""

    kind: FaultKind
    drive: str | None = None
    barcode: Barcode | None = None
    times: int | None = -1
    """How often it happens, None for always; -1 is the kind's own default."""
    at_byte: int = 0
    sector: int = 0
    count: int = 1
    leaves: str = "source"
    reads_as: Barcode | None = None

    def __post_init__(self) -> None:
        if self.times == -1:
            object.__setattr__(self, "times", None if self.kind in LASTING else 1)
        if self.leaves not in ("source", "transport"):
            raise ValueError(f"leaves is {self.leaves!r}, not 'source' or 'transport'")

    def concerns(self, drive: str | None, barcode: Barcode | None) -> bool:
        return self.drive in (None, drive) and self.barcode in (None, barcode)

    def first_in(self, sector: int, count: int) -> int | None:
        """The first of the fault's sectors in [sector, sector+count), None if there is none."""
        first = max(sector, self.sector)
        return first if first < min(sector + count, self.sector + self.count) else None

    @classmethod
    def parse(cls, item: Any) -> Fault:
        """From JSON. Raises ValueError with what is wrong."""
        if not isinstance(item, dict):
            raise ValueError(f"{item!r} is not an object")
        unknown = item.keys() - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"unknown key {', '.join(sorted(unknown))}")
        numbers = {key: item.get(key, 0) for key in ("at_byte", "sector", "count")}
        if not all(isinstance(n, int) and n >= 0 for n in numbers.values()):
            raise ValueError(f"{numbers} are not all whole numbers")
        return cls(**{**item, "kind": FaultKind(item.get("kind"))})


@dataclass(slots=True)
class _Armed:
    fault: Fault
    spent: int = 0

    @property
    def over(self) -> bool:
        return self.fault.times is not None and self.spent >= self.fault.times


class Faults:
    """The faults in force. Safe to ask from threads; every question looks at the file first."""

    def __init__(self, root: Path, faults: Iterable[Fault] = ()) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._own = [_Armed(fault) for fault in faults]
        self._filed: list[_Armed] = []
        self._stamp: list[int] | None = None

    def add(self, *faults: Fault) -> None:
        """Put faults in force beside those of the file."""
        with self._lock:
            self._own += [_Armed(fault) for fault in faults]

    def clear(self, kind: FaultKind | None = None) -> None:
        """Take back what `add` gave, all or of one kind; the file's stay."""
        with self._lock:
            self._own = [a for a in self._own if kind is not None and a.fault.kind is not kind]

    def armed(
        self, kind: FaultKind, *, drive: str | None = None, barcode: Barcode | None = None
    ) -> list[Fault]:
        """Faults of the kind in force for this drive and disc, without using them up.

        Raises ConfigError if faults.json is wrong, as all questions do.
        """
        with self._lock:
            return [a.fault for a in self._matching(kind, drive, barcode)]

    def strike(
        self, kind: FaultKind, *, drive: str | None = None, barcode: Barcode | None = None
    ) -> Fault | None:
        """The first fault in force, which has now happened once more; None if there is none."""
        with self._lock:
            for armed in self._matching(kind, drive, barcode):
                self._spend(armed)
                return armed.fault
        return None

    def spend(self, fault: Fault) -> bool:
        """Have one happen that `armed` told of; False if it did meanwhile, to another drive."""
        with self._lock:
            for armed in self._all():
                if armed.fault == fault and not armed.over:
                    self._spend(armed)
                    return True
        return False

    def _all(self) -> list[_Armed]:
        return self._own + self._filed

    def _matching(
        self, kind: FaultKind, drive: str | None, barcode: Barcode | None
    ) -> Iterator[_Armed]:
        self._reread()
        for armed in self._all():
            fault = armed.fault
            if fault.kind is kind and not armed.over and fault.concerns(drive, barcode):
                yield armed

    def _spend(self, armed: _Armed) -> None:
        armed.spent += 1
        if armed.fault.times is not None and any(armed is filed for filed in self._filed):
            spent = {"stamp": self._stamp, "spent": [a.spent for a in self._filed]}
            replace_text(self._root / SPENT_FILE, json.dumps(spent) + "\n")

    def _reread(self) -> None:
        path = self._root / FAULTS_FILE
        try:
            status = path.stat()
        except FileNotFoundError:
            self._filed, self._stamp = [], None
            return
        stamp = [status.st_ino, status.st_mtime_ns, status.st_size]
        if stamp == self._stamp:
            return
        try:
            items = json.loads(path.read_text())
            if not isinstance(items, list):
                raise ValueError("the file is not a list")
            faults = [Fault.parse(item) for item in items]
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"{path}: {error}") from error
        spent = self._spent(stamp)
        self._filed = [
            _Armed(fault, spent[i] if i < len(spent) else 0) for i, fault in enumerate(faults)
        ]
        self._stamp = stamp

    def _spent(self, stamp: list[int]) -> list[int]:
        path = self._root / SPENT_FILE
        try:
            known = json.loads(path.read_text())
        except FileNotFoundError:
            return []
        except ValueError as error:
            raise ConfigError(f"{path}: {error}", next_step="delete it") from error
        return cast(list[int], known["spent"]) if known["stamp"] == stamp else []
