"""hsmfs.service under the real systemd: what it hardens lets the daemon do all its work."""

from __future__ import annotations

import os
import random
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools"))

from lib.lab import READY_S
from lib.mediaacts import until
from lib.tempfs import REPOSITORY, TempFs

UNITS = Path("/run/systemd/system")
CONTENT = random.Random(5).randbytes(3_000_000)


def systemctl(*words: str) -> str:
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"systemctl {words}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def shown(name: str) -> str:
    return systemctl("show", "--value", "-p", name, "hsmfs")


@pytest.fixture
def fs(tmp_path: Path) -> Iterator[TempFs]:
    """An hsmfs that the unit runs, its program and folders apart as they are here."""
    tables = {
        "library": {"drives": 2, "disc": "32 MiB"},
        "engine": {"burn_wait": "0 s", "min_residence": "0 s"},
        "fs": {"head": 0},
    }
    fs = TempFs(tables, folder=tmp_path / "hsmfs")
    fs.lay_out()
    fs.control("init")
    start = tmp_path / "hsmfsd"
    words = shlex.join(fs.daemon_command())
    start.write_text(f"#!/bin/sh\nexport PYTHONPATH={REPOSITORY}\nexec {words}\n")
    start.chmod(0o755)
    (UNITS / "hsmfs.service").write_text((REPOSITORY / "systemd/hsmfs.service").read_text())
    changes = UNITS / "hsmfs.service.d"
    changes.mkdir(exist_ok=True)
    (changes / "lab.conf").write_text(
        "[Unit]\nDefaultDependencies=no\n[Service]\nWatchdogSec=8s\nRestartSec=100ms\n"
        f"ExecStart=\nExecStart={start}\nStandardOutput=append:{fs.log}\nStandardError=inherit\n"
    )
    systemctl("daemon-reload")
    systemctl("start", "hsmfs")
    yield fs
    print(fs.log_tail(60))


def restarted(after: Callable[[], object]) -> None:
    """The daemon dies of it, and systemd starts the next one."""
    first = shown("MainPID")
    after()
    until(
        lambda: shown("MainPID") not in ("0", first) and shown("ActiveState") == "active",
        "systemd started the daemon again", READY_S,
    )  # fmt: skip


def test_a_life_under_systemd(fs: TempFs) -> None:
    assert os.path.ismount(fs.mountpoint), "active means mounted, for everybody"
    path = fs.mountpoint / "scan.dcm"
    path.write_bytes(CONTENT)
    fs.control("archive", "--now", "--wait", path)
    fs.control("release", path)
    assert os.getxattr(path, "user.hsm.state") == b"migrated"
    assert path.read_bytes() == CONTENT

    restarted(lambda: systemctl("kill", "-s", "KILL", "hsmfs"))
    assert path.read_bytes() == CONTENT
    restarted(lambda: systemctl("kill", "-s", "STOP", "hsmfs"))  # it hangs: the watchdog's
    assert path.read_bytes() == CONTENT

    systemctl("stop", "hsmfs")
    assert (shown("ActiveState"), shown("Result")) == ("inactive", "success")
    assert not os.path.ismount(fs.mountpoint)
