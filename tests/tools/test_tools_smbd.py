"""The Samba of tests and proofs ends with all that it started."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tools.lib import smbd
from tools.lib.nas.nfs import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.skipif(smbd.missing() is not None, reason=f"{smbd.missing()}"),
]


def running(server: smbd.Samba) -> set[str]:
    """The programs that have its configuration."""
    found = set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(server.config) in words:
                found.add(Path(os.fsdecode(words.split(b"\0", 1)[0])).name)
    return found


def test_what_it_starts_for_rpc_does_not_outlive_it(tmp_path: Path) -> None:
    far = tmp_path / ("smb" * 20)  # paths of sockets have 107 bytes
    with smbd.Samba(far) as server:
        words = [
            "rpcclient", f"--configfile={server.config}", f"-U{smbd.USER}%{smbd.PASSWORD}",
            server.address, "-c", "lsaquery",
        ]  # fmt: skip

        def ask() -> subprocess.CompletedProcess[str]:
            return subprocess.run(words, check=False, capture_output=True, text=True)

        try:  # smbd gives up on a helper that starts slowly
            until(lambda: ask().returncode == 0, "the accounts are told")
        except TimeoutError as late:
            last = ask()
            raise AssertionError(f"{last.stdout}{last.stderr}\n{server.log_tail()}") from late
        assert {"samba-dcerpcd", "rpcd_lsad"} <= running(server)
    assert running(server) == set()
