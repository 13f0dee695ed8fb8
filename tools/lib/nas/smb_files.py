"""SMB by the kernel's own client: attributes, waiting reads beside others, a restarted daemon."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from . import lock, records, smb
from .nfs import until
from .world import Nas, Section

OFFLINE = 0x1000
SIZE = 600_000
HEAD = 256 * 1024


def attributes(path: Path) -> int:
    """As the client has them (fs/smb/client/xattr.c)."""
    return int.from_bytes(os.getxattr(path, "user.cifs.dosattrib"), "little")


def files(world: Nas) -> None:
    """The share of one folder, mounted by the kernel's client."""
    meant = world.offline["smb"]
    (world.fs.mountpoint / "smb").chmod(0o777)
    with smb.serve(Path("/run/smb")) as samba:
        world.fs.control("export", "smb", "files", world.fs.mountpoint / "smb")
        client = smb.mount(samba, "files", options="actimeo=0")
        try:
            looks(world, client)
            waits(world, client, meant)
            locks(world, client)
            records.by_smb(world, client, "smb")
            restarts(world, client, meant)
        finally:
            smb.umount(client)
            world.fs.control("export", "rm", "smb", "files")


def looks(world: Nas, client: Path) -> None:
    """Listing and heads recall nothing; what is on discs says so."""
    names = sorted(os.listdir(client))
    shown = [name for name in names if attributes(client / name) & OFFLINE]
    world.p.figure("SMB: files on discs shown as offline", len(shown), at_least=len(names))
    for name in names:
        with (client / name).open("rb", buffering=0) as file:  # stdio asks for 1 MiB here
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            file.read(4096)
    states = {world.state(f"smb/{name}") for name in names}
    world.p.require(states == {"migrated"}, f"looking at heads by SMB left files {states}")


def waits(world: Nas, client: Path, meant: dict[str, bytes]) -> None:
    """A read of a file on disc waits; meanwhile the same session writes, reads and lists."""
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((client / "0000").read_bytes()))
    with world.drives_down():
        reader.start()
        until(lambda: world.api.get("/waiters"), "the client's read waits")
        began = time.monotonic()
        (client / "new").write_bytes(b"new")
        same = (client / "new").read_bytes() == b"new" and "new" in os.listdir(client)
        world.p.require(same and not got, "the session did not go on while a read waited")
        took = time.monotonic() - began
        world.p.figure("SMB: write, read, list while a read waits", took, "s", at_most=5)
    reader.join()
    world.p.require(got == [meant["smb/0000"]], "the client got other bytes than were archived")
    until(lambda: not attributes(client / "0000") & OFFLINE, "the attribute goes", 15)


def locks(world: Nas, client: Path) -> None:
    """The share is of a folder that NFS exports, too, so its locks are those of the host."""
    places = {"SMB": client, **{v: m / "smb" for v, m in world.mounts.items()},
              "local": world.fs.mountpoint / "smb"}  # fmt: skip
    (client / "locked").write_bytes(b"x" * 100)
    (world.fs.mountpoint / "smb/locked").chmod(0o666)
    with lock.Locker([place / "locked" for place in places.values()]) as other:
        for holder, found in (("SMB", list(places)[1:]), ("v4.1", ["SMB"]), ("local", ["SMB"])):
            for meant in ("held", "free"):
                with (places[holder] / "locked").open("r+b") as file:
                    if meant == "held":
                        lock.lock("posix", file.fileno())
                    for place in found:
                        other.ask("posix", list(places).index(place))
                        got, _ = other.answer()
                        world.p.require(got == meant, f"held over {holder}: {place} found {got}")
    world.p.say("SMB: a byte-range lock excludes NFS and local programs, and theirs exclude it")


def restarts(world: Nas, client: Path, meant: dict[str, bytes]) -> None:
    """The daemon stops and comes back: clients connect anew."""
    world.fs.stop()
    world.fs.start()

    def answers() -> bool:
        try:
            return (client / "0001").read_bytes() == meant["smb/0001"]
        except OSError:
            return False

    took = until(answers, "the client reads after a restart of the daemon", 60)
    world.p.figure("SMB: seconds until a client goes on after a restart", took, "s", at_most=60)


SECTIONS = {"SMB: the kernel's client": Section(files, {"smb": (4, SIZE)})}
