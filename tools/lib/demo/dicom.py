"""The real DICOM files that three Python packages ship, found by what is in them.

A file is DICOM when "DICM" stands behind its preamble of 128 bytes (DICOM PS3.10 section 7.1).
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import FileDataset

PACKAGES = {"pydicom": "pydicom", "pydicom-data": "data_store", "deid-data": "deid_data"}
"""The distribution's name, and the module whose folder holds its files."""

HEADER_TAGS = ["Modality", "PatientID", "StudyInstanceUID", "Rows", "Columns"]
_READ_AHEAD = 8192
"""Bytes that Python's buffered reader may ask for beyond what was wanted."""


@dataclass(frozen=True, slots=True)
class Dicom:
    """A file of a package; name is its place below the archive's folder, size bytes."""

    package: str
    source: Path
    name: Path
    size: int


def find() -> Iterator[Dicom]:
    """Every DICOM file of the packages, in the order of their names."""
    for package, module in PACKAGES.items():
        spec = importlib.util.find_spec(module)
        if spec is None or not spec.submodule_search_locations:
            raise SystemExit(f"error: the Python package {package} is not there; run tools/demo")
        top = Path(next(iter(spec.submodule_search_locations)))
        for path in sorted(top.rglob("*")):
            if path.is_file() and _is_dicom(path):
                name = Path(package) / path.relative_to(top)
                yield Dicom(package, path, name, path.stat().st_size)


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def sha256(path: Path) -> str:
    """The checksum of all the file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def header(path: Path) -> dict[str, str]:
    """What a viewer's list shows of a file, read without its pixels."""
    return _tags(pydicom.dcmread(path, stop_before_pixels=True, specific_tags=HEADER_TAGS))


def header_within(path: Path, head: int) -> bool:
    """Whether `header` reads only the file's first head bytes."""
    with path.open("rb") as file:
        pydicom.dcmread(file, stop_before_pixels=True, specific_tags=HEADER_TAGS)
        return file.tell() + _READ_AHEAD <= head


def _tags(dataset: FileDataset) -> dict[str, str]:
    return {tag: str(dataset.get(tag, "")) for tag in HEADER_TAGS}
