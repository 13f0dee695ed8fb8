"""A sealed package: a folder of plain files under one signature, readable where it lies.

    SHA256SUMS               every file below; what is signed, and `sha256sum -c` reads
    SHA256SUMS.sealer.sig    the sealer's Ed25519 signature of SHA256SUMS, 64 bytes; written last
    SHA256SUMS.sealer.tsr    an RFC 3161 timestamp of that signature, if a TSA was asked
    SHA256SUMS.receiver.sig  the receiver's signature of SHA256SUMS, if they signed
    SEAL.json                the manifest: who, when, why, each file, folder and link
    sealer.pem receiver.pem  public keys or certificates of both parties
    files/                   the files

Blocking throughout. docs/sealing.md has it for strangers.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import __version__, clock, durable
from ..errors import BadSeal, Conflict
from . import sums, timestamp
from .keys import Party, Signer

SUMS, SEALER, RECEIVER = "SHA256SUMS", "SHA256SUMS.sealer.sig", "SHA256SUMS.receiver.sig"
STAMP, MANIFEST, FILES = "SHA256SUMS.sealer.tsr", "SEAL.json", "files"
_BLOCK = 1 << 20
_SEALED = 0o444
"""What a file's permissions become, which commits it in a retention folder."""
_BESIDE = {SUMS, SEALER, RECEIVER, STAMP}
"""What SHA256SUMS cannot list: it was there before them."""
Told = Callable[[bytes, int, str], None]
"""Called with each source file's path, its size and its SHA-256 when it was copied; may raise."""


@dataclass(slots=True)
class Sealed:
    """What was sealed: the package, how many files and bytes, SHA-256 of SHA256SUMS."""

    folder: Path
    files: int = 0
    bytes: int = 0
    sha256: str = ""
    stamped: str | None = None


def make(
    folder: Path, sources: list[Path], by: Signer, receiver: Party | None,
    *, reason: str, tsa: str | None, told: Told,
    recorded: Callable[[Sealed], object] = lambda made: None, authority: Path | None = None,
) -> Sealed:  # fmt: skip
    """Seal copies of files and trees into a new folder; durable and read-only at return.

    told: see Told. recorded: puts it on record; may raise. tsa: address of a TSA. authority: its
    certificate, if the timestamp is to be checked at once. Nothing is made read-only, which may be
    for decades, before all is there, stamped and on record: what fails is taken away again. A
    package whose making was cut off has no signature. Raises Conflict if the folder exists or lies
    in a source, or if two sources have one name, HsmError from the TSA, BadSeal of its timestamp,
    OSError.
    """
    names = [source.name for source in sources]
    if len(set(names)) != len(names):
        raise Conflict("two of the paths have the same name", next_step="seal them apart")
    for source in sources:
        if not source.is_symlink() and folder.resolve().is_relative_to(source.resolve()):
            raise Conflict(f"{folder} lies in {source}, which is to be sealed",
                           next_step="choose another --into")  # fmt: skip
    try:
        folder.mkdir()
    except FileExistsError:
        raise Conflict(f"{folder} exists already", next_step="choose another --name") from None
    try:
        made, written, signature = _fill(folder, sources, by, receiver, reason, told)
        if tsa is not None:
            token = timestamp.ask(tsa, signature)
            if authority is not None:
                timestamp.check(token, signature, authority)
            made.stamped = timestamp.at(token)
            _write(folder / STAMP, token)
            written.append(os.fsencode(STAMP))
        recorded(made)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    for path in written:
        os.chmod(os.path.join(os.fsencode(folder), path), _SEALED)
    _write(folder / SEALER, signature)
    (folder / SEALER).chmod(_SEALED)
    durable.sync(folder)
    durable.sync(folder.parent)
    return made


def _fill(
    folder: Path, sources: list[Path], by: Signer, receiver: Party | None, reason: str, told: Told
) -> tuple[Sealed, list[bytes], bytes]:
    """All but timestamp and signature; what it came to, the files' paths, and the signature."""
    made = Sealed(folder)
    entries: list[dict[str, Any]] = []
    lines: list[tuple[bytes, str]] = []
    (folder / FILES).mkdir()
    for source in sources:
        _copy(source, folder, f"{FILES}/{source.name}", entries, lines, told)
    made.files = len(lines)
    made.bytes = sum(entry.get("bytes", 0) for entry in entries)
    parties = {"sealer": by.party} | ({"receiver": receiver} if receiver else {})
    facts = {
        "what": "hsmfs sealed package", "version": 1, "hsmfs": __version__, "reason": reason,
        "sealed": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "parties": {
            who: {"name": one.name, "key_sha256": one.fingerprint} for who, one in parties.items()
        },
        "entries": entries,
    }  # fmt: skip
    own = {f"{who}.pem": one.pem for who, one in parties.items()}
    own[MANIFEST] = (json.dumps(facts, indent=1) + "\n").encode()
    for name, data in own.items():
        lines.append((name.encode(), hashlib.sha256(data).hexdigest()))
        _write(folder / name, data)
    text = b"".join(sums.line(sha256, path) for path, sha256 in lines)
    made.sha256 = hashlib.sha256(text).hexdigest()
    _write(folder / SUMS, text)
    return made, [*(path for path, _ in lines), os.fsencode(SUMS)], by.sign(text)


def countersign(folder: Path, by: Signer) -> None:
    """The receiver's signature beside the sealer's. Raises BadSeal if it is not theirs to sign."""
    text = _bytes(folder / SUMS)
    if not (folder / "receiver.pem").exists():
        raise BadSeal(f"{folder} names no receiver", next_step="seal it with --receiver")
    listed = Party(_bytes(folder / "receiver.pem"), "receiver.pem")
    if listed.fingerprint != by.party.fingerprint:
        raise BadSeal("the key is not that of the receiver whom the package names")
    if (folder / RECEIVER).exists():
        raise Conflict(f"{folder} is signed by its receiver already")
    _write(folder / RECEIVER, by.sign(text))
    (folder / RECEIVER).chmod(_SEALED)
    durable.sync(folder)


@dataclass(slots=True)
class Verdict:
    """What a check found: nothing in `wrong` if all is well; `said` in words, for people."""

    files: int = 0
    bytes: int = 0
    wrong: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


def verify(
    folder: Path, *, sealer: Party | None = None, authority: Path | None = None,
    told: Callable[[bytes], None] = lambda path: None,
) -> Verdict:  # fmt: skip
    """Check signatures, timestamp, and every byte. Without sealer the key in the package is
    believed, which proves that nothing changed, not who sealed it. Raises BadSeal if there is no
    package, OSError if something does not read."""
    found = Verdict()
    text, signature = _bytes(folder / SUMS), _bytes(folder / SEALER)
    _signature(found, folder, text, signature, "sealer", sealer)
    if (folder / RECEIVER).exists():
        _signature(found, folder, text, _bytes(folder / RECEIVER), "receiver", None)
    if (folder / STAMP).exists():
        _stamp(found, _bytes(folder / STAMP), signature, authority)
    elif authority is not None:
        found.wrong.append("there is no timestamp")
    listed = dict(sums.parse(text))
    for path, sha256 in listed.items():
        told(path)
        _one(found, folder, path, sha256)
    _entries(found, folder)
    top = os.fsencode(folder)
    for path in _files_below(top):
        name = os.path.relpath(path, top)
        if name not in listed and os.fsdecode(name) not in _BESIDE:
            found.wrong.append(f"{_shown(name)} does not belong to the package")
    return found


def _one(found: Verdict, folder: Path, path: bytes, sha256: str) -> None:
    if path.startswith(b"/") or b".." in path.split(b"/"):
        found.wrong.append(f"{_shown(path)} leads out of the package")
        return
    whole = os.path.join(os.fsencode(folder), path)
    try:
        fd = os.open(whole, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as fault:
        found.wrong.append(f"{_shown(path)} is missing: {fault.strerror}")
        return
    with open(fd, "rb") as file:
        seen = hashlib.file_digest(file, "sha256").hexdigest()
        found.bytes += os.fstat(file.fileno()).st_size
    found.files += 1
    if seen != sha256:
        found.wrong.append(f"{_shown(path)} was changed: its SHA-256 is {seen}")


def _entries(found: Verdict, folder: Path) -> None:
    """Links and folders, which SHA256SUMS cannot list, are as in the manifest."""
    try:
        entries = json.loads(_bytes(folder / MANIFEST))["entries"]
    except (ValueError, KeyError) as fault:
        found.wrong.append(f"{MANIFEST} does not decode: {fault}")
        return
    links, folders, top = set[bytes](), {FILES.encode()}, os.fsencode(folder)
    for entry in entries:
        path = base64.b64decode(entry["path_b64"])
        whole = os.path.join(top, path)
        if entry["kind"] == "link":
            links.add(path)
            target = base64.b64decode(entry["target_b64"])
            if not os.path.islink(whole) or os.readlink(whole) != target:
                found.wrong.append(f"the link {_shown(path)} was changed")
        elif entry["kind"] == "folder":
            folders.add(path)
            if not os.path.isdir(whole):
                found.wrong.append(f"the folder {_shown(path)} is missing")
    for path in _files_below(top, links=True):
        name = os.path.relpath(path, top)
        if name not in links:
            found.wrong.append(f"the link {_shown(name)} does not belong to the package")
    for path, _, _ in os.walk(top):
        name = os.path.relpath(path, top)
        if path != top and name not in folders:
            found.wrong.append(f"the folder {_shown(name)} does not belong to the package")


def _signature(
    found: Verdict, folder: Path, text: bytes, signature: bytes, who: str, known: Party | None
) -> None:
    listed = Party(_bytes(folder / f"{who}.pem"), f"{who}.pem")
    if known is not None and known.fingerprint != listed.fingerprint:
        found.wrong.append(f"the {who} is not the one expected: key {listed.fingerprint}")
    elif not listed.signed(text, signature):
        found.wrong.append(f"the {who}'s signature does not hold")
    else:
        believed = "" if known is not None else ", by the key in the package"
        found.said.append(f"signed by the {who} {listed.name} key {listed.fingerprint}{believed}")


def _stamp(found: Verdict, token: bytes, signature: bytes, authority: Path | None) -> None:
    try:
        if authority is not None:
            timestamp.check(token, signature, authority)
        known = "" if authority is not None else " (not checked: no certificate of the TSA given)"
        found.said.append(f"timestamp {timestamp.at(token)}{known}")
    except BadSeal as fault:
        found.wrong.append(fault.message)


def _copy(
    source: Path, folder: Path, path: str, entries: list[dict[str, Any]],
    lines: list[tuple[bytes, str]], told: Told,
) -> None:  # fmt: skip
    """A file, link or tree into the package, depth first."""
    attr, target = source.lstat(), folder / path
    entry: dict[str, Any] = {
        "path": os.fsencode(path).decode("utf-8", "replace"),
        "path_b64": base64.b64encode(os.fsencode(path)).decode(), "mtime_ns": attr.st_mtime_ns,
    }  # fmt: skip
    entries.append(entry)
    if stat.S_ISDIR(attr.st_mode):
        entry["kind"] = "folder"
        if path != FILES:
            target.mkdir()
        for child in sorted(source.iterdir()):
            _copy(child, folder, f"{path}/{child.name}", entries, lines, told)
        durable.sync(target)
    elif stat.S_ISLNK(attr.st_mode):
        entry["kind"] = "link"
        entry["target_b64"] = base64.b64encode(os.readlink(os.fsencode(source))).decode()
        target.symlink_to(os.readlink(source))
    elif stat.S_ISREG(attr.st_mode):
        sha256, size = _copy_file(source, target)
        # Of a record atime says until when it is kept; the copy is kept as its folder says.
        os.utime(target, ns=(clock.now_ns(), attr.st_mtime_ns))
        told(os.fsencode(source), size, sha256)
        entry |= {"kind": "file", "bytes": size, "sha256": sha256}
        lines.append((os.fsencode(path), sha256))
    else:
        raise Conflict(f"{source} is neither file, folder nor link", next_step="leave it out")


def _copy_file(source: Path, target: Path) -> tuple[str, int]:
    """SHA-256 of what was read and written, and its size; it did not change meanwhile."""
    sha, size = hashlib.sha256(), 0
    with source.open("rb", buffering=0) as file, open(target, "xb", 0, opener=_private) as out:
        before = os.fstat(file.fileno())
        while data := file.read(_BLOCK):
            sha.update(data)
            size += len(data)
            view = memoryview(data)
            while view:
                view = view[out.write(view) :]
        after = os.fstat(file.fileno())
        if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, size):
            raise Conflict(f"{source} changed while it was sealed", next_step="seal it again")
        os.fsync(out.fileno())
    return sha.hexdigest(), size


def _files_below(folder: bytes, *, links: bool = False) -> Iterator[bytes]:
    for top, folders, files in os.walk(folder):
        for name in files + folders:
            whole = os.path.join(top, name)
            if os.path.islink(whole) == links and (links or not os.path.isdir(whole)):
                yield whole


def _private(path: str, flags: int) -> int:
    """Until it is sealed only who seals may write a file, or read it."""
    return os.open(path, flags, 0o600)


def _write(path: Path, data: bytes) -> None:
    """A new file, durable."""
    with open(path, "xb", opener=_private) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise BadSeal(f"{path} is missing: this is no sealed package, or not a whole one") from None


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace").replace("\n", "\\n")
