"""A temporary hsmfs on a simulated library, for the demo, the proofs, the suites and the tests.

TempFs makes a folder with a configuration, a pool, a state and a library, runs `hsmfsd` on it, and
leaves nothing mounted, running or lying about afterwards, however the block that uses it ends.
It starts whatever hsmfs this source tree holds; it needs root or a usable /dev/fuse.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

REPOSITORY = Path(__file__).resolve().parents[2]

Value = str | int | float | bool | Path
Tables = Mapping[str, Mapping[str, Value]]

_ENTRY = "import sys; sys.argv[0] = {name!r}; from {module} import main; sys.exit(main())"
_DAEMON = _ENTRY.format(name="hsmfsd", module="hsmfs.daemon")
_CONTROL = _ENTRY.format(name="hsmctl", module="hsmfs.cli.main")
_POLL_S = 0.02


class TempFsError(Exception):
    """hsmfs could not be started, stopped or asked; the text holds the end of its log."""


def interpreter() -> Path:
    """The Python that has hsmfs's dependencies: the running one, else the tree's own venv."""
    if importlib.util.find_spec("pyfuse3"):
        return Path(sys.executable)
    own = REPOSITORY / ".venv/bin/python"
    if own.exists():
        return own
    raise TempFsError(f"neither {sys.executable} nor {own} has pyfuse3; run tools/demo first")


class TempFs:
    """A mounted hsmfs in a folder of its own, as a context manager.

    `tables` changes the configuration, by table and key ({"library": {"drives": 2}}); `fast_tier`
    puts a pool of the fast tier before the one of the disk tier. `folder`
    is used and kept if given; else one is made and removed again, unless `keep` is set. Between
    `kill()` and `start()` the same hsmfs is restarted, which is what crash tests want.
    """

    def __init__(
        self, tables: Tables | None = None, *, folder: Path | None = None, keep: bool = False,
        python: Path | None = None, environment: Mapping[str, str] | None = None,
        ready_s: float = 30.0, stop_s: float = 60.0, fast_tier: bool = False,
        daemon_options: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self._tables = tables or {}
        self._fast_tier = fast_tier
        self._daemon_options = daemon_options
        self._remove = folder is None and not keep
        self._python = python or interpreter()
        self._environment = dict(environment or {})
        self._ready_s = ready_s
        self._stop_s = stop_s
        self.folder = folder or Path(tempfile.mkdtemp(prefix="hsmfs-"))
        self.mountpoint = self.folder / "mnt"
        self.socket = self.folder / "hsmfs.sock"
        self.pool = self.folder / "pool"
        self.config = self.folder / "hsmfs.toml"
        self.log = self.folder / "hsmfsd.log"
        self.daemon: subprocess.Popen[bytes] | None = None
        self._device: int | None = None

    def __enter__(self) -> Self:
        try:
            self.lay_out()
            self.control("init")
            self.start()
        except BaseException:
            self._clean_up()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        try:
            if kind is None and self.daemon is not None:
                self.stop()
        finally:
            self._clean_up()

    def start(self) -> None:
        """Run the daemon and wait until the mount is there and the API answers."""
        with self.log.open("ab") as log:
            self.daemon = subprocess.Popen(
                self.daemon_command(),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment(),
                cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + self._ready_s
        while not (os.path.ismount(self.mountpoint) and self._api_answers()):
            if self.daemon.poll() is not None:
                raise TempFsError(f"hsmfsd ended with {self.daemon.returncode}:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise TempFsError(f"hsmfsd not ready in {self._ready_s:g} s:\n{self.log_tail()}")
            time.sleep(_POLL_S)
        self._device = os.minor(os.stat(self.mountpoint).st_dev)

    def stop(self) -> None:
        """Ask the daemon to end and wait for it; an unclean end raises TempFsError."""
        if self.daemon is None:
            return
        daemon, self.daemon = self.daemon, None
        daemon.terminate()
        try:
            status = daemon.wait(self._stop_s)
        except subprocess.TimeoutExpired:
            self.daemon = daemon
            self.kill()
            raise TempFsError(
                f"hsmfsd did not stop in {self._stop_s:g} s:\n{self.log_tail()}"
            ) from None
        if status != 0:
            raise TempFsError(f"hsmfsd ended with {status}:\n{self.log_tail()}")
        if os.path.ismount(self.mountpoint):
            raise TempFsError(f"hsmfsd ended and left {self.mountpoint} mounted")

    def crash(self) -> None:
        """SIGKILL the daemon and leave its mount as it is, for the next one to find."""
        daemon, self.daemon = self.daemon, None
        if daemon is not None:
            daemon.send_signal(signal.SIGKILL)
            daemon.wait(30)

    def kill(self) -> None:
        """SIGKILL the daemon and take the dead mount away, as a crash and a reboot would."""
        daemon, self.daemon = self.daemon, None
        if daemon is not None:
            daemon.send_signal(signal.SIGKILL)
            try:
                daemon.wait(5)
            except subprocess.TimeoutExpired:
                self._abort_connection()  # it waits in the kernel for an answer of its own
                daemon.wait(30)
        self._unmount()

    def reconfigure(self, tables: Tables) -> None:
        """Other changes to the configuration, for the next start."""
        self._tables = tables
        self.lay_out()

    def control(
        self, *arguments: str | Path, timeout_s: float = 120.0, check: bool = True
    ) -> str:
        """The output of `hsmctl ARGUMENTS`; raises TempFsError with its message if it fails.

        Without `check` only a silent failure raises: fsck prints its findings and exits non-zero.
        """
        done = subprocess.run(
            [*self.control_command(), *map(str, arguments)], env=self.environment(),
            capture_output=True, timeout=timeout_s, check=False,
        )  # fmt: skip
        if done.returncode != 0 and (check or not done.stdout):
            words = shlex.join(map(str, arguments))
            message = done.stderr.decode(errors="replace").strip()
            raise TempFsError(f"hsmctl {words}: exit status {done.returncode}: {message}")
        return done.stdout.decode(errors="replace")

    def ask(self, *arguments: str | Path, timeout_s: float = 120.0, check: bool = True) -> Any:
        """What `hsmctl --json ARGUMENTS` answers, decoded."""
        return json.loads(self.control("--json", *arguments, timeout_s=timeout_s, check=check))

    def set_environment(self, **variables: str) -> None:
        """Variables for the processes started from now on; an empty one is taken away."""
        self._environment.update(variables)

    def control_command(self) -> list[str]:
        """The words that start `hsmctl` for this hsmfs."""
        return [str(self._python), "-c", _CONTROL, "--config", str(self.config)]

    def daemon_command(self) -> list[str]:
        """The words that start `hsmfsd` for this hsmfs."""
        return [
            str(self._python), "-c", _DAEMON, "--config", str(self.config), *self._daemon_options
        ]  # fmt: skip

    def log_tail(self, lines: int = 30) -> str:
        """The end of the daemon's log."""
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def environment(self) -> dict[str, str]:
        """The environment in which `control_command` finds this source tree."""
        whole = {**os.environ, "PYTHONPATH": str(REPOSITORY), **self._environment}
        return {name: value for name, value in whole.items() if value}

    def lay_out(self) -> None:
        """Make the folders and the configuration, without starting anything."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)  # other users must reach the mount below it
        for name in ("mnt", "fast", "pool", "state", "library", "spool"):
            (self.folder / name).mkdir(exist_ok=True)
        fast = {"name": "fast", "path": self.folder / "fast", "tier": "fast"}
        text = _toml({"pool": fast}) if self._fast_tier else ""
        self.config.write_text(text + _toml(self._settings()), encoding="utf-8")

    def _settings(self) -> dict[str, dict[str, Value]]:
        """The configuration: small discs and a robot that needs no time, unless told otherwise."""
        settings: dict[str, dict[str, Value]] = {
            "daemon": {
                "mountpoint": self.mountpoint, "state": self.folder / "state",
                "socket": self.socket,
            },
            "pool": {"name": "pool", "path": self.pool, "tier": "disk"},
            "library": {
                "kind": "simulated", "path": self.folder / "library", "drives": 2,
                "magazines": 4, "disc": "64 MiB", "exchange": "0 s", "load": "0 s",
                "seek": "0 s", "read_rate": "10 GB/s", "write_rate": "10 GB/s",
            },
            "engine": {
                "spool": self.folder / "spool", "spool_limit": "1 GiB", "burn_wait": "0 s",
                "min_residence": "0 s",
            },
            "guard": {"mode": "off"},  # what uses this reads as fast as it can
        }  # fmt: skip
        for table, keys in self._tables.items():
            settings.setdefault(table, {}).update(keys)
        return settings

    def _api_answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.settimeout(5)
                client.connect(str(self.socket))
                client.sendall(b"GET / HTTP/1.1\r\nHost: hsmfs\r\nConnection: close\r\n\r\n")
                return client.recv(8).startswith(b"HTTP/")
        except OSError:
            return False

    def _abort_connection(self) -> None:
        """Break the FUSE connection, which is all that helps a daemon the kernel holds."""
        if self._device is not None:
            abort = Path(f"/sys/fs/fuse/connections/{self._device}/abort")
            if abort.exists():
                abort.write_text("1")

    def _unmount(self) -> None:
        while str(self.mountpoint) in _mounts():
            subprocess.run(["umount", "--lazy", str(self.mountpoint)], check=True)

    def _clean_up(self) -> None:
        self.kill()
        if self._remove:
            shutil.rmtree(self.folder)


def _mounts() -> set[str]:
    """Mountpoints as the kernel lists them; asking the mount itself would fail on a dead one."""
    lines = Path("/proc/self/mounts").read_text(errors="surrogateescape").splitlines()
    return {line.split()[1].encode().decode("unicode_escape") for line in lines}


def _toml(settings: Mapping[str, Mapping[str, Value]]) -> str:
    lines: list[str] = []
    for table, keys in settings.items():
        header = f"[[{table}]]" if table == "pool" else f"[{table}]"  # there may be several pools
        lines += [header, *(f"{key} = {_literal(value)}" for key, value in keys.items()), ""]
    return "\n".join(lines)


def _literal(value: Value) -> str:
    """A TOML literal; JSON's strings, numbers and booleans are TOML's too."""
    return json.dumps(str(value) if isinstance(value, Path) else value)
