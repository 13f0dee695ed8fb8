"""Nobody gets by the network, by xattrs or by the API what permissions do not give.

    tools/prove nas-security [--fuzz N] [--seed N]

A mount, Samba with a share for guests, and the API, on this host: a user without permission, a
guest, links and names that lead out of the share, and nonsense in names, xattrs and the API. In a
real kernel (User Mode Linux): '..', links and forged handles over NFS.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import errno
import grp
import http.client
import io
import json
import os
import random
import re
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from _verdict import Proof, proof
from lib.lab import inside
from lib.nas import nfs as lab_nfs
from lib.nas import ways_out as nfs_ways
from lib.smbd import Samba
from lib.tempfs import Tables, TempFs

from hsmfs.cli.main import main as control
from hsmfs.shares import nfs, smb

CLAIM = "permissions hold on the mount, by Samba and by the API, and nonsense crashes nothing"
STRANGER = 12345
"""A user who owns nothing."""
SIZE = 200_000
CONTROLS = ("recall", "release", "pin")
TOLD = ("state", "copies", "why")


HEADLESS: Tables = {"fs": {"head": 0}}
LIMIT_S = 240


def as_user(uid: int, act: Callable[[], object], gid: int | None = None) -> int:
    """The errno of an act by a user in a process of its own; 0 if it succeeded."""
    gid = uid if gid is None else gid
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            act()
            code = 0
        except OSError as fault:
            code = fault.errno or 255
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class World:
    """A mount with files on discs, and a share of them."""

    def __init__(self, p: Proof, fs: TempFs, samba: Samba) -> None:
        self.p, self.fs, self.samba = p, fs, samba
        self.top = fs.mountpoint / "top"
        self.secret = self.top / "secret"
        self.locked = self.top / "locked" / "f"

    def lay_out(self) -> None:
        """One file that only root may read, one in a folder that only root may enter."""
        self.top.mkdir()
        self.top.chmod(0o777)
        self.locked.parent.mkdir()
        for path in (self.secret, self.locked):
            path.write_bytes(os.urandom(SIZE))
        (self.top / "public").write_bytes(os.urandom(SIZE))
        (self.top / "public").chmod(0o666)
        self.secret.chmod(0o600)
        self.locked.parent.chmod(0o700)
        self.fs.control("archive", "--now", "--wait", "--release", self.top)
        os.symlink("/etc/passwd", self.top / "out")
        os.symlink("../../../../../../etc/passwd", self.top / "up")
        (self.fs.mountpoint / "beside").write_text("not in the share")
        os.symlink("../beside", self.top / "aside")

    def offline(self) -> bool:
        """Nothing was recalled, and nothing is going to be."""
        states = {os.getxattr(f, "user.hsm.state") for f in (self.secret, self.locked)}
        return states == {b"migrated"} and self.fs.ask("queue")["recalls"] == []

    def refused(self, what: str, code: int, *meant: int) -> None:
        """Requires that an act failed as it must."""
        name = errno.errorcode.get(code, str(code))
        self.p.require(code in meant, f"{what}: {name}")

    def denied(self, what: str, said: str, *meant: str) -> None:
        """Requires that a client of Samba was refused as it must."""
        holds = any(f"NT_STATUS_{word}" in said for word in meant)
        self.p.require(holds, f"{what}: {said.strip()[-200:]}")


def users(world: World) -> None:
    """What a user without permission gets on the mount."""
    tries = 0
    for path in (world.secret, world.locked):
        acts = {
            "read": lambda path=path: path.read_bytes(),
            "write": lambda path=path: path.open("ab").close(),
            **{
                f"ask {name}": lambda path=path, name=name: os.getxattr(path, f"user.hsm.{name}")
                for name in TOLD
            },
            **{
                f"order {name}": lambda path=path, name=name: os.setxattr(
                    path, f"user.hsm.{name}", b"1"
                )
                for name in CONTROLS
            },
            "attributes for Samba": lambda path=path: os.getxattr(path, "user.DOSATTRIB"),
        }
        for what, act in acts.items():
            world.refused(f"{what} of {path.name}", as_user(STRANGER, act), errno.EACCES)
            tries += 1
    code = as_user(STRANGER, lambda: os.listdir(world.locked.parent))
    world.refused("list a closed folder", code, errno.EACCES)
    # Who may only read may read, which recalls, but gives no orders.
    public = world.top / "public"
    public.chmod(0o644)
    order = as_user(STRANGER, lambda: os.setxattr(public, "user.hsm.pin", b"1"))
    world.refused("an order by a reader", order, errno.EACCES)
    world.p.figure("acts of a user without permission, refused", tries + 2, at_least=20)
    world.p.require(world.offline(), "something was recalled for a user without permission")


def api(world: World) -> None:
    """The socket is root's, and nobody else's."""
    own_socket(world)
    search(world)()  # and what it needs is loaded before another user asks
    world.refused("a stranger on the socket", as_user(STRANGER, connect(world)), errno.EACCES)
    world.refused("a stranger's search", as_user(STRANGER, search(world)), errno.EACCES)
    world.p.require(as_user(0, connect(world)) == 0, "root cannot connect")


def group(world: World) -> None:
    """With `socket_group` the socket is that group's, too, and still nobody else's."""
    chosen, other = [entry for entry in grp.getgrall() if entry.gr_gid][:2]
    world.fs.stop()
    world.fs.reconfigure({**HEADLESS, "daemon": {"socket_group": chosen.gr_name}})
    world.fs.start()
    own_socket(world)
    gid = world.fs.socket.stat().st_gid
    world.p.require(gid == chosen.gr_gid, f"the socket's group is {gid}")
    for what, act in (("connect", connect(world)), ("search", search(world))):
        code = as_user(STRANGER, act, gid=chosen.gr_gid)
        world.p.require(code == 0, f"a member of the group cannot {what}: {code}")
        for stranger in (STRANGER, other.gr_gid):
            world.refused(f"a stranger's {what}", as_user(STRANGER, act, stranger), errno.EACCES)
    world.p.say(f"the socket's group {chosen.gr_name} may connect and search, others may not")


def own_socket(world: World) -> None:
    """Requires that it is root's and closed to others, in a folder that is open to them."""
    found = world.fs.socket.stat()
    mode = stat.S_IMODE(found.st_mode)
    world.p.require((found.st_uid, mode & 0o007) == (0, 0), f"the socket has the mode {mode:o}")
    code = as_user(STRANGER, lambda: os.stat(world.fs.socket))
    world.p.require(code == 0, "the folder of the socket keeps strangers off, so nothing is shown")


def connect(world: World) -> Callable[[], None]:
    """Try the socket."""

    def act() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(world.fs.socket))

    return act


def search(world: World) -> Callable[[], None]:
    """Look for names by `hsmctl find`, in this process: a user need not reach where hsmfs lies."""

    def act() -> None:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
            code = control(["--config", str(world.fs.config), "find", "--state", "migrated"])
        if code and "secret" not in said.getvalue():
            raise PermissionError(errno.EACCES, "refused")

    return act


def guests(world: World) -> None:
    """A guest of Samba writes files, but gives no orders and reads nothing of others."""
    run = world.samba.client
    local = world.fs.folder / "local"
    local.write_bytes(os.urandom(SIZE))
    said = run("open", f"put {local} mine", user=None)
    owner = (world.top / "mine").stat().st_uid
    world.p.require(owner in world_guests(world), f"a guest's file belongs to {owner}: {said}")
    for name in CONTROLS:
        said = run("open", f"setea mine hsm.{name} 1", user=None, check=False)
        world.denied(f"a guest orders a {name}", said, "ACCESS_DENIED")
    world.p.require(not world.fs.ask("info", world.top / "mine")["entry"]["pinned"], "pinned")
    said = run("open", "geteas mine", user=None, check=False)
    world.p.require("hsm" not in said.lower(), "state xattrs are listed by Samba")
    for file in ("secret", "locked/f"):
        said = run("open", f"get {file} {local}", user=None, check=False)
        world.denied(f"a guest reads {file}", said, "ACCESS_DENIED")
    said = run("open", "ls locked/*", user=None, check=False)
    world.denied("a guest lists a closed folder", said, "ACCESS_DENIED")
    world.p.require(world.offline(), "something was recalled for a guest")


def world_guests(world: World) -> tuple[int, ...]:
    """Whom the configuration takes for nobody in particular."""
    from hsmfs.config import load

    return load(world.fs.config).fs.guests


def ways_out(world: World) -> None:
    """Neither links nor '..' lead out of the share."""
    local = world.fs.folder / "got"
    for name in ("out", "up", "aside", "../beside", "..\\beside", "a/../../beside", "/../beside"):
        local.unlink(missing_ok=True)
        said = world.samba.client("open", f'get "{name}" {local}', check=False)
        world.p.require(not local.exists() or not local.stat().st_size, f"{name} leads out: {said}")
    said = world.samba.client("open", "symlink /etc/shadow planted", check=False)
    got = world.samba.client("open", f"get planted {local}", check=False)
    world.denied("a link that a client plants", said + got, "")
    world.p.require(not local.exists() or not local.stat().st_size, "a planted link leads out")
    above = os.stat(world.fs.mountpoint / "..").st_ino
    world.p.require(above == world.fs.folder.stat().st_ino, "'..' of the mount is another folder")


def fuzz(world: World, count: int, seed: int) -> None:
    """Nonsense in names, xattrs and bodies; afterwards all is as before."""
    chance = random.Random(seed)
    top = os.fsencode(world.top / "fuzz")
    os.mkdir(top)
    names = [name for kind in (CONTROLS, TOLD, ("", "x", "retention")) for name in kind]
    spaces = (
        "user.hsm.", "user.", "user.DOSATTRIB", "security.NTACL", "trusted.", "system.",
        "system.posix_acl_access", "system.posix_acl_default", "security.capability",
    )  # fmt: skip
    refused = 0
    for number in range(count):
        raw = bytes(chance.choices(range(1, 256), k=chance.randrange(1, 300))).replace(b"/", b"_")
        path = top + b"/" + raw
        try:
            with open(path, "xb") as file:
                file.write(raw)
        except OSError:
            refused += 1
            path = top + b"/plain%d" % number
            with open(path, "wb") as file:
                file.write(raw)
        value = chance.randbytes(chance.choice((0, 1, 3, 11, 16, 24, 60, 70_000)))
        name = chance.choice(spaces) + chance.choice(names)
        for act in (
            lambda path=path, name=name, value=value: os.setxattr(path, name, value),
            lambda path=path, name=name: os.getxattr(path, name),
            lambda path=path, name=name: os.removexattr(path, name),
        ):
            try:
                act()
            except (OSError, ValueError):
                refused += 1
        os.listxattr(path)
    world.p.figure("nonsense on the mount, of it refused", refused, f"of {4 * count}")
    fuzz_api(world, count, chance)
    smb_names(world, chance)


LEFT_OUT = ("/stop",)
"""What would end the proof by being served."""


def routes(world: World) -> list[tuple[str, str]]:
    """Every method and path of the API, by its own description; what stands in braces is odd."""
    request = b"GET /openapi.json HTTP/1.1\r\nHost: hsmfs\r\nConnection: close\r\n\r\n"
    _, body = ask(world.fs.socket, request)
    paths = json.loads(body)["paths"]
    return [
        (method.upper(), re.sub(r"{\w+}", "%00%ff..%2f", path))
        for path, methods in paths.items()
        for method in methods
        if not path.endswith(LEFT_OUT)
    ]


def fuzz_api(world: World, count: int, chance: random.Random) -> None:
    """Bodies and queries that no client sends; the answer is never a fault of ours."""
    answers: dict[int, int] = {}
    known = routes(world)
    world.p.figure("routes of the API", len(known), at_least=40)
    for _ in range(count):
        method, route = chance.choice(known)
        body = chance.choice((noise, mutated))(chance)
        query = base64.urlsafe_b64encode(chance.randbytes(chance.randrange(30))).decode()
        head = (
            f"{method} {route}?path_b64={query}&path={query} HTTP/1.1\r\nHost: hsmfs\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        status, _body = ask(world.fs.socket, head.encode() + body)
        if status >= 500 or not status:
            world.p.say(f"{status}: {method} {route} {query} {body[:200]!r}")
        answers[status] = answers.get(status, 0) + 1
    shown = ", ".join(f"{status}: {n}" for status, n in sorted(answers.items()))
    world.p.say(f"nonsense to the API, by answer: {shown}")
    faults = sum(n for status, n in answers.items() if status >= 500 or not status)
    world.p.figure("nonsense to the API, answered by a fault", faults, f"of {count}", at_most=0)


def noise(chance: random.Random) -> bytes:
    """No JSON at all."""
    return chance.randbytes(chance.randrange(200))


def mutated(chance: random.Random) -> bytes:
    """JSON of the wrong shape."""
    values = (None, True, -1, 2**70, 1e308, "", "/", "\x00", "x" * 5000, [], {}, [[[]]])
    keys = ("paths", "path", "path_b64", "pinned", "release", "now", "ino", "pid", "all", "x")
    return json.dumps({key: chance.choice(values) for key in chance.sample(keys, 4)}).encode()


def ask(path: Path, request: bytes) -> tuple[int, bytes]:
    """The status of an answer and its body; 0 if the connection broke without one."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(path))
        client.sendall(request)
        answer = http.client.HTTPResponse(client)
        try:
            answer.begin()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""


def smb_names(world: World, chance: random.Random) -> None:
    """Names that Windows has no way to write reach Samba's clients mangled, or not at all."""
    said = world.samba.client("open", "cd fuzz", "ls")
    world.p.require("blocks available" in said, "Samba does not list odd names")


def live(p: Proof, count: int, seed: int) -> None:
    """Everything, on one mount."""
    with TempFs(HEADLESS) as fs, Samba(fs.folder / "smb") as samba:
        above = fs.folder.parent
        if not above.stat().st_mode & 0o001:  # tools/prove's own, and strangers must get through
            above.chmod(0o711)
        smb.CONFIG, smb.FILE = samba.config, samba.shares
        nfs.FILE = fs.folder / "exports"
        world = World(p, fs, samba)
        world.lay_out()
        smb.add("open", world.top, fs.mountpoint)
        text = samba.shares.read_text()
        samba.shares.write_text(text.replace("[open]\n", "[open]\nguest ok = yes\n"))
        samba.reload()
        daemon = fs.daemon.pid if fs.daemon else 0
        for part in (users, api, guests, ways_out):
            p.say(f"-- {part.__doc__}")
            part(world)
        p.say(f"-- {fuzz.__doc__}")
        fuzz(world, count, seed)
        p.require(bool(fs.daemon and fs.daemon.poll() is None), "the daemon died")
        p.require(fs.ask("status")["pid"] == daemon, "the daemon is another one")
        p.require("fault of hsmfs" not in fs.log_tail(10**6), "the log has a fault of hsmfs")
        p.say(f"-- {group.__doc__}")
        group(world)
        p.require(fs.ask("fsck")["clean"] is True, "fsck finds something")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fuzz", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.inside:
        with proof("no client of NFS gets out of the mount") as p:
            nfs_ways.by_nfs(p, chosen.seed)
    with proof(CLAIM) as p:
        p.say(f"seed {chosen.seed}")
        live(p, chosen.fuzz, chosen.seed)
        p.say("-- NFS, in the lab's kernel")
        words = [__file__, "--inside", "--seed", str(chosen.seed)]
        code = inside(words, memory="1024M", limit_s=LIMIT_S, modules=lab_nfs.MODULES)
        p.require(code == 0, "the part over NFS, in the lab's kernel")


if __name__ == "__main__":
    main()
