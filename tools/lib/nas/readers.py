"""A process full of readers, a thread each: python readers.py SIZE FILE...; prints how many files
came whole."""

from __future__ import annotations

import sys
import threading
from pathlib import Path


def read_all(size: int, paths: list[str]) -> int:
    """Read them all at once; how many have the size."""
    got: list[int] = []

    def read(path: str) -> None:
        got.append(len(Path(path).read_bytes()))

    readers = [threading.Thread(target=read, args=(path,)) for path in paths]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    return sum(found == size for found in got)


if __name__ == "__main__":
    print(read_all(int(sys.argv[1]), sys.argv[2:]))
