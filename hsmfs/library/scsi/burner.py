"""Burning one image by a stock program: growisofs, or xorriso for drives that burn disc-at-once.

The image goes to the program through a pipe, so progress is what it has taken, and a cancelled
burn ends at once. A program never outlives the thread that started it: a daemon that is killed
leaves no burner behind that holds the drive.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from hsmfs.errors import ConfigError
from hsmfs.library.scsi.config import Burner
from hsmfs.types import SECTOR

STEP = 1024 * 1024
"""Bytes between two reports of progress."""
_F_SETPIPE_SZ = 1031
END_WAIT_S = 3600.0
"""How long a drive may take to close a disc after the last byte."""
KILL_WAIT_S = 60.0
_COMPLAINT = re.compile(r"^:-[(\[]|FATAL| : (?:SORRY|FAILURE) : ")
"""How growisofs and xorriso mark a line that says what is wrong."""
_IN_ALL = "Job could not be performed properly"
"""What xorriso says after all of them."""


class BurnFailed(Exception):
    """The program failed; the text is its last word."""


PACKAGES: dict[Burner, str] = {"growisofs": "dvd+rw-tools", "xorriso": "xorriso"}
"""Where the programs are, in Debian's words."""


def check(burner: Burner) -> None:
    """See that the program is there before a disc is spoiled for want of it. Raises ConfigError."""
    for program, package in ((burner, PACKAGES[burner]), ("setpriv", "util-linux")):
        if shutil.which(program) is None:
            raise ConfigError(
                f"library: burning needs the program {program}",
                next_step=f"install the package {package}",
            )


def command(burner: Burner, device: Path, size: int) -> list[str]:
    """The words that burn what comes on standard input, size bytes, and close the disc.

    setpriv ends the program with the thread that started it.
    """
    words = ["setpriv", "--pdeathsig", "KILL"]
    if burner == "growisofs":
        luke = f"notray,tty,bufsize=32m,tracksize={size // SECTOR}"
        return [*words, "growisofs", f"-use-the-force-luke={luke}", "-dvd-compat",
                "-Z", f"{device}=/dev/fd/0"]  # fmt: skip
    return [*words, "xorriso", "-as", "cdrecord", "-v", f"dev={device}", "-dao",
            "stream_recording=on", f"tsize={size // SECTOR}s", "-"]  # fmt: skip


def burn(
    words: Sequence[str], image: IO[bytes], size: int, progress: Callable[[int], None]
) -> None:
    """Feed the image to the program and wait until the disc is closed; blocking.

    progress is called with the bytes that the program has taken; what it raises ends the burn.
    Raises BurnFailed.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=log, stderr=log)
        try:
            taken = _feed(process, image, size, progress)
            _end(process, progress, taken)
        except BaseException:
            _kill(process)
            raise
        if process.returncode != 0 or taken < size:
            raise BurnFailed(_last_word(log) or f"exit status {process.returncode}")


def _feed(
    process: subprocess.Popen[bytes], image: IO[bytes], size: int, progress: Callable[[int], None]
) -> int:
    """Pass the image on without copying it; returns the bytes that were taken."""
    assert process.stdin is not None
    taken = 0
    with process.stdin as pipe:
        fcntl.fcntl(pipe, _F_SETPIPE_SZ, STEP)
        try:
            while taken < size:
                passed = os.splice(image.fileno(), pipe.fileno(), min(STEP, size - taken), taken)
                if not passed:
                    break
                taken += passed
                progress(taken)
        except BrokenPipeError:
            return 0
    return taken


def _end(process: subprocess.Popen[bytes], progress: Callable[[int], None], taken: int) -> None:
    """Wait for the end, open to a cancellation."""
    deadline = time.monotonic() + END_WAIT_S
    while True:
        try:
            process.wait(1.0)
            return
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                raise BurnFailed(f"not ended {END_WAIT_S:.0f} s after the last byte") from None
            progress(taken)


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    try:
        process.wait(KILL_WAIT_S)
    except subprocess.TimeoutExpired:
        return  # the kernel holds it until its drive answers; the drive stays busy so long


def _last_word(log: IO[bytes]) -> str:
    """What the program complained of: its marked lines, else the last one."""
    log.seek(0)
    lines = [
        line.strip()
        for line in re.split(r"[\r\n]+", log.read().decode(errors="replace"))
        if line.strip()
    ]
    marked = [line for line in lines if _COMPLAINT.search(line) and _IN_ALL not in line]
    return "; ".join((marked or lines)[-2:])
