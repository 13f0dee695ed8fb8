"""Reads of files on disc wait as the protocol has it, and the session goes on meanwhile."""

import contextlib
import hashlib
import ipaddress
import os
import random
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tools.lib.smbd import PORT

pytestmark = [pytest.mark.mount, pytest.mark.slow]
BIG = 300_000
STATUS_PENDING = 0x103
READ = 8
SAME_SESSION = """
import hashlib, sys, threading
c = connect(threads=True)
c.settimeout(600_000)
got = {}
def read(name):
    fnum = c.create(name)
    data = b""
    while len(data) < 300000:
        data += c.read(fnum, len(data), 300000 - len(data))
    c.close(fnum)
    got[name] = data
waiting, here, count = words[0], words[1], int(words[2])
names = [f"{waiting}{n}" for n in range(count)]
readers = [threading.Thread(target=read, args=(name,), daemon=True) for name in names]
for reader in readers: reader.start()
sys.stdin.readline()                # they wait
read(here)
assert c.chkpath("") and c.get_acl(here, 7)
c.savefile("new" + waiting, b"new")
assert c.loadfile("new" + waiting) == b"new"
c.rename("new" + waiting, "renamed" + waiting)
c.unlink("renamed" + waiting)
assert list(got) == [here]
print("went on", flush=True)
for reader in readers: reader.join()
print(hashlib.sha256(b"".join(got[name] for name in names)).hexdigest(), flush=True)
"""


class Proxy:
    """Stands between a client and smbd and notes the answers that say "pending"."""

    def __init__(self, address: str) -> None:
        self.pending: list[int] = []
        self._server = (address, PORT)
        self._socket = socket.socket()
        while True:
            numbers = (random.randrange(1, 255) for _ in range(3))
            self.address = "127." + ".".join(map(str, numbers))
            with contextlib.suppress(OSError):
                self._socket.bind((self.address, PORT))
                break
        self._socket.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                server = socket.create_connection(self._server)
                for pair in ((client, server, None), (server, client, self.pending)):
                    threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, source, target, pending) -> None:
        with source, contextlib.suppress(OSError), source.makefile("rb") as stream:
            while head := stream.read(4):
                message = stream.read(int.from_bytes(head, "big"))
                # [MS-SMB2] 2.2.1: status at 8, command at 12.
                status = int.from_bytes(message[8:12], "little")
                if pending is not None and status == STATUS_PENDING:
                    pending.append(int.from_bytes(message[12:14], "little"))
                target.sendall(head + message)

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def no_drives(nas):
    """Nothing can be recalled inside."""
    drives = [d["name"] for d in nas.fs.ask("drive", "list")]
    for name in drives:
        nas.fs.control("drive", "down", name, "--reason", "a test")
    try:
        yield
    finally:
        for name in drives:
            nas.fs.control("drive", "up", name)


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def stubs(nas, prefix, count):
    data = [random.Random(f"{prefix}{n}").randbytes(BIG) for n in range(count)]
    names = [f"{prefix}{n}" for n in range(count)]
    for name, content in zip(names, data, strict=True):
        (nas.top / name).write_bytes(content)
    nas.archive(*names)
    return b"".join(data)


def waiters(nas):
    return nas.fs.ask("waiters", "list")


def test_the_client_is_told_to_wait(nas):
    data = stubs(nas, "told", 1)
    proxy = Proxy(nas.samba.address)
    local = nas.fs.folder / "told"
    words = nas.samba.client_command("archive")
    words[words.index(f"//{nas.samba.address}/archive")] = f"//{proxy.address}/archive"
    with no_drives(nas):
        client = subprocess.Popen([*words, "-c", f"get told0 {local}"])
        until(lambda: waiters(nas) and READ in proxy.pending)
        assert client.poll() is None
    assert client.wait(60) == 0
    proxy.close()
    assert local.read_bytes() == data


@pytest.mark.parametrize("count", [3, 120])
def test_other_requests_of_the_session_go_on(nas, count):
    data = stubs(nas, f"wait{count}-", count)
    (nas.top / "here").write_bytes(os.urandom(BIG))
    words = nas.samba.session_command("archive", SAME_SESSION, f"wait{count}-", "here", str(count))
    with no_drives(nas):
        script = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        until(lambda: len(waiters(nas)) == count)
        script.stdin.write("\n")
        script.stdin.flush()
        assert script.stdout.readline() == "went on\n"
    assert script.communicate(timeout=60)[0].strip() == hashlib.sha256(data).hexdigest()
    assert script.returncode == 0


def getter(nas, name):
    """A client that reads a file."""
    words = [*nas.samba.client_command("archive"), "-c", f"get {name} {nas.fs.folder}/{name}-got"]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@contextlib.contextmanager
def waiting(nas, prefix):
    """A client that waits for a file that cannot be recalled inside, and how it is listed."""
    stubs(nas, prefix, 1)
    with no_drives(nas):
        client = getter(nas, f"{prefix}0")
        until(lambda: waiters(nas))
        [view] = waiters(nas)
        yield client, view


def test_a_waiting_client_is_known_by_its_address_and_failed_by_it(nas):
    with waiting(nas, "known") as (client, view):
        assert (view["via"], view["process"][:4]) == ("smb", "smbd")
        assert ipaddress.ip_address(view["client"]).is_loopback
        assert view["client"] in nas.fs.control("waiters")
        words = ("waiters", "fail", "--errno", "EACCES", "--client")
        assert nas.fs.control(*words, "192.0.2.1") == "0 waits ended\n"
        assert nas.fs.control(*words, view["client"]) == "1 wait ended\n"
        assert "NT_STATUS_ACCESS_DENIED" in client.communicate(timeout=60)[0]
    assert nas.fs.ask("queue")["recalls"] == []


def test_a_client_that_is_killed_waits_no_more_and_its_recall_is_dropped(nas):
    with waiting(nas, "killed") as (client, view):
        client.kill()
        client.communicate()
        until(lambda: not waiters(nas) and not nas.fs.ask("queue")["recalls"])
        until(lambda: not Path(f"/proc/{view['pid']}").exists())
    assert nas.state("killed0") == "migrated"


RULE = """
[[rule]]
name = "one-client"
client = ["{0}"]
outcome = "eacces"
"""


def test_a_rule_of_the_guard_is_about_one_client(nas, tmp_path):
    data = stubs(nas, "ruled", 1)
    got, file = nas.fs.folder / "ruled0-got", tmp_path / "guard.toml"
    file.write_text(RULE.format("127.0.0.0/8"))
    nas.fs.control("guard", "load", file)
    nas.fs.control("guard", "mode", "on")
    try:
        assert "ACCESS_DENIED" in getter(nas, "ruled0").communicate(timeout=60)[0]
        [met] = [m for m in nas.fs.ask("guard", "report") if m["rule"] == "one-client"]
        assert ipaddress.ip_address(met["client"]).is_loopback
        file.write_text(RULE.format("192.0.2.0/24"))
        nas.fs.control("guard", "load", file)
        getter(nas, "ruled0").communicate(timeout=60)
        assert got.read_bytes() == data
    finally:
        nas.fs.control("guard", "mode", "off")
        nas.fs.control("guard", "reset")


def test_a_recall_that_fails_is_an_error_to_the_client(nas):
    stubs(nas, "lost", 1)
    local: Path = nas.fs.folder / "lost-file"
    with no_drives(nas):
        client = subprocess.Popen(
            [*nas.samba.client_command("archive"), "-c", f"get lost0 {local}"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        until(lambda: waiters(nas))
        nas.fs.control("waiters", "fail", "--file", nas.top / "lost0")
        assert "NT_STATUS_" in client.communicate(timeout=60)[0]
        assert client.returncode != 0
        assert "lost0" in nas.client("ls")
