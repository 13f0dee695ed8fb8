"""What belongs together on a disc: the key by which the queue of migrations is ordered.

Files of one directory, or of one DICOM study (StudyInstanceUID, PS3.3 section C.7.2.1), share a
key and so go to the same disc while it has room.
"""

from __future__ import annotations

import warnings
from pathlib import Path

from ..types import InodeNo
from .policy.rules import Grouping

STUDY_UID = 0x0020000D
_UID_LENGTH = 64
"""The longest UID (PS3.5 section 9)."""
_HEADER = 1 << 20
"""Bytes that may be read to find it: it lies before the pixels, near the start."""


def directory(parent: InodeNo) -> str:
    """The key of the files of one directory."""
    return f"d:{parent:016x}"


def key(grouping: Grouping, parent: InodeNo, source: Path | None) -> str:
    """The key of a file whose bytes lie at source; blocking.

    A file that is no DICOM goes with its directory.
    """
    if grouping == "none":
        return "n:"
    if grouping == "dicom-study" and source is not None and (uid := study_uid(source)):
        return f"s:{uid}"
    return directory(parent)


def study_uid(source: Path) -> str | None:
    """StudyInstanceUID of a DICOM file, or None if it is none; blocking."""
    # Imported late: it takes as long as the rest of the daemon, and few sites group by study.
    import pydicom
    from pydicom.errors import InvalidDicomError
    from pydicom.filebase import DicomBytesIO

    try:
        with source.open("rb") as file:
            start = file.read(132)
            if start[128:] != b"DICM":
                return None
            data = start + file.read(_HEADER - len(start))
    except OSError:
        return None
    # Odd headers are the rule among old files; we want one value of them, not pydicom's opinion.
    warnings.filterwarnings("ignore", module=r"pydicom\.")
    try:
        found = pydicom.dcmread(
            DicomBytesIO(data), stop_before_pixels=True, specific_tags=[STUDY_UID]
        )
        uid = str(found.get("StudyInstanceUID", ""))
    except (InvalidDicomError, EOFError, ValueError, KeyError, AttributeError, OSError,
            NotImplementedError):  # fmt: skip
        return None
    return uid[:_UID_LENGTH] or None
