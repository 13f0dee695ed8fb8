"""A client at work: writes files and says what was acknowledged, until it is told to stop.

    python load.py FOLDER JOURNAL STOP [--smb]

FOLDER lies on a mount of a share; JOURNAL gets a line of JSON for each act that was acknowledged,
or failed; it ends when the file STOP is there. `judge` compares what the journal says with the
files. One file stays open all the time, as a database's would. By SMB, where a server's death is an
error to its clients, a name that is not found is one, too, and the file is opened anew after it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

RECORD = 4096
RECORDS = 64
SIZES = (1, 5000, 70_000, 400_000)
OPEN = "open.db"
PAUSE_S = 0.2
"""After an error, before the next try."""


def work(folder: Path, journal: Path, stop: Path, *, smb: bool) -> None:
    """Write, sync, rename and read back, until told to stop."""
    random.seed(str(folder))
    with journal.open("a", buffering=1) as out:

        def say(**line: object) -> None:
            out.write(json.dumps(line) + "\n")

        held, number = -1, 0
        while held < 0:
            try:
                held = os.open(folder / OPEN, os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as fault:
                if not smb:
                    raise
                say(kind="error", act="open", errno=fault.errno, number=number)
                time.sleep(PAUSE_S)
        while not stop.exists():
            number += 1
            for act in (_file, _record):
                began = time.monotonic()
                try:
                    act(folder, held, number, say, smb=smb)
                except OSError as fault:
                    say(kind="error", act=act.__name__, errno=fault.errno, number=number)
                    if smb:
                        time.sleep(PAUSE_S)
                        held = _anew(folder, held)
                say(kind="act", seconds=round(time.monotonic() - began, 3))
        os.close(held)


def _anew(folder: Path, held: int) -> int:
    """The open file once more, if it can be had."""
    try:
        fd = os.open(folder / OPEN, os.O_RDWR)
    except OSError:
        return held
    with contextlib.suppress(OSError):  # what it could not write was never acknowledged
        os.close(held)
    return fd


def _file(folder: Path, held: int, number: int, say, *, smb: bool) -> None:
    """A whole file by save-and-rename; acknowledged when close returns, durable after fsync."""
    data = random.randbytes(SIZES[number % len(SIZES)])
    name, new = f"{number:06}", folder / f".{number:06}.new"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        _all(os.write(fd, data), data)
        os.fsync(fd)
    finally:
        os.close(fd)
    try:
        os.rename(new, folder / name)
    except FileNotFoundError:
        if smb:
            raise  # it may be the folder below the mount that was looked into
        # Done, but the answer was lost with the server and the client asked once more.
        say(kind="twice", name=name)
    say(kind="file", name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    found = whole(folder / name)
    if found != data:
        say(kind="wrong", name=name, how=_difference(found, data))


def _all(written: int, data: bytes) -> None:
    """A write that took a part ended with an error, which the next one would tell."""
    if written != len(data):
        raise OSError(errno.EAGAIN, f"{written} bytes of {len(data)} written")


def whole(path: Path | int) -> bytes:
    """What a file, or an open one, holds. Raises OSError.

    `Path.read_bytes` takes EAGAIN for the end of what is there now, and Linux' SMB client says so
    when its server's disk does not answer (fs/smb/client/smb2maperror.c, STATUS_IO_TIMEOUT).
    """
    fd = path if isinstance(path, int) else os.open(path, os.O_RDONLY)
    try:
        return b"".join(iter(lambda: os.read(fd, 1 << 20), b""))
    finally:
        if fd is not path:
            os.close(fd)


def _difference(found: bytes, data: bytes) -> str:
    """Where bytes differ from what they should be."""
    places = [at for at, (one, other) in enumerate(zip(found, data, strict=False)) if one != other]
    where = f"{len(places)} differ, from {places[0]} to {places[-1]}" if places else "none differs"
    zeros = sum(not found[at] for at in places)
    return f"{len(found)} bytes of {len(data)}; {where}, {zeros} are zeros"


def _record(folder: Path, held: int, number: int, say, *, smb: bool) -> None:
    """A record of the file that stays open."""
    data = random.randbytes(RECORD)
    place = number % RECORDS
    say(kind="begin", place=place, sha256=hashlib.sha256(data).hexdigest())
    _all(os.pwrite(held, data, place * RECORD), data)
    os.fsync(held)
    say(kind="record", place=place, sha256=hashlib.sha256(data).hexdigest())


@dataclass
class Verdict:
    """What a journal says, compared with the files.

    Attributes:
        files, records: acknowledged ones.
        lost: those of which the files say something else.
        errors: by errno's name.
        twice: renames that were done before the answer was lost.
        pause_s: the longest act.
    """

    files: int = 0
    records: int = 0
    lost: list[str] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    pause_s: float = 0.0
    twice: int = 0


def judge(folder: Path, journal: Path) -> Verdict:
    """Read every file and record that was acknowledged."""
    found = Verdict()
    begun: dict[int, list[str]] = {}
    for line in map(json.loads, journal.read_text().splitlines()):
        match line["kind"]:
            case "file":
                found.files += 1
                if _digest(folder / line["name"]) != line["sha256"]:
                    found.lost.append(line["name"])
            case "begin":
                begun.setdefault(line["place"], list(_NOTHING)).append(line["sha256"])
            case "record":
                found.records += 1
                begun[line["place"]] = [line["sha256"]]
            case "error":
                found.errors[errno.errorcode[line["errno"]]] += 1
            case "wrong":
                found.lost.append(f"{line['name']} (read back at once: {line['how']})")
            case "twice":
                found.twice += 1
            case "act":
                found.pause_s = max(found.pause_s, line["seconds"])
    data = whole(folder / OPEN)
    for place, digests in begun.items():
        record = data[place * RECORD : (place + 1) * RECORD]
        # A write that was never acknowledged may be there or not, as the one before it.
        if hashlib.sha256(record).hexdigest() not in digests:
            found.lost.append(f"record {place}")
    return found


_NOTHING = tuple(hashlib.sha256(data).hexdigest() for data in (b"", bytes(RECORD)))
"""What is in the place of a record before the first was acknowledged there."""


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(whole(path)).hexdigest()
    except OSError as fault:
        return str(fault)


if __name__ == "__main__":
    work(*map(Path, sys.argv[1:4]), smb="--smb" in sys.argv)
