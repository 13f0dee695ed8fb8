"""A Samba server for tests and proofs: Debian's smbd on loopback, in one folder but its sockets.

    with Samba(folder, shares=text) as samba:
        samba.client("archive", "ls")            # smbclient
        samba.session("archive", script)         # Samba's own client library

It needs root, as every smbd that serves files as their owners, and listens on an address of its own
below 127/8, for not every client can be told a port. Users are accounts the system has; the
password is PASSWORD. Nothing of the system's Samba is read or changed.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

PASSWORD = "an archive's"
USER = "games"
"""An account of every Debian that owns nothing."""
READY_S = 60.0
_PATIENCE_S = 10.0
PORT = 445
_SESSION = Path(__file__).with_name("smb_session.py")
_GLOBAL = """\
[global]
server role = standalone server
netbios name = hsmfs
disable netbios = yes
interfaces = {address}/8
bind interfaces only = yes
smb ports = 445
private dir = {folder}/private
lock directory = {sockets}
state directory = {folder}/state
cache directory = {folder}/cache
pid directory = {folder}/pid
ncalrpc dir = {sockets}
passdb backend = tdbsam:{folder}/passdb.tdb
log file = {folder}/log/log
log level = {log_level}
max log size = 0
load printers = no
printing = bsd
disable spoolss = yes
map to guest = bad user
guest account = nobody
include = {folder}/shares.conf
"""


class SambaError(Exception):
    """smbd or a client of it failed; the text holds what it said."""


def missing() -> str | None:
    """Why no Samba can be run here, or None."""
    if os.geteuid() != 0:
        return "smbd needs root"
    programs = ("smbd", "smbclient", "pdbedit", "smbcontrol")
    lacking = [p for p in programs if not shutil.which(p)]
    if lacking:
        return f"{', '.join(lacking)} not installed: tools/test installs them"
    return None


class Samba:
    """smbd in the foreground, as a context manager.

    Attributes:
        config: its smb.conf.
        shares: the file that smb.conf includes.
        address: where it listens.
    """

    def __init__(self, folder: Path, shares: str = "", *, log_level: int = 1) -> None:
        self.folder = folder
        self.config = folder / "smb.conf"
        self.shares = folder / "shares.conf"
        self.address = _free_address()
        self.smbd: subprocess.Popen[bytes] | None = None
        for name in ("private", "state", "cache", "pid", "log"):
            (folder / name).mkdir(parents=True)
        folder.chmod(0o755)
        # Paths of sockets end after 107 bytes (unix(7)); without some of its own Samba still runs,
        # but its helpers for RPC do not always come up.
        self._sockets = Path(tempfile.mkdtemp(prefix="smb-"))
        self._sockets.chmod(0o755)
        self.shares.write_text(shares)
        values = {
            "address": self.address, "folder": folder, "sockets": self._sockets,
            "log_level": log_level,
        }  # fmt: skip
        self.config.write_text(_GLOBAL.format(**values))

    def __enter__(self) -> Self:
        self.add_user(USER)
        try:
            self.start()
        except BaseException:
            self.stop()
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.stop()
        self.remove()

    def start(self) -> None:
        """Run smbd and wait until it answers a session."""
        with (self.folder / "out").open("ab") as out:
            self.smbd = subprocess.Popen(
                ["smbd", "--foreground", "--no-process-group", f"--configfile={self.config}"],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + READY_S
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection((self.address, PORT), timeout=5).close()
                return
            if self.smbd.poll() is not None or time.monotonic() > deadline:
                raise SambaError(f"smbd is not there:\n{self.log_tail()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it with all that serve clients, and what it started for requests by RPC."""
        smbd, self.smbd = self.smbd, None
        if smbd is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(smbd.pid, signal.SIGTERM)
        try:
            smbd.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(smbd.pid, signal.SIGKILL)
            smbd.wait()
        _end_group(smbd.pid)
        if rpc := self._rpc_server():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(rpc, signal.SIGTERM)
            _end_group(rpc)

    def remove(self) -> None:
        """Take away what is not in its folder."""
        shutil.rmtree(self._sockets)

    def _rpc_server(self) -> int:
        """The process that smbd starts when a client asks for accounts or shares by RPC, or 0.

        samba-dcerpcd(8) leads a process group of its own, with its helpers, and outlives smbd.
        """
        try:
            pid = int((self.folder / "pid/samba-dcerpcd.pid").read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return 0
        return pid if os.fsencode(self.config) in words else 0

    def add_user(self, name: str) -> None:
        """A user with PASSWORD; the account must exist."""
        _run(
            ["pdbedit", f"--configfile={self.config}", "--create", "--password-from-stdin", name],
            stdin=f"{PASSWORD}\n{PASSWORD}\n",
        )

    def reload(self) -> None:
        """Read the configuration again."""
        assert self.smbd is not None
        _run(
            ["smbcontrol", f"--configfile={self.config}", str(self.smbd.pid), "reload-config"]
        )

    def client(
        self, share: str, *commands: str, user: str | None = USER, timeout_s: float = 120,
        check: bool = True,
    ) -> str:  # fmt: skip
        """What `smbclient` says to commands; user None is a guest."""
        return _run(
            [*self.client_command(share, user), "-c", "; ".join(commands)],
            timeout_s=timeout_s, check=check,
        )  # fmt: skip

    def client_command(self, share: str, user: str | None = USER) -> list[str]:
        """The words that start smbclient on a share."""
        who = ["-N"] if user is None else ["-U", f"{user}%{PASSWORD}"]
        return [
            "smbclient", f"--configfile={self.config}", f"//{self.address}/{share}", *who,
        ]  # fmt: skip

    def session(
        self, share: str, script: str, *words: str, user: str = USER, timeout_s: float = 120
    ) -> str:
        """What a script prints; in it `connect()` opens a session (smb_session.py)."""
        return _run(self.session_command(share, script, *words, user=user), timeout_s=timeout_s)

    def session_command(self, share: str, script: str, *words: str, user: str = USER) -> list[str]:
        """The words that run such a script."""
        where = [str(self.config), self.address, share, user, PASSWORD]
        return ["/usr/bin/python3", "-P", str(_SESSION), *where, script, *words]

    def log_tail(self, lines: int = 40) -> str:
        """The ends of its logs."""
        found = [self.folder / "out", *sorted((self.folder / "log").iterdir())]
        return "\n".join(
            line
            for path in found
            if path.is_file()
            for line in path.read_text(errors="replace").splitlines()[-lines:]
        )


def _run(
    words: list[str], *, stdin: str = "", timeout_s: float = 120, check: bool = True
) -> str:
    done = subprocess.run(
        words, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    said = done.stdout + done.stderr
    if check and done.returncode:
        raise SambaError(f"{words[0]} ended with {done.returncode}: {said.strip()}")
    return said


def _end_group(group: int) -> None:
    """Wait for a process group that was told to end, and kill what does not."""
    deadline = time.monotonic() + _PATIENCE_S
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.02)
        os.killpg(group, signal.SIGKILL)


def _free_address() -> str:
    """An address of this host at which nobody serves files."""
    while True:
        numbers = (random.randrange(1, 255) for _ in range(3))
        address = "127." + ".".join(map(str, numbers))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((address, PORT))
            return address
