"""Manifests read by a process of its own, so that who uses the lines need not wait for them.

The process is this module as a program: names of manifests come on its standard input, and of each
go out its folders, lists of its lines, and an empty list. It is some lists ahead, so that a pause
of who reads does not stop it and memory does not grow; it ends with who started it.
"""

from __future__ import annotations

import marshal
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from queue import Queue
from threading import Thread
from types import TracebackType
from typing import Any

from hsmfs.disc.lines import Line, lines
from hsmfs.errors import ForeignDisc, HsmError

FEW = 500
"""Lines in one list: in hand at once they are still in the processor's cache."""
AHEAD = 64
"""Lists that wait to be read."""
_SIZE = 8
_PLAIN = 2
"""The version of marshal that looks for nothing twice."""
Manifest = tuple[dict[bytes, int], Iterator[Line]]
"""Inodes of its folders by path, and all its lines."""


class Manifests:
    """The manifests in these files, one after the other; for a `with` block.

    Blocking. Iterating raises ForeignDisc if a line is not readable, HsmError if the process ends.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._count = len(paths)
        with tempfile.TemporaryFile() as names:
            names.write(b"\0".join(map(os.fsencode, paths)))
            names.seek(0)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__], stdin=names, stdout=subprocess.PIPE
            )

    def __enter__(self) -> Manifests:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.wait()

    def __iter__(self) -> Iterator[Manifest]:
        for _ in range(self._count):
            folders = self._next()
            found = chain.from_iterable(iter(self._next, []))
            yield folders, map(Line._make, found)
            for _ in found:
                pass  # who asks for the next one does not want them

    def _next(self) -> Any:
        data = self._read(int.from_bytes(self._read(_SIZE), "little"))
        found = marshal.loads(data)
        if isinstance(found, str):
            raise ForeignDisc(found)
        return found

    def _read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        data = self._process.stdout.read(size)
        if len(data) < size:
            raise HsmError(
                f"the process that reads manifests ended with {self._process.wait()}",
                next_step="run the rebuild again: it goes on; if it is killed, give it more memory",
            )
        return data


def _tell(manifest: Path) -> Iterator[Any]:
    """What is told of a manifest."""
    try:
        yield {line.names[0]: line.ino for line in lines(manifest, folders=True) if line.names}
        found = map(tuple, lines(manifest))
        while some := list(islice(found, FEW)):
            yield some
        yield []
    except ForeignDisc as fault:
        yield fault.message


def _write(queue: Queue[bytes]) -> None:
    """Write out what comes until it is empty bytes."""
    out = sys.stdout.buffer
    while data := queue.get():
        out.write(len(data).to_bytes(_SIZE, "little"))
        out.write(data)
    out.flush()


def main() -> None:
    """The process."""
    for number in (signal.SIGPIPE, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    queue = Queue[bytes](AHEAD)
    writer = Thread(target=_write, args=(queue,))
    writer.start()
    for name in filter(None, sys.stdin.buffer.read().split(b"\0")):
        for told in _tell(Path(os.fsdecode(name))):
            queue.put(marshal.dumps(told, _PLAIN))
    queue.put(b"")
    writer.join()


if __name__ == "__main__":
    main()
