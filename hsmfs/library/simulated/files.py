"""Small files that survive kill -9 and a power cut: written beside, flushed, renamed."""

from __future__ import annotations

import os
from pathlib import Path

from hsmfs import durable


def replace_text(path: Path, text: str) -> None:
    """Give the file this content, wholly or not at all, and durably."""
    beside = path.with_name(f".{path.name}.new")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.write(fd, text.encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(beside, path)
    durable.sync(path.parent)
