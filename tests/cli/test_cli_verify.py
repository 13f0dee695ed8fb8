"""hsmctl verify through a daemon that dies under it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tools.lib.tempfs import TempFs

pytestmark = [pytest.mark.mount, pytest.mark.slow]


def test_a_daemon_that_dies_is_waited_for_and_goes_on(tmp_path: Path) -> None:
    with TempFs(folder=tmp_path / "fs") as fs:
        (fs.mountpoint / "a").write_bytes(b"a" * 10_000)
        fs.control("archive", "--now", "--wait", fs.mountpoint)
        fs.stop()
        fs.set_environment(HSMFS_CRASH="verify.noted")
        fs.start()
        assert fs.daemon is not None
        with subprocess.Popen(
            [*fs.control_command(), "verify", "--deep", str(fs.mountpoint)],
            env=fs.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as verify:  # fmt: skip
            fs.daemon.wait(30)
            fs.kill()
            fs.set_environment(HSMFS_CRASH="")
            fs.start()
            out, err = verify.communicate(timeout=60)
        assert b"goes on when hsmfsd is back" in err
        assert b"interrupted 1 time" in out and b"all intact" in out
        assert verify.returncode == 0
