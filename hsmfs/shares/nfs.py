"""Exports of the kernel's NFS server: the lines of /etc/exports.d/hsmfs.exports, see exports(5).

Each path has an fsid of its own that follows from the path, so that the handles of clients stay
valid however often it is exported anew. `mountpoint=` keeps the server from offering the empty
folder below while hsmfs is not mounted: clients wait meanwhile.
"""

from __future__ import annotations

import os
import re
import uuid
from pathlib import Path

from ..errors import NotFound
from .share import Share, ShareError, replace, run

FILE = Path("/etc/exports.d/hsmfs.exports")
PACKAGE = "nfs-kernel-server"
DEFAULTS = ("rw", "sync", "root_squash", "no_subtree_check")
_HEAD = "# Written by 'hsmctl export'; each line is one path for one client.\n"
_OURS = ("fsid", "mountpoint", "mp")
_FALSE = {
    "async": "the server would answer before bytes are safe",
    "subtree_check": "handles of files that are renamed would break",
}
_OPPOSITES = (
    ("rw", "ro"), ("root_squash", "no_root_squash", "all_squash"), ("sync",), ("no_subtree_check",),
)  # fmt: skip
_NAMESPACE = uuid.UUID("8d1c3f0a-5b6e-4d57-9a33-0b1f6c9d2e74")
_LINE = re.compile(r"(\S+) (\S+)\((\S*)\)")
_SAFE = re.compile(rb"[A-Za-z0-9/_.,:@%+=~-]")


def fsid(path: Path) -> uuid.UUID:
    """What handles of the export begin with: the same for the same path, for ever."""
    return uuid.uuid5(_NAMESPACE, os.fsencode(path).hex())


def exports() -> list[Share]:
    """All exports of hsmfs on this host. Raises ShareError."""
    try:
        text = FILE.read_text(encoding="ascii")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as fault:
        raise ShareError(f"{FILE}: {fault}") from fault
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ShareError(
                f"{FILE}, line {number}: not as hsmctl writes it",
                next_step="put exports of your own into another file of /etc/exports.d",
            )
        path = _unescaped(match[1])
        found.append(Share("nfs", str(path), path, match[2], match[3]))
    return found


def below(mountpoint: Path) -> list[Share]:
    """The exports of one hsmfs. Raises ShareError."""
    return [share for share in exports() if share.path.is_relative_to(mountpoint)]


def add(path: Path, clients: str, mountpoint: Path, options: tuple[str, ...] = ()) -> Share:
    """Export a folder to clients, or change how; the server knows it when this returns.

    Raises ShareError, with the server's own words and nothing changed if it refuses.
    """
    if not clients or re.search(r"[\s()#\"\\]", clients) or not clients.isascii():
        raise ShareError(
            f"'{clients}' names no clients",
            next_step="give a host, a network (10.1.0.0/16), a netgroup (@name) or '*'",
        )
    whole = _options(path, mountpoint, options)
    share = Share("nfs", str(path), path, clients, whole)
    kept = [s for s in exports() if (s.path, s.to) != (path, clients)]
    _store([*kept, share])
    return share


def remove(path: Path, clients: str | None = None) -> list[Share]:
    """Take an export back, from one kind of clients or from all; those taken back.

    Raises NotFound, or ShareError.
    """
    old = exports()
    gone = [s for s in old if s.path == path and clients in (None, s.to)]
    if not gone:
        to = f" to {clients}" if clients else ""
        raise NotFound(f"{path} is not exported{to}", next_step="see 'hsmctl export ls'")
    _store([s for s in old if s not in gone])
    return gone


def reload() -> None:
    """Make the kernel and mountd know the files, and forget what they knew. Raises ShareError."""
    run(("exportfs", "-r"), package=PACKAGE)
    flush()


def flush() -> None:
    """Make the kernel ask mountd anew for each export. Raises ShareError."""
    run(("exportfs", "-f"), package=PACKAGE)


def _store(shares: list[Share]) -> None:
    """Write the file and tell the server; what it refuses is taken back."""
    before = FILE.read_text(encoding="ascii") if FILE.exists() else None
    lines = (f"{_escaped(s.path)} {s.to}({s.options})\n" for s in shares)
    replace(FILE, _HEAD + "".join(sorted(lines)) if shares else None)
    try:
        reload()
    except ShareError:
        replace(FILE, before)
        raise


def _options(path: Path, mountpoint: Path, given: tuple[str, ...]) -> str:
    """What is wanted, what else is the default, and what is ours alone to say."""
    for option in given:
        word = option.partition("=")[0]
        if word in _OURS or not re.fullmatch(r"[a-z_]+(=[^\s,()]+)?", option):
            raise ShareError(
                f"the option '{option}' is not yours to give",
                next_step="see exports(5); hsmctl gives fsid and mountpoint itself",
            )
        if word in _FALSE:
            raise ShareError(
                f"the option '{option}' is refused: {_FALSE[word]}", next_step="leave it out"
            )
    wanted = list(given)
    for default in DEFAULTS:
        rivals = next(group for group in _OPPOSITES if default in group)
        if not any(option in rivals for option in given):
            wanted.append(default)
    mount = _escaped(mountpoint)
    if "\\" in mount or "," in mount:
        raise ShareError(
            f"the mountpoint {mountpoint} cannot be written as an option of an export",
            next_step="mount hsmfs on a path of plain letters",
        )
    return ",".join([*wanted, f"fsid={fsid(path)}", f"mountpoint={mount}"])


def _escaped(path: Path) -> str:
    """A path as exports(5) has it: what is not plain as an octal number."""
    return "".join(
        chr(byte) if _SAFE.match(bytes([byte])) else f"\\{byte:03o}" for byte in os.fsencode(path)
    )


def _unescaped(text: str) -> Path:
    raw = re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), text.encode("ascii"))
    return Path(os.fsdecode(raw))
