"""Shares of Samba: sections of a file that smb.conf includes, see smb.conf(5) and docs/samba.md.

Each share is a folder of the mount with what hsmfs needs of Samba: the attribute that tells which
files are on discs, Windows' ACLs and streams in extended attributes, reads that wait in threads
while the session goes on. It refuses clients while hsmfs is not mounted; else they would write
into the empty folder below.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
from collections.abc import Iterable
from pathlib import Path

from ..durable import sync
from ..errors import Conflict, NotFound
from . import nfs
from .share import Share, ShareError, replace, run

CONFIG = Path("/etc/samba/smb.conf")
FILE = Path("/etc/samba/hsmfs.conf")
PACKAGE = "samba"
_HEAD = """\
# Written by 'hsmctl export'; put shares of your own into smb.conf.
[global]
aio max threads = 1000

"""
"""Of each client: so many reads may wait for discs before one of a resident file waits, too."""
_SHARE = """\
[{name}]
path = {path}
root preexec = /usr/bin/mountpoint --quiet {mountpoint}
root preexec close = yes
read only = {read_only}
{valid_users}vfs objects = {snapshots}acl_xattr streams_xattr
ea support = yes
store dos attributes = yes
map archive = no
map hidden = no
map readonly = no
map system = no
aio read size = 1
aio write size = 1
use sendfile = no
strict sync = yes
oplocks = {oplocks}
kernel oplocks = no
kernel share modes = no
posix locking = {posix}
durable handles = {durable}
{shadow}
"""
"""vfs_acl_xattr(8), vfs_streams_xattr(8). Handles are durable only if locks are Samba's alone; and
a client that has an oplock or a lease keeps its locks to itself, so nobody else would see them."""
_SNAPSHOTS = """\
shadow:mountpoint = {mountpoint}
shadow:snapdir = {name}
"""
"""vfs_shadow_copy2(8): Windows' Previous Versions; its format of times is that of our folders."""
_NAME = re.compile(r"[^\x00-\x1f\"/\\\[\]:|<>+=;,*?%]{1,80}")
_TAKEN = ("global", "homes", "printers", "print$", "ipc$", "admin$")
_USER = re.compile(r"[@+&]*[^\s,%\"@+&=\[\]][^,%\"=\[\]\n]*")
_SECTION = re.compile(r"\[(.+)\]")


def shares() -> list[Share]:
    """All shares of hsmfs on this host. Raises ShareError."""
    return [_share(name, text) for name, text in _read().items()]


def _read() -> dict[str, str]:
    """The sections of our file, by name."""
    try:
        text = FILE.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as fault:
        raise ShareError(f"{FILE}: {fault}") from fault
    sections: dict[str, str] = {}
    name = ""
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if match := _SECTION.fullmatch(line.strip()):
            name = match[1]
            sections[name] = line
        elif name and (" = " in line or not line.strip()):
            sections[name] += line
        elif line.strip() and not line.startswith("#"):
            raise ShareError(
                f"{FILE}, line {number}: not as hsmctl writes it",
                next_step=f"put shares of your own into {CONFIG}",
            )
    sections.pop("global", None)
    return sections


def _share(name: str, section: str) -> Share:
    pairs = (line.partition(" = ") for line in section.splitlines()[1:])
    keys = {key: value for key, _, value in pairs}
    if "path" not in keys:
        raise ShareError(f"{FILE}: the share {name} has no path")
    only = "ro" if keys.get("read only") == "yes" else "rw"
    locks = "posix" if keys.get("posix locking") == "yes" else "smb"
    path, users = Path(keys["path"]), keys.get("valid users", "")
    return Share("smb", name, path, users, f"{only},locks={locks}")


def below(mountpoint: Path) -> list[Share]:
    """The shares of one hsmfs. Raises ShareError."""
    return [share for share in shares() if share.path.is_relative_to(mountpoint)]


def add(
    name: str, path: Path, mountpoint: Path, *, users: Iterable[str] = (),
    read_only: bool = False, posix_locks: bool | None = None, snapshots: str = "",
) -> Share:  # fmt: skip
    """Offer a folder under a name, or change how; Samba knows it when this returns.

    Without posix_locks, locks are shared with local programs and NFS if the folder is exported by
    NFS, too. snapshots: the mount's folder of older states, which Windows shows as Previous
    Versions; '' for none. Raises ShareError, with Samba's own words and nothing changed if it
    refuses, and Conflict if smb.conf has a share of that name.
    """
    if not _NAME.fullmatch(name) or name != name.strip() or name.lower() in _TAKEN:
        raise ShareError(
            f"'{name}' cannot be the name of a share",
            next_step="use letters, digits, - and _, at most 80",
        )
    _plain(path)
    _plain(mountpoint)
    to = [user.strip() for user in users]
    for user in to:
        if not _USER.fullmatch(user):
            raise ShareError(f"'{user}' names no user", next_step="give users, or groups as @name")
    if posix_locks is None:
        posix_locks = any(overlap(path, share.path) for share in nfs.exports())
    old = _read()
    others = {n: text for n, text in old.items() if n.lower() != name.lower()}
    if len(others) == len(old) and name.lower() in _sections():
        raise Conflict(
            f"{CONFIG} has a share of the name {name}", next_step="choose another name"
        )
    quoted = ", ".join(f'"{user}"' if " " in user else user for user in to)
    section = _SHARE.format(
        name=name, path=path, mountpoint=shlex.quote(str(mountpoint)), read_only=_yes(read_only),
        posix=_yes(posix_locks), durable=_yes(not posix_locks),
        oplocks=_yes(not posix_locks),
        snapshots="shadow_copy2 " if snapshots else "",
        shadow=_SNAPSHOTS.format(mountpoint=mountpoint, name=snapshots) if snapshots else "",
        valid_users=f"valid users = {quoted}\n" if quoted else "",
    )  # fmt: skip
    _store({**others, name: section})
    return _share(name, section)


def remove(name: str) -> Share:
    """Take a share back; clients that use it lose it now. Raises NotFound, or ShareError."""
    old = _read()
    known = next((n for n in old if n.lower() == name.lower()), None)
    if known is None:
        raise NotFound(f"there is no share {name} of hsmfs", next_step="see 'hsmctl export ls'")
    gone = _share(known, old.pop(known))
    _store(old)
    if running():
        _control("close-share", known)
    return gone


def running() -> bool:
    """Whether Samba serves files here."""
    try:
        _control("ping")
    except ShareError:
        return False
    return True


def reconnect(mountpoint: Path) -> None:
    """After a new mount: clients of its shares connect anew, for Samba still has the old one open.

    Their connections are broken off: they come again by themselves and go on. (A share that is
    closed by `smbcontrol close-share` is an error to programs, and Linux' client hung on it.)
    Raises ShareError.
    """
    names = {share.name.lower() for share in below(mountpoint)}
    if not names or not running():
        return
    words = ("smbstatus", f"--configfile={CONFIG}", "--shares", "--json")
    known = json.loads(run(words, package=PACKAGE))
    used = known.get("tcons", {}).values()
    for pid in {int(t["server_id"]["pid"]) for t in used if t["service"].lower() in names}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def overlap(one: Path, other: Path) -> bool:
    """Whether one folder is or lies in the other."""
    return one.is_relative_to(other) or other.is_relative_to(one)


def _store(sections: dict[str, str]) -> None:
    """Write the file and tell Samba; what it refuses is taken back."""
    before = FILE.read_text(encoding="utf-8") if FILE.exists() else None
    replace(FILE, _HEAD + "".join(sections.values()) if sections else None)
    try:
        _include(sections)
        if running():
            _control("reload-config")
    except ShareError:
        replace(FILE, before)
        raise


def _include(names: Iterable[str]) -> None:
    """Make smb.conf read our file. Raises ShareError if Samba does not see the shares then."""
    wanted = {name.lower() for name in names}
    if wanted <= _sections():
        return
    before = CONFIG.read_bytes()
    try:
        with CONFIG.open("ab") as config:
            config.write(f"\n# The shares of hsmfs\ninclude = {FILE}\n".encode())
        sync(CONFIG)
    except OSError as fault:
        raise ShareError(f"{CONFIG}: {fault.strerror}") from fault
    if lost := wanted - _sections():
        CONFIG.write_bytes(before)
        raise ShareError(f"Samba does not find {', '.join(sorted(lost))} in {FILE}")


def _sections() -> set[str]:
    """The names of all sections Samba knows, in small letters. Raises ShareError."""
    if not CONFIG.exists():
        raise ShareError(
            f"{CONFIG} is not there", next_step=f"install Samba: apt-get install {PACKAGE}"
        )
    words = ("testparm", "--suppress-prompt", str(CONFIG))
    lines = run(words, package=PACKAGE).splitlines()
    return {match[1].lower() for line in lines if (match := _SECTION.fullmatch(line))}


def _control(*words: str) -> str:
    return run(("smbcontrol", f"--configfile={CONFIG}", "smbd", *words), package=PACKAGE)


def _plain(path: Path) -> None:
    """Raises ShareError for what smb.conf has no way to write."""
    text = os.fsencode(path).decode("utf-8", "replace")
    if re.search(r"[\x00-\x1f%\"\ufffd]", text) or text != text.strip() or text.endswith("\\"):
        raise ShareError(
            f"the path {text!r} cannot be written into {CONFIG.name}",
            next_step="share a folder above, or rename it",
        )


def _yes(value: bool) -> str:
    return "yes" if value else "no"
