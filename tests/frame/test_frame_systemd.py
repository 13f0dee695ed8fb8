"""The units: what systemd thinks of them, and what a daemon that mounts must not ask for."""

import shutil
import subprocess
from pathlib import Path

import pytest

OWN_NAMESPACE = {
    "ProtectSystem", "ProtectHome", "ReadWritePaths", "PrivateTmp", "PrivateDevices",
    "PrivateMounts", "ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs",
    "ProtectControlGroups", "ProtectProc", "MountFlags",
}  # fmt: skip


def settings(repo: Path) -> dict[str, str]:
    lines = (repo / "systemd/hsmfs.service").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")
def test_unit_is_valid(repo: Path, tmp_path: Path) -> None:
    unit = tmp_path / "hsmfs.service"
    text = (repo / "systemd/hsmfs.service").read_text()
    unit.write_text(text.replace("/usr/bin/hsmfsd", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stderr.splitlines() if "hsmfs" in line]
    assert not ours


def test_mounts_reach_the_host(repo: Path) -> None:
    assert not OWN_NAMESPACE & set(settings(repo))


def test_clean_stop_and_watchdog(repo: Path) -> None:
    unit = settings(repo)
    assert (unit["Type"], unit["KillMode"]) == ("notify", "mixed")
    assert unit["WatchdogSec"] == "60s"
    assert "CAP_SYS_ADMIN" in unit["CapabilityBoundingSet"]
    assert "@mount" in unit["SystemCallFilter"]


def test_tmpfiles_name_the_default_folders(repo: Path) -> None:
    lines = (repo / "systemd/hsmfs.tmpfiles").read_text().splitlines()
    made = {line.split()[1] for line in lines if not line.startswith("#")}
    assert {"/run/hsmfs", "/var/lib/hsmfs"} <= made
