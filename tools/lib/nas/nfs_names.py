"""Handles, folders, owners and locks over NFS, with the kernel's own clients."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import trio

from hsmfs.catalog.catalog import Catalog
from hsmfs.types import ROOT

from . import lock, nfs
from .world import Nas, Section

FOLDERS = {"hundred": 100_000, "ten": 10_000}
SQUASHED = 65534
LINE_OF_PROOF = 3.0
"""How much dearer an entry of a folder ten times as large may be."""


def handles(nas: Nas) -> None:
    """Open files, their locks, and folders outlive a rename, forgotten caches, and the daemon."""
    held: list[tuple[str, int, int, bytes]] = []
    for version, mount in nas.mounts.items():
        deep = mount / version / "a/b"
        deep.mkdir(parents=True)
        (deep / "file").write_bytes(version.encode())
        fd = os.open(deep / "file", os.O_RDWR)
        held.append((version, fd, os.open(deep, os.O_RDONLY), version.encode()))
        lock.lock("posix", fd)
        (nas.fs.mountpoint / version / "a").rename(nas.fs.mountpoint / version / "moved")
    for what in ("renamed and forgotten", "the daemon restarted", "the daemon killed"):
        if what.startswith("the daemon"):
            nas.fs.crash() if "killed" in what else nas.fs.stop()
            nas.fs.start()
        nfs.drop_caches()
        began = time.monotonic()
        for version, fd, folder, content in held:
            nas.p.require(os.pread(fd, 99, 0) == content, f"{version}: {what}: bytes differ")
            os.pwrite(fd, content, 0)
            os.fsync(fd)
            found = os.stat("..", dir_fd=folder).st_ino
            meant = (nas.fs.mountpoint / version / "moved").stat().st_ino
            nas.p.require(found == meant, f"{version}: {what}: '..' is another folder")
            other = next(m for v, m in nas.mounts.items() if (v == "v3") != (version == "v3"))
            got = lock.attempt("posix", other / version / "moved/b/file")
            nas.p.require(got == "held", f"{version}: {what}: the lock is {got}")
        nas.p.say(f"{'handles good: ' + what:<48} {time.monotonic() - began:>14.1f} s")
    for _, fd, folder, _ in held:
        os.close(fd)
        os.close(folder)


def folders(nas: Nas) -> None:
    """100,000 entries take no more each than 10,000 do."""
    nas.fs.stop()
    try:
        trio.run(_fill, nas.fs.folder / "state")
    finally:
        nas.fs.start()
    for version, mount in nas.mounts.items():
        each = {}
        for name, count in FOLDERS.items():
            os.stat(mount / name)
            nfs.drop_caches()
            began = time.monotonic()
            found = os.listdir(mount / name)
            took = time.monotonic() - began
            each[name] = took / count
            nas.p.figure(f"{version}: {count:,} names listed", took, "s")
            nas.p.require(
                set(found) == {f"{n:06}.dcm" for n in range(count)} and len(found) == count,
                f"{version}: {len(found)} names of {count}",
            )
        ratio = each["hundred"] / each["ten"]
        nas.p.figure(f"{version}: an entry of 100,000 against one of 10,000", ratio, "x",
                     at_most=LINE_OF_PROOF)  # fmt: skip


async def _fill(state: Path) -> None:
    """The names go straight into the catalog: creating so many takes minutes in this kernel."""
    catalog = Catalog.open(state)
    try:
        for name, count in FOLDERS.items():
            async with catalog.write():
                names, now = catalog.names, time.time_ns()
                folder = names.create(ROOT, name.encode(), stat.S_IFDIR | 0o755, 0, 0, now)
                for number in range(count):
                    mode = stat.S_IFREG | 0o644
                    attr = names.create(folder.ino, b"%06d.dcm" % number, mode, 0, 0, now)
                    catalog.inodes.put(attr._replace(dirty=False))
    finally:
        catalog.close()


def owners(nas: Nas) -> None:
    """root is nobody where it is squashed, and root where it is not."""
    shared = nas.fs.mountpoint / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    (shared / "secret").write_bytes(b"not for root of a client")
    (shared / "secret").chmod(0o600)
    for squash in ("root_squash", "no_root_squash"):
        nas.fs.control("export", "nfs", nas.fs.mountpoint, "--to", nfs.CLIENTS,
                       "--options", squash)  # fmt: skip
        nfs.drop_caches()
        meant = SQUASHED if squash == "root_squash" else 0
        for version, mount in nas.mounts.items():
            name = f"shared/{squash}-{version}"
            (mount / name).touch()
            owner = (nas.fs.mountpoint / name).stat().st_uid
            nas.p.require(owner == meant, f"{version}: {squash} makes files of {owner}")
            for act in (Path.read_bytes, lambda path: path.chmod(0o600)):
                refused = _refused(lambda mount=mount, act=act: act(mount / "shared/secret"))
                nas.p.require(refused == bool(meant), f"{version}: {squash}: refused is {refused}")
    nas.p.say("root of a client is nobody, or root, as the export says")
    listed = nas.fs.ask("export", "ls")
    nas.p.require(len(listed) == 1, f"hsmctl export ls shows {listed}")
    nas.fs.control("export", "rm", "nfs", nas.fs.mountpoint)
    try:
        nfs.mount(nas.fs.mountpoint, "v3")
        nas.p.require(False, "the mount could be mounted after its export was taken back")
    except RuntimeError as refused:
        nas.p.require("denied" in str(refused), f"refused, but so: {refused}")
    finally:
        nas.fs.control("export", "nfs", nas.fs.mountpoint, "--to", nfs.CLIENTS,
                       "--options", "no_root_squash")  # fmt: skip


def _refused(act: Callable[[], object]) -> bool:
    try:
        act()
    except PermissionError:
        return True
    return False


def locks(nas: Nas) -> None:
    """flock and POSIX locks hold between clients, and against programs on this host."""
    for name in ("locked", "waited"):
        (nas.fs.mountpoint / name).write_bytes(b"x" * 100)
    (first, one), *_, (second, two) = nas.mounts.items()
    with lock.Locker([two / "waited"]) as waiting:
        with (one / "waited").open("r+b") as file:
            lock.lock("posix", file.fileno())
            waiting.ask("wait", 0)
            waits = False
            try:
                waiting.answer(1.0)
            except TimeoutError:
                waits = True
            nas.p.require(waits, f"{second} did not wait for a lock held over {first}")
        freed = time.monotonic()
        _exclusive(nas)  # meanwhile: it asks again after 30 s
        found, when = waiting.answer()
    nas.p.require(found == "free", f"who waited for a lock found it {found}")
    nas.p.figure("a lock waited for comes after", when - freed, "s", at_most=45.0)


def _exclusive(nas: Nas) -> None:
    """A lock held over one client is held for all others, and free when it is given up."""
    places = {**nas.mounts, "local": nas.fs.mountpoint}
    with lock.Locker([place / "locked" for place in places.values()]) as other:

        def found(kind: str, place: str) -> str:
            other.ask(kind, list(places).index(place))
            return other.answer()[0]

        for holder, mount in nas.mounts.items():
            for kind in ("flock", "posix"):
                with (mount / "locked").open("r+b") as file:
                    lock.lock(kind, file.fileno())
                    for place in places:
                        if kind == "flock" and place == "local":
                            continue  # of clients these are POSIX locks here, flock(2) is not
                        got = found(kind, place)
                        nas.p.require(
                            got == "held", f"{kind} held over {holder}: {place} got {got}"
                        )
                for place in places:
                    got = found(kind, place)
                    nas.p.require(
                        got == "free", f"{kind} given up over {holder}: {place} finds {got}"
                    )
            nas.p.say(f"locks held over {holder} exclude all others, and end")


SECTIONS = {
    "NFS: handles": Section(handles),
    "NFS: large folders": Section(folders),
    "NFS: owners, and hsmctl export": Section(owners),
    "NFS: locks": Section(locks),
}
