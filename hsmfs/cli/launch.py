"""Starting hsmfsd in the background and waiting until it is ready, or until it says why not.

The daemon tells by sd_notify(3), as it tells systemd: READY=1 comes after the mount and the API
are up, so that what follows `hsmctl mount` or a mount unit finds the files.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import hsmfs

from ..errors import HsmError

LOG = "hsmfsd.log"


class StartFailed(HsmError):
    """hsmfsd ended before it was ready, with its message and exit code."""

    def __init__(self, message: str, next_step: str, code: int) -> None:
        super().__init__(message, next_step=next_step)
        self.exit_code = code  # type: ignore[misc]


def start(config: Path, state: Path, patience: float) -> int:
    """Start the daemon; returns its process id when the mount answers.

    Raises StartFailed with what the daemon said, or if it is not ready after patience seconds; it
    is left to go on then, as a large catalog may need its time.
    """
    log = state / LOG
    folder = str(Path(hsmfs.__file__).parents[1])
    search = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryDirectory(prefix="hsmctl-") as scratch:
        address = f"{scratch}/ready"
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear,
            log.open("ab") as out,
        ):
            ear.bind(address)
            begun = out.tell()
            daemon = subprocess.Popen(
                [sys.executable, "-m", "hsmfs.daemon", "--config", str(config.absolute())],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd="/",
                start_new_session=True,
                env={**os.environ, "NOTIFY_SOCKET": address, "PYTHONPATH": search},
            )  # fmt: skip
            if _heard_ready(ear, daemon, patience):
                return daemon.pid
        if daemon.poll() is None:
            raise StartFailed(
                f"hsmfsd (process {daemon.pid}) is not ready after {patience:g} s and goes on",
                f"see {log}", 17,
            )  # fmt: skip
        message, step = _last_words(log, begun)
        raise StartFailed(message, step or f"see {log}", daemon.returncode or 1)


def _heard_ready(
    ear: socket.socket, daemon: subprocess.Popen[bytes], patience: float
) -> bool:
    deadline = time.monotonic() + patience
    ended = os.pidfd_open(daemon.pid)
    poll = select.poll()
    poll.register(ear, select.POLLIN)
    poll.register(ended, select.POLLIN)
    try:
        while (left := deadline - time.monotonic()) > 0:
            for fd, _ in poll.poll(left * 1000):
                if fd == ear.fileno():
                    if b"READY=1" in ear.recv(4096):
                        return True
                else:
                    daemon.wait()
                    return False
        return False
    finally:
        os.close(ended)


def _last_words(log: Path, begun: int) -> tuple[str, str]:
    """What the daemon printed last, and its next step."""
    with log.open("rb") as file:
        file.seek(begun)
        lines = file.read().decode("utf-8", "replace").splitlines()
    said = [line.removeprefix("hsmfsd: ") for line in lines if line.startswith("hsmfsd: ")]
    steps = [line.removeprefix("next: ") for line in said if line.startswith("next: ")]
    causes = [line for line in said if not line.startswith("next: ")]
    if not causes:
        causes = lines[-3:] or ["hsmfsd ended without a word"]
    return "\n".join(causes), steps[-1] if steps else ""


def wait_for_end(pid: int, patience: float) -> bool:
    """Wait until a process has ended; False if it has not after patience seconds."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(patience * 1000))
    finally:
        os.close(fd)
