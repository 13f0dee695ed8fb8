"""Oplocks, leases, byte-range locks, durable handles and streams are those of a plain folder.

Samba's own tests of the protocol run on the mount and on a folder of the host: what the host's
filesystem gives, the mount gives.
"""

import re
import subprocess
from pathlib import Path

import pytest

from hsmfs.shares import smb
from tools.lib.smbd import PASSWORD, USER

pytestmark = [pytest.mark.mount, pytest.mark.slow]
SUITES = {
    "locks": (("smb2.lock",), 20),
    "oplocks": (("smb2.oplock.exclusive1", "smb2.oplock.batch1", "smb2.oplock.doc"), 3),
    "leases": (("smb2.lease.request", "smb2.lease.upgrade", "smb2.lease.v2_epoch1"), 3),
    "durable": (("smb2.durable-open",), 18),
    "durable-v2": (("smb2.durable-v2-open",), 14),
    "streams": (("smb2.streams", "smb2.read"), 14),
}
"""Which tests of smbtorture, and how many of them a folder of the host passes at least."""


@pytest.fixture(scope="module")
def plain(nas):
    """The same share of a folder of the host."""
    folder: Path = nas.fs.folder / "plain"
    folder.mkdir()
    folder.chmod(0o777)
    smb.add("plain", folder, Path("/"))


def results(nas, share, tests):
    """Of smbtorture, by test."""
    words = [
        "smbtorture", f"--configfile={nas.samba.config}", f"//{nas.samba.address}/{share}",
        f"-U{USER}%{PASSWORD}", *tests,
    ]  # fmt: skip
    text = subprocess.run(words, capture_output=True, text=True, timeout=110, check=False).stdout
    found = re.findall(r"^(success|failure|error|skip): (\S+)", text, re.MULTILINE)
    return {test: result for result, test in found}


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("suite", SUITES)
def test_the_mount_gives_what_the_host_gives(nas, suite):
    tests, at_least = SUITES[suite]
    here, there = (results(nas, share, tests) for share in ("archive", "plain"))
    passed = {test for test, result in there.items() if result == "success"}
    assert len(passed) >= at_least
    worse = {test: here.get(test) for test in passed if here.get(test) != "success"}
    assert not worse
