"""The guard and the list of waiters on a real mount with a drive that never gets ready."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from hsmfs.engine.processes import killed
from hsmfs.engine.waiters import POLL_SECONDS
from tools.lib.tempfs import TempFs

pytestmark = [pytest.mark.mount, pytest.mark.slow]

FILES = 8
SIZE = 200_000
READ = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0)  # PR_SET_NAME
found = 0
for path in sys.argv[2:]:
    try:
        with open(path, "rb") as file:
            while file.read(1 << 16):
                pass
    except OSError as fault:
        found = fault.errno
sys.exit(found)
"""


@pytest.fixture(scope="module")
def fs(tmp_path_factory):
    tables = {
        "library": {"drives": 2, "load": "600 s"},
        "guard": {"mode": "on"},
        "fs": {"wait_limit": "5 min"},
        "engine": {"recall_drives": 0},
    }
    folder = tmp_path_factory.mktemp("guard") / "fs"
    with TempFs({"guard": {"mode": "on"}}, folder=folder) as fs:
        for number in range(FILES):
            (fs.mountpoint / f"{number}").write_bytes(os.urandom(SIZE))
        fs.control("archive", "--now", "--wait", fs.mountpoint)
        fs.control("release", fs.mountpoint)
        fs.stop()
        fs.reconfigure(tables)
        fs.start()
        yield fs


def reader(fs, name, *paths):
    return subprocess.Popen([sys.executable, "-c", READ, name, *map(str, paths)])


def waits(fs, count=1):
    deadline = time.monotonic() + 20
    while len(found := fs.ask("waiters")) != count:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def test_metadata_never_recalls(fs):
    paths = [fs.mountpoint / f"{n}" for n in range(FILES)]
    subprocess.run(["ls", "-lRa", fs.mountpoint], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["find", fs.mountpoint, "-size", "+1k"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["du", "-s", fs.mountpoint], check=True, stdout=subprocess.DEVNULL)
    for path in paths:
        os.setxattr(path, "user.note", b"1")
        os.chmod(path, 0o600)
        os.utime(path)
        os.rename(path, f"{path}-moved")
        os.rename(f"{path}-moved", path)
        os.link(path, f"{path}-link")
        os.unlink(f"{path}-link")
        assert os.getxattr(path, "user.hsm.state") == b"migrated"
        with path.open("rb", buffering=0) as file:
            assert len(file.read(4096)) == 4096, "the head"
    assert fs.ask("queue")["recalls"] == [] and fs.ask("waiters") == []


def test_scanners_and_previews_are_refused_at_once(fs):
    every = [fs.mountpoint / f"{n}" for n in range(FILES)]
    for name in ("clamscan", "tumblerd", "restic"):
        assert reader(fs, name, *every).wait(20) == errno.EACCES
    assert fs.ask("queue")["recalls"] == []
    found = {r["process"]: r for r in fs.ask("guard", "report")}
    assert {name: r["files"] for name, r in found.items()} == dict.fromkeys(
        ("clamscan", "tumblerd", "restic"), FILES
    )
    assert "clamscan" in fs.control("guard", "report")


def test_a_killed_reader_of_a_stuck_drive_ends(fs):
    with reader(fs, "patient", fs.mountpoint / "0") as child:
        (view,) = waits(fs)
        assert (view["pid"], view["process"], view["via"]) == (child.pid, "patient", "local")
        assert (view["start"], view["path"]) == (65536, "/0")
        assert view["volume"] and view["state"] in ("queued", "mounting")
        assert "patient" in fs.control("waiters")
        child.send_signal(signal.SIGKILL)
        while killed(child.pid) is False:
            time.sleep(0.001)
        assert child.wait(10) == -signal.SIGKILL, "the drive is stuck for longer"
    waits(fs, 0)
    deadline = time.monotonic() + 10
    while fs.ask("queue")["recalls"]:
        assert time.monotonic() < deadline, "nobody waits, and the disc is not being read"
        time.sleep(0.05)


def test_a_file_that_was_handed_over_is_waited_for_until_its_reader_is_killed(fs):
    """The one who opened it is gone; its child reads."""
    code = (
        "import os, sys, time\nfd = os.open(sys.argv[1], os.O_RDONLY)\nos.pread(fd, 10, 0)\n"
        "if os.fork(): os._exit(0)\n"
        "print(os.getpid(), flush=True)\nos.pread(fd, 10, 100_000)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, fs.mountpoint / "1"],
                             stdout=subprocess.PIPE)  # fmt: skip
    pid = int(child.stdout.readline())
    assert child.wait(10) == 0
    waits(fs)
    began = time.monotonic()
    while time.monotonic() - began < 3 * POLL_SECONDS:
        assert len(fs.ask("waiters")) == 1, "it was given up although its reader lives"
    os.kill(pid, signal.SIGKILL)
    waits(fs, 0)
    child.stdout.close()


def test_waits_are_failed_by_an_admin(fs):
    with (
        reader(fs, "one", fs.mountpoint / "2") as one,
        reader(fs, "two", fs.mountpoint / "3") as two,
    ):
        waits(fs, 2)
        answer = fs.control("waiters", "fail", "--process", "one", "--errno", "ETIMEDOUT")
        assert answer == "1 wait ended\n"
        assert one.wait(10) == errno.ETIMEDOUT
        assert "1 wait" in fs.control("waiters", "fail", "--pid", str(two.pid))
        assert two.wait(10) == errno.EIO
    waits(fs, 0)


def test_rules_know_a_reader_by_group_name_way_and_file(fs, tmp_path):
    own = tmp_path / "own.toml"
    try:
        for key in ('gid = ["root"]', 'process = ["anyth*"]', 'via = ["local"]', 'path = ["/0"]'):
            own.write_text(f'[[rule]]\nname = "r"\n{key}\noutcome = "eacces"\n')
            fs.control("guard", "load", own)
            assert reader(fs, "anything", fs.mountpoint / "0").wait(20) == errno.EACCES
    finally:
        fs.control("guard", "reset")


def test_rules_are_changed_live_and_outlive_a_restart(fs, tmp_path):
    assert "virus-scanners" in fs.control("guard")
    fs.control("guard", "set", "virus-scanners", "eagain")
    assert reader(fs, "clamscan", fs.mountpoint / "0").wait(20) == errno.EAGAIN
    own = tmp_path / "own.toml"
    own.write_text('[[rule]]\nname = "none"\nuid = [0]\noutcome = "eacces"\n')
    assert fs.control("guard", "load", own) == "1 rule in force\n"
    assert reader(fs, "anything", fs.mountpoint / "0").wait(20) == errno.EACCES
    fs.stop()
    fs.start()
    assert fs.control("guard", "rules") == own.read_text()
    assert reader(fs, "anything", fs.mountpoint / "0").wait(20) == errno.EACCES
    assert fs.ask("guard")["own"]
    fs.control("guard", "reset")
    fs.control("guard", "mode", "learn")
    with reader(fs, "clamscan", fs.mountpoint / "0") as child:
        waits(fs)
        fs.control("waiters", "fail", "--all")
        assert child.wait(10) == errno.EIO
    assert "(eacces)" in fs.control("guard", "report")
    fs.control("guard", "report", "--clear")
    assert fs.ask("guard", "report") == []
    own.write_text('[[rule]]\nname = "x"\noutcome = "stop"\n')
    with pytest.raises(Exception, match="line 3"):
        fs.control("guard", "load", own)
    assert "mode learn" in fs.control("guard")
