"""Nobody alters or removes a retained byte unnoticed in compliance mode, whatever they try.

    tools/prove attacks

Records on a mount, copies of them on discs, a legal hold, Samba and the API. Attempts are made as
root, as a user of a share, by each role over TLS, and with the daemon's wall clock turned. While it
runs each must be refused, and the records be the same after it: bytes, size, mode, retention. Who
edits disks, discs or catalog while it is down cannot be refused: then a command must name it.
By root of an NFS client the same attempts are made by 'tools/prove nas records', in a real kernel.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import http.client
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import apsw

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from _verdict import Proof, proof
from lib import smbd
from lib.forbidden import MOUNT, errno_of
from lib.intruders import Callers, Guarded, by_each_role
from lib.tamper import Attempt, Offline, attempts
from lib.tempfs import TempFs

from hsmfs.shares import nfs, smb

LEAST = 60
DAY = 86_400 * 10**9
YEAR = 366 * DAY
TABLES = {"library": {"disc": "4 MiB"}, "engine": {"compression": 0}}


class Target:
    """The archive that is attacked.

    Attributes:
        top: the retention folder. one: a record on disk and on a disc. away: one on a disc alone.
        fresh: one that is on no disc yet.
    """

    def __init__(self, fs: TempFs) -> None:
        self.fs = fs
        self.top = fs.mountpoint / "r"
        (self.top / "deep").mkdir(parents=True)
        self.top.chmod(0o777)
        fs.control("retention", "set", self.top, "--mode", "compliance", "--default", "10 y")
        self.one, self.away = self.top / "one", self.top / "deep/away"
        self.fresh = self.top / "fresh"
        self.records = [self.one, self.away]
        rng = random.Random(6)
        for path in self.records:
            path.write_bytes(rng.randbytes(90_000))
            os.setxattr(path, "user.a", b"1")
            path.chmod(0o444)
        fs.control("archive", "--now", "--wait", self.top)
        fs.control("release", self.away)
        self.fresh.write_bytes(rng.randbytes(5000))
        self.fresh.chmod(0o444)
        self.records.append(self.fresh)
        self.held = fs.mountpoint / "held"
        self.held.write_bytes(b"held")
        fs.control("hold", "place", "case", "--reason", "proof", self.held)
        self.records.append(self.held)
        self.whole = self.state()

    def state(self) -> dict[str, object]:
        """All that must stay: bytes, mode, owner, and until when each is kept."""
        found: dict[str, object] = {}
        for path in self.records:
            kept = json.loads(os.getxattr(path, "user.hsm.retention"))
            attr = path.stat()
            found[path.name] = (
                hashlib.sha256(path.read_bytes()).hexdigest(), attr.st_mode, attr.st_uid,
                attr.st_mtime_ns, kept["state"], kept["until_ns"], tuple(kept["holds"]),
            )  # fmt: skip
        return found

    def api(self, method: str, path: str, body: object = None, who: str = "hsmctl") -> int:
        """The status of a request on the daemon's socket."""
        with contextlib.closing(http.client.HTTPConnection("hsmfs")) as connection:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(60)
            connection.sock.connect(str(self.fs.socket))
            headers = {"X-Hsmfs-Who": who, "Content-Type": "application/json"}
            connection.request(method, f"/v1{path}", json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read().decode()
            # A stream says in its last line whether it failed.
            failed = '"failed": 0' not in text and '"failed":0' not in text
            streamed = answer.status == 200 and '"kind"' in text and failed
            return 409 if streamed and '"exit_code"' in text else answer.status


def name(path: Path, t: Target) -> dict[str, str]:
    whole = b"/" + os.fsencode(path.relative_to(t.fs.mountpoint))
    return {"path_b64": base64.b64encode(whole).decode()}


def at_the_mount(
    t: Target, path: Path, which: Iterable[str] = MOUNT
) -> dict[str, Callable[[], bool]]:
    return {f"{what}: {path.name}": lambda act=MOUNT[what]: errno_of(lambda: act(path))
            for what in which}  # fmt: skip


def folder_replaced(t: Target) -> bool:
    """A retention folder without records stays: an empty one does not take its name."""
    empty, other = t.fs.mountpoint / "no-records", t.fs.mountpoint / "ordinary"
    empty.mkdir()
    other.mkdir()
    t.fs.control("retention", "set", empty, "--mode", "compliance", "--default", "10 y")
    number = empty.stat().st_ino
    refused = errno_of(lambda: other.rename(empty))
    return refused and empty.stat().st_ino == number


def orders(t: Target) -> dict[str, tuple[str, object]]:
    """Orders to the API that would harm a record, or undo what guards it."""
    one, top, away = name(t.one, t), name(t.top, t), name(t.away, t)
    folder = {"path": top, "default_s": 1.0}
    other = t.fs.mountpoint / "other"
    other.write_bytes(b"other")
    trashed = other.stat().st_ino
    other.unlink()
    soon = time.time_ns() + DAY
    return {
        "delete early": ("/retention/delete", {"path": one, "reason": "x"}),
        "delete early what is on disc": ("/retention/delete", {"path": away, "reason": "x"}),
        "shorten to tomorrow": ("/retention/extend", {"paths": [one], "until_ns": soon}),
        "shorten to the past": ("/retention/extend", {"paths": [one], "until_ns": 1}),
        "compliance to enterprise": ("/retention/folders", folder | {"mode": "enterprise"}),
        "unset the folder": ("/retention/folders/unset", {"path": top}),
        "a folder above it": ("/retention/folders", {
            "path": {"path": "/"}, "mode": "enterprise", "default_s": 1.0}),
        "a folder within it": ("/retention/folders", {
            "path": name(t.top / "deep", t), "mode": "enterprise", "default_s": 1.0}),
        "hold placed again under its name": ("/holds", {
            "name": "case", "reason": "x", "paths": [one]}),
        "restore a file over it": ("/trash/restore", {"ino": trashed, "path": one}),
        "a new file in its place by another's version": ("/versions/restore", {
            "path": name(other, t), "version": f"{trashed}.1", "to": one}),
    }  # fmt: skip


def by_the_api(t: Target) -> dict[str, Callable[[], bool]]:
    def given(path: str, body: object) -> bool:
        return t.api("POST", path, body) in (403, 409)  # not: it was no order at all

    return {f"API: {what}": lambda o=order: given(*o) for what, order in orders(t).items()}


def with_the_clock_turned(t: Target, by_ns: int, when: str) -> dict[str, Callable[[], bool]]:
    """What could be done if it were another time."""
    way = f"clock {by_ns // YEAR:+d} years {when}"
    tried = {
        f"{way}: {what}: {path.name}": lambda act=MOUNT[what], path=path: errno_of(
            lambda: act(path)
        )
        for what in ERASE for path in (t.one, t.away, t.fresh)
    }  # fmt: skip
    return tried | {f"{way}: {what}": attempt for what, attempt in by_the_api(t).items()}


def another_name(t: Target) -> bool:
    """Who asks is what the kernel says: a name in a header is not believed."""
    t.api("POST", "/retention/delete", {"path": name(t.one, t), "reason": "x"}, who="dr-house")
    found = t.fs.control("audit", "search", "--kind", "admin.order", "--json").splitlines()
    return "dr-house" not in json.loads(found[-1])["actor"]


def release_without_copies(t: Target) -> bool:
    """A record on no disc is not given up on disk."""
    t.api("POST", "/release", {"paths": [name(t.fresh, t)]})
    return os.getxattr(t.fresh, "user.hsm.state") == b"resident"


ERASE = (
    "open to write", "truncate", "unlink", "rename another over it", "give write permission",
    "shorten by atime", "atime of the past",
)  # fmt: skip
"""What of MOUNT is tried again at other times."""
HELD = (
    "open to write", "open to append", "open and cut", "truncate", "grow", "unlink", "rename",
    "rename another over it", "exchange it with another", "hard link, to write through it",
    "symbolic link, to write through it", "write through a bind mount", "open by its handle",
    "another owner", "mtime", "set an xattr", "punch a hole",
)  # fmt: skip
"""What of MOUNT is tried on a file that is no record, but under a legal hold."""
SMB = {
    "delete": "del smb-record",
    "overwrite": "put {other} smb-record",
    "rename": "rename smb-record moved",
    "read-only off": "setmode smb-record -r",
    "times": "utimes smb-record -1 -1 2001:02:03-04:05:06 -1",
    "hard link": "hardlink smb-record linked",
    "hide": "setmode smb-record +h",
}


@contextlib.contextmanager
def share(t: Target) -> Iterator[smbd.Samba]:
    """Samba with the retention folder as a share, as `hsmctl export smb` writes it."""
    with smbd.Samba(folder := t.fs.folder / "smb") as server:
        smb.CONFIG, smb.FILE, nfs.FILE = server.config, server.shares, folder / "no-exports"
        smb.add("archive", t.top, t.fs.mountpoint)
        yield server


def by_samba(t: Target, server: smbd.Samba) -> dict[str, Callable[[], bool]]:
    local, other = t.fs.folder / "local", t.fs.folder / "other"
    local.write_bytes(b"record" * 1000)
    other.write_bytes(b"changed")
    server.client("archive", f"put {local} smb-record; setmode smb-record +r")
    t.records.append(t.top / "smb-record")
    t.whole = t.state()

    def tried(command: str) -> bool:
        said = server.client("archive", command.format(other=other), check=False)
        return "NT_STATUS" in said or "setmode" in command  # which tells nobody: state() does

    return {f"SMB: {what}": lambda c=command: tried(c) for what, command in SMB.items()}


def killed_in_the_middle(t: Target) -> bool:
    """SIGKILL between the commit and whatever follows: the record is one after the start."""
    path = t.top / "killed"
    path.write_bytes(b"x" * 70_000)
    fd = os.open(path, os.O_RDONLY)
    os.chmod(path, 0o444)
    os.fsync(fd)
    os.close(fd)
    t.fs.kill()
    t.fs.start()
    t.records.append(path)
    t.whole = t.state()
    return errno_of(path.unlink) and errno_of(lambda: os.truncate(path, 0))


def killed_while_deleting(t: Target) -> bool:
    """A deletion that is asked for while the daemon dies deletes nothing."""
    child = subprocess.Popen(
        [sys.executable, "-c", "import os,sys\nwhile 1:\n try: os.unlink(sys.argv[1])\n"
         " except PermissionError: pass\n except OSError: break", str(t.one)])  # fmt: skip
    time.sleep(0.3)
    t.fs.kill()
    child.wait(60)
    t.fs.start()
    return t.state() == t.whole


# The daemon is down


def discs_exchanged(t: Target) -> bool:
    """Another disc lies where the record's should: never are other bytes given out as its own."""
    folder = t.fs.folder / "library"
    images = sorted(folder.rglob("*.iso"))
    if len(images) < 2:
        return False
    held = images[0].with_name("x")
    images[0].rename(held)
    images[1].rename(images[0])
    held.rename(images[1])
    t.fs.start()
    try:
        return t.state() == t.whole
    except OSError:
        return True  # it does not read: that is told
    finally:
        t.fs.stop()


def clock_turned(o: Offline, t: Target) -> bool:
    """The stored compliance clock is put 20 years on: that it was ahead is on record."""
    o.sql(f"UPDATE compliance_clock SET worm_ns = worm_ns + {20 * YEAR}")
    t.fs.start()
    try:
        said = t.fs.control("audit", "search", "--kind", "clock.*", "--json").splitlines()
        return any(json.loads(json.loads(line)["detail"]).get("by_ns", 0) < -DAY for line in said)
    finally:
        t.fs.stop()


class Count:
    """Attempts and how they ended."""

    def __init__(self, p: Proof) -> None:
        self.p, self.tried, self.refused, self.detected = p, 0, 0, 0

    def online(self, t: Target, tried: dict[str, Callable[[], bool]]) -> None:
        """Each must be refused, and change nothing."""
        for what, attempt in tried.items():
            self.tried += 1
            refused = attempt()
            same = t.state() == t.whole
            self.refused += refused and same
            if not (refused and same):
                self.p.say(f"  {what}: refused {refused}, nothing changed {same}")

    def offline(self, o: Offline, tampered: dict[str, Attempt]) -> None:
        """Each must be told by the command that judges it."""
        for what, (attempt, judge, word) in tampered.items():
            self.tried += 1
            attempt()
            said = judge()
            found = bool(re.search(word, said))
            self.detected += found
            if not found:
                self.p.say(f"  {what}: not told: {said[-300:]!r}")
            o.restore()

    def one(self, what: str, found: bool) -> None:
        self.tried += 1
        self.detected += found
        if not found:
            self.p.say(f"  {what}: not told")


def main(p: Proof) -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory(prefix="hsmfs-") as folder, Guarded(
        TABLES, Path(folder)
    ) as fs:
        t, count = Target(fs), Count(p)
        for path in (t.one, t.away):
            count.online(t, at_the_mount(t, path))
        count.online(t, at_the_mount(t, t.held, HELD))
        count.online(t, {"a folder over a retention folder": lambda: folder_replaced(t)})
        p.figure("mount, as root: attempts so far", count.tried)
        count.online(t, by_the_api(t))
        count.online(t, {"API: the name of another": lambda: another_name(t),
                         "API: release what is on no disc": lambda: release_without_copies(t)})
        before = count.tried
        count.online(t, by_each_role(Callers(fs), orders(t)))
        p.figure("by each role over TLS: attempts", -before + (before := count.tried))
        for years, running in ((30, True), (-30, True), (30, False), (-30, False), (0, False)):
            way = "while it runs" if running else "while it is down"
            turned = partial(fs.turned_clock, years * YEAR, running=running)
            count.online(t, {f"clock turned by {years} years {way}": turned})
            if years:
                count.online(t, with_the_clock_turned(t, years * YEAR, way))
        p.figure("with the wall clock turned: attempts", count.tried - before)
        if reason := smbd.missing():
            p.say(f"Samba is left out: {reason}")
        else:
            with share(t) as server:
                count.online(t, by_samba(t, server))
        count.online(t, {"killed after the commit": lambda: killed_in_the_middle(t),
                         "killed while it is deleted": lambda: killed_while_deleting(t)})
        p.figure("while it runs: attempts", online := count.tried)
        p.figure("while it runs: refused, nothing changed", count.refused, at_least=online)
        extra = fs.mountpoint / "extra"  # a second disc
        extra.write_bytes(random.randbytes(50_000))
        fs.control("archive", "--now", "--wait", extra, t.top)
        content, numbers = t.one.read_bytes(), {"one": t.one.stat().st_ino}
        fs.stop()
        with contextlib.closing(apsw.Connection(str(fs.folder / "state/catalog.db"))) as db:
            last = db.execute("SELECT max(seq) FROM audit").get
        o = Offline(fs, numbers | {"last": last}, content)
        for who, judge in (("log", o.log_says), ("fsck", o.fsck_says), ("discs", o.discs_say)):
            p.require((said := judge()) == "", f"{who}: what was not touched is blamed: {said}")
        count.offline(o, attempts(o))
        count.one("discs exchanged", discs_exchanged(t))
        o.restore()
        count.one("the compliance clock turned on", clock_turned(o, t))
        o.restore()
        p.figure("while it is down: attempts", count.tried - online)
        p.figure("while it is down: told, by name", count.detected, at_least=count.tried - online)
        p.figure("attempts in all", count.tried, at_least=LEAST)
        p.say("not detectable: bytes of a record that no disc has yet, changed on the pool's disk")


if __name__ == "__main__":
    with proof("in compliance mode no retained byte is altered or removed unnoticed") as p:
        main(p)
