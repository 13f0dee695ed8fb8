"""What belongs together on a disc: the key by which the queue of migrations is ordered.

Files of one directory, or of one DICOM study (StudyInstanceUID, PS3.3 section C.7.2.1), share a
key and so go to the same disc while it has room. What is read of a study for that is told to the
catalog, which then knows the files of a study and of a patient (`hsmctl prefetch`).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from ..catalog.studies import Study
from ..types import InodeNo
from .policy.rules import Grouping

STUDY_UID, PATIENT_ID, STUDY_DATE = 0x0020000D, 0x00100020, 0x00080020
_LENGTHS = {STUDY_UID: 64, PATIENT_ID: 64, STUDY_DATE: 8}
"""The longest values (PS3.5 section 6.2)."""
HEADER = 1 << 20
"""Bytes that may be read to find them: they lie before the pixels, near the start."""


def directory(parent: InodeNo) -> str:
    """The key of the files of one directory."""
    return f"d:{parent:016x}"


def key(grouping: Grouping, parent: InodeNo, source: Path | None) -> tuple[str, Study | None]:
    """The key of a file whose bytes lie at source, and its study if that was looked for; blocking.

    A file that is no DICOM goes with its directory.
    """
    if grouping == "none":
        return "n:", None
    if grouping == "dicom-study" and source is not None and (found := study(source)):
        return f"s:{found.uid}", found
    return directory(parent), None


def study(source: Path, limit: int = HEADER) -> Study | None:
    """The study of a DICOM file by its first bytes, or None if it is none; blocking."""
    try:
        with source.open("rb") as file:
            start = file.read(min(132, limit))
            if start[128:] != b"DICM":
                return None
            data = start + file.read(limit - len(start))
    except OSError:
        return None
    found = tags(data, (STUDY_UID, PATIENT_ID, STUDY_DATE))
    return Study(*found) if found is not None and found[0] else None


def tags(data: bytes, wanted: Sequence[int]) -> list[str] | None:
    """Values of a DICOM file's beginning, '' for those that it has not; None if it is none."""
    # Imported late: it takes as long as the rest of the daemon, and few sites group by study.
    import pydicom
    from pydicom.errors import InvalidDicomError
    from pydicom.filebase import DicomBytesIO

    # Odd headers are the rule among old files; we want values of them, not pydicom's opinion.
    warnings.filterwarnings("ignore", module=r"pydicom\.")
    try:
        found = pydicom.dcmread(
            DicomBytesIO(data), stop_before_pixels=True, specific_tags=list(wanted)
        )
        return [_text(found, tag) for tag in wanted]
    except (InvalidDicomError, EOFError, ValueError, KeyError, AttributeError, OSError,
            NotImplementedError):  # fmt: skip
        return None


def _text(found: object, tag: int) -> str:
    element = found.get(tag)  # type: ignore[attr-defined]
    value = "" if element is None or element.value is None else str(element.value)
    return value.strip()[: _LENGTHS[tag]]
