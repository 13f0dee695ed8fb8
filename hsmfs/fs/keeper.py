"""Keeps the kernel's connection alive after the daemon died, so that NFS clients wait for the next.

A process of its own, started beside a mount that nfsd exports; it holds the same descriptor and
sleeps. When the daemon is gone it answers every request with ETIMEDOUT, also those that the daemon
had taken and not answered: nfsd makes of it "try again later" (NFS3ERR_JUKEBOX, NFS4ERR_DELAY).
A connection that broke instead would give clients EIO, or ESTALE for files they have open, which
Linux never forgets. It ends when the superblock is gone, which the next daemon sees to.

Only the standard library, and nothing of hsmfs: it is run by its path. The messages are those of
linux/fuse.h; that a reply to no request is refused with ENOENT is fs/fuse/dev.c,
fuse_dev_do_write; that request numbers grow by two is fuse_get_unique there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import struct
import sys
import threading
import time

KEEP_SECONDS = 600.0
"""So long clients wait for a new daemon before they get errors."""
SWEEP = 1 << 20
"""How many numbers back from the newest an unanswered request is looked for."""
_STEP = 256
_BUFFER = (1 << 20) + 65536
_IN = struct.Struct("=IIQ")
"""struct fuse_in_header: length, opcode, unique."""
_OUT = struct.Struct("=IiQ")
"""struct fuse_out_header: length, error, unique."""
_FORGET, _INTERRUPT, _BATCH_FORGET = 2, 36, 42
_UNIQUE_STEP = 2


def keep(fuse: int, daemon: int, mountpoint: str) -> None:
    """Sleep until the pipe `daemon` closes, then answer until the superblock is gone."""
    os.read(daemon, 1)
    os.set_blocking(fuse, False)
    # Requests that nobody will answer are found by their numbers: so one is asked for.
    threading.Thread(target=_ask, args=(mountpoint,), daemon=True).start()
    newest, left = 0, 0
    ends = time.monotonic() + KEEP_SECONDS
    with contextlib.suppress(OSError):
        while (patience := ends - time.monotonic()) > 0:
            for _ in range(min(left, _STEP)):
                _answer(fuse, newest - left * _UNIQUE_STEP)
                left -= 1
            if select.select((fuse,), (), (), 0 if left else patience)[0]:
                while number := _serve(fuse):
                    if not newest:
                        newest = number
                        left = min(SWEEP, number // _UNIQUE_STEP - 1)


def _serve(fuse: int) -> int:
    """Answer the next request, if there is one; its number. Raises OSError ENODEV at the end."""
    try:
        request = os.read(fuse, _BUFFER)
    except (BlockingIOError, InterruptedError):
        return 0
    except OSError as fault:
        if fault.errno == errno.ENOENT:  # it was withdrawn meanwhile
            return 0
        raise
    _, opcode, unique = _IN.unpack_from(request)
    if opcode == _INTERRUPT:  # it bears the number of another request
        return 0
    if opcode not in (_FORGET, _BATCH_FORGET):
        _answer(fuse, unique)
    return int(unique)


def _answer(fuse: int, unique: int) -> None:
    try:
        os.write(fuse, _OUT.pack(_OUT.size, -errno.ETIMEDOUT, unique))
    except OSError as fault:
        if fault.errno not in (errno.ENOENT, errno.EINVAL):
            raise


def _ask(mountpoint: str) -> None:
    with contextlib.suppress(OSError):
        os.statvfs(mountpoint)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    keep(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
