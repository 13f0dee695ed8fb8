"""A simulated virus scanner: reads every file of a tree whole, over and over, in many threads.

    scanner.py NAME UID THREADS READS FOLDER

It goes by NAME as a process and acts as the user UID. It ends when it began READS files, or when
it is killed; each file that it is done with is a byte on standard output: '.' read, 'x' refused.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
import threading
from pathlib import Path

PR_SET_NAME = 15
BLOCK = 1 << 16


def scan(paths: itertools.cycle[Path], left: itertools.repeat[None], lock: threading.Lock) -> None:
    """One thread."""
    while True:
        with lock:
            if next(left, StopIteration) is StopIteration:
                return
            path = next(paths)
        try:
            with path.open("rb", buffering=0) as file:
                while file.read(BLOCK):
                    pass
            os.write(1, b".")
        except OSError:
            os.write(1, b"x")


def main() -> None:
    """The program."""
    name, uid, threads, reads, folder = sys.argv[1:]
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode(), 0, 0, 0)
    os.setgid(int(uid))
    os.setuid(int(uid))
    paths, left, lock = itertools.cycle(files), itertools.repeat(None, int(reads)), threading.Lock()
    workers = [
        threading.Thread(target=scan, args=(paths, left, lock)) for _ in range(int(threads))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main()
