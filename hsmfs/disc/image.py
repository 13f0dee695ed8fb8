"""One volume's image: xorriso makes it from the files, `lay` adds the bytes of larger ones.

xorriso gets a command file that maps each source to its place. libisofs keeps a folder's children
in a sorted list and looks for a place from its front, so the commands go in descending order of
names: 100,000 files in a folder then take seconds, and in any other order many minutes. Rock Ridge
holds owner, mode and mtime (seconds); the manifest holds the full truth.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from hsmfs.disc.iso9660 import Entry, Iso
from hsmfs.disc.lay import STUB, laid, lay
from hsmfs.disc.layout import (
    Key,
    Kind,
    Placed,
    StagedFile,
    VolumeLabel,
    ancestors,
    place,
    volume_id,
)
from hsmfs.disc.manifest import (
    AUDIT,
    CATALOG,
    MANIFEST,
    README,
    SUMS,
    VOLUME,
    write_manifest,
    write_volume,
)
from hsmfs.disc.sums import file_sums, readme, sums_line
from hsmfs.errors import ConfigError, MediaError
from hsmfs.types import SECTOR

Progress = Callable[[int, int], None]
"""(bytes of files written, bytes of files in all), about twice a second.

What it raises ends the work and is passed on.
"""

_CHARSET = "ISO-8859-1"
"""Given as both the local and the image's character set, every byte maps to itself."""
_COMPLIANCE = (
    "clear:iso_9660_level=3:deep_paths:long_paths:only_iso_version:always_gmt:new_rr:no_emul_toc"
)
_LATEST = (1 << 32) - 1
_SPECIAL = {
    Kind.FIFO: stat.S_IFIFO,
    Kind.SOCKET: stat.S_IFSOCK,
    Kind.CHAR: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
}
_SOME_PROBLEM = 32
_HEADER = 32 * SECTOR
"""Bytes at the front of an image in which a reader looks for what it is."""
_WRITTEN = re.compile(rb": Writing: +(\d+)s ")


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a staged file's stored bytes lie on the volume: first sector, bytes."""

    sector: int
    stored: int


@dataclass(frozen=True, slots=True)
class ImageResult:
    """A finished image: its bytes, each file's place, and the volume's root hash.

    changed holds the keys of those files whose source vanished, changed size while it was read, or
    does not read: what is there of an image does not hold what the manifest says of these. Do not
    burn it: drop them and build it again. unreadable says why of those that do not read.
    """

    size: int
    sectors: Mapping[Key, Extent]
    root_hash: bytes
    changed: tuple[Key, ...]
    unreadable: Mapping[Key, str] = field(default_factory=dict)


def build_image(
    files: Sequence[StagedFile],
    label: VolumeLabel,
    dest: Path,
    *,
    staging: Path,
    snapshot: Path | None = None,
    audit: Path | None = None,
    progress: Progress | None = None,
    xorriso: str = "xorriso",
) -> ImageResult:
    """Write the image of a volume to dest, which may be an old image. Blocking; does not sync.

    staging is a folder for small files (manifest and the like), made and removed here; snapshot
    is put on the disc as CATALOG.sqlite.zst, audit as AUDIT.jsonl.zst. Raises MediaError if
    xorriso fails (dest is then removed), ConfigError if there is no xorriso, ValueError for files
    that cannot be told apart.
    """
    with building(dest, staging):
        known, unreadable = _with_checksums(files)
        if unreadable:
            return ImageResult(0, {}, b"", tuple(unreadable), unreadable)
        placed = place(known)
        extra = {CATALOG: snapshot, AUDIT: audit}
        given = {name: path for name, path in extra.items() if path is not None}
        root_hash = _describe(placed, label, staging, given)
        script = staging / "commands"
        with script.open("wb") as out:
            out.writelines(_commands(placed, staging, given))
        total = sum(file.stored for file in files)
        late = [item for item in placed if laid(item.file, item.names)]
        early = total - sum(item.file.stored for item in late)

        def copied(done: int) -> None:
            if progress is not None:
                progress(early + done, total)

        problems = run_xorriso(arguments(xorriso, label, dest, script), dest, progress, total)
        moved = lay(dest, late, copied) if late else {}
        return _read_back(dest, placed, root_hash, problems, moved)


@contextmanager
def building(dest: Path, staging: Path) -> Iterator[None]:
    """The folder for small files while an image is made; what fails leaves no image.

    An old image is made to look blank to xorriso: its blocks and its memory are written over then,
    which costs a fraction of new ones.
    """
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        if dest.exists():
            with dest.open("r+b") as old:
                old.write(bytes(_HEADER))
        yield
    except BaseException:
        dest.unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _with_checksums(
    files: Sequence[StagedFile],
) -> tuple[list[StagedFile], dict[Key, str]]:
    """The files with the checksums of what is stored, and those that do not read."""
    known, unreadable = [], {}
    for file in files:
        try:
            known.append(_with_checksum(file))
        except OSError as fault:
            unreadable[file.key] = str(fault)
    return known, unreadable


def _with_checksum(file: StagedFile) -> StagedFile:
    if file.kind is not Kind.FILE or file.stored_sha256 is not None:
        return file
    assert file.digest is not None and file.source is not None
    if file.parts == 1 and not file.compressed:
        return replace(file, stored_sha256=file.digest.sha256)
    sha = hashlib.sha256()
    with file.source.open("rb") as source:
        source.seek(file.source_offset)
        left = file.stored
        while left and (piece := source.read(min(left, 1 << 20))):
            sha.update(piece)
            left -= len(piece)
    return replace(file, stored_sha256=sha.digest())


def _describe(
    placed: Sequence[Placed], label: VolumeLabel, staging: Path, given: Mapping[str, Path]
) -> bytes:
    """Write the disc's own files; the root hash is returned."""
    with (staging / MANIFEST).open("wb") as out:
        write_manifest(placed, out)
    (staging / README).write_bytes(readme(label))
    own = {MANIFEST: sha256_of(staging / MANIFEST), README: sha256_of(staging / README)}
    own |= {name: sha256_of(path) for name, path in given.items()}
    with (staging / SUMS).open("wb") as out:
        out.writelines(sums_line(sha, name.encode()) for name, sha in own.items())
        out.writelines(file_sums(placed))
    own[SUMS] = sha256_of(staging / SUMS)
    volume = write_volume(
        label,
        files=sum(item.file.kind is Kind.FILE for item in placed),
        stored=sum(item.file.stored for item in placed),
        sums={name: sha.hex() for name, sha in own.items()},
    )
    (staging / VOLUME).write_bytes(volume)
    return hashlib.sha256(volume).digest()


def sha256_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _commands(
    placed: Sequence[Placed], staging: Path, given: Mapping[str, Path]
) -> Iterator[bytes]:
    """xorriso's commands, in descending order of names, folders after what is in them."""
    own = {name: staging / name for name in (MANIFEST, README, SUMS, VOLUME)} | dict(given)
    names = [(stored, item) for item in placed for stored in item.names]
    names.sort(key=lambda pair: pair[0].split(b"/"), reverse=True)
    implied: set[bytes] = set()
    for number, (stored, item) in enumerate(names):
        file = item.file
        if file.kind is Kind.DIR:
            if stored not in implied:
                yield b"-mkdir %s --\n" % _word(b"/" + stored)
        elif not (made := _insert(item, stored, staging / f"odd-{number}")):
            continue
        else:
            yield made
        implied.update(ancestors(stored))
        yield from _attributes(b"/" + stored, file.mode, file.uid, file.gid, file.mtime_ns)
    if b"files" not in implied:
        yield b"-mkdir /files --\n"
    yield from own_files(own)


def own_files(own: Mapping[str, Path]) -> Iterator[bytes]:
    """The commands that put a disc's own files into its root, in descending order of names."""
    for name, source in sorted(own.items(), reverse=True):
        path = b"/" + name.encode()
        yield b"-map_single %s %s\n" % (_word(os.fsencode(os.path.abspath(source))), _word(path))
        yield from _attributes(path, 0o444, 0, 0, None)


def _insert(item: Placed, stored: bytes, odd: Path) -> bytes:
    """The command that puts one name there; empty if this process may not make such a file."""
    file = item.file
    to = _word(b"/" + stored)
    if file.kind is Kind.FILE:
        assert file.source is not None
        source = _word(os.fsencode(os.path.abspath(file.source)))
        if laid(file, item.names):
            return b"-cut_out %s %d %d %s\n" % (source, file.source_offset, STUB, to)
        if file.parts > 1 and not file.compressed:
            return b"-cut_out %s %d %d %s\n" % (source, file.source_offset, file.stored, to)
        return b"-map_single %s %s\n" % (source, to)
    if file.kind is Kind.SYMLINK:
        os.symlink(file.target, odd)
    else:
        try:
            os.mknod(odd, _SPECIAL[file.kind] | 0o600, file.rdev)
        except PermissionError:
            return b""
    return b"-map_single %s %s\n" % (_word(os.fsencode(odd)), to)


def _attributes(
    path: bytes, mode: int, uid: int, gid: int, mtime_ns: int | None
) -> Iterator[bytes]:
    word = _word(path)
    yield b"-chown %d %s --\n-chgrp %d %s --\n-chmod 0%o %s --\n" % (
        uid,
        word,
        gid,
        word,
        mode,
        word,
    )
    if mtime_ns is not None:
        yield b"-alter_date m-c =%d %s --\n" % (min(max(mtime_ns // 10**9, 0), _LATEST), word)


def _word(text: bytes) -> bytes:
    """Text as a quoted word under -backslash_codes: whatever could end or change it is in hex."""
    return b'"' + re.sub(rb'[\x00-\x1f"\\\x7f]', lambda m: b"\\x%02x" % m[0][0], text) + b'"'


def arguments(xorriso: str, label: VolumeLabel, dest: Path, script: Path) -> list[str]:
    return [
        xorriso,
        "-no_rc",
        "-report_about",
        "UPDATE",
        "-abort_on",
        "FATAL",
        "-return_with",
        "SORRY",
        str(_SOME_PROBLEM),
        "-local_charset",
        _CHARSET,
        "-charset",
        _CHARSET,
        "-backslash_codes",
        "with_quoted_input",
        "-iso_rr_pattern",
        "off",
        "-disk_pattern",
        "off",
        "-follow",
        "off",
        "-hardlinks",
        "on",
        "-acl",
        "off",
        "-xattr",
        "off",
        "-md5",
        "off",
        "-compliance",
        _COMPLIANCE,
        "-pacifier",
        "interval=0.5",
        "-outdev",
        f"stdio:{os.path.abspath(dest)}",
        "-volid",
        volume_id(label.barcode),
        "-application_id",
        "HSMFS DISC FORMAT 1",
        "-padding",
        "0",
        "-close",
        "on",
        "-stdio_sync",
        "off",
        "-options_from_file",
        os.path.abspath(script),
        "-end",
    ]


def run_xorriso(
    words: list[str], dest: Path, progress: Progress | None, total: int
) -> list[str]:
    """Run xorriso; its complaints are returned. Raises MediaError if it failed."""
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C", "TZ": "UTC"},
        )
    except FileNotFoundError as error:
        raise ConfigError(
            f"{words[0]} is not installed", next_step="apt install xorriso"
        ) from error
    problems: list[str] = []
    with process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                _heed(line, problems, progress, total)
        except BaseException:
            process.kill()  # its handler of SIGTERM may hang; what it wrote is removed anyway
            raise
    if process.returncode not in (0, _SOME_PROBLEM):
        raise MediaError(
            f"xorriso ended with {process.returncode} writing {dest}: {'; '.join(problems[-5:])}",
            next_step="check the spool's free space and the log",
        )
    if process.returncode and not problems:
        problems.append("xorriso met a problem and did not name it")
    return problems if process.returncode else []


def _heed(line: bytes, problems: list[str], progress: Progress | None, total: int) -> None:
    for piece in line.split(b"\r"):
        if match := _WRITTEN.search(piece):
            if progress is not None:
                progress(min(int(match[1]) * SECTOR, total), total)
        elif re.search(rb": (SORRY|MISHAP|FAILURE|FATAL|ABORT) :", piece):
            problems.append(piece.decode("utf-8", "replace").strip())
            del problems[:-20]


def _read_back(
    dest: Path,
    placed: Sequence[Placed],
    root_hash: bytes,
    problems: list[str],
    moved: Mapping[Key, str],
) -> ImageResult:
    """Find each file in the finished image; moved ones are known not to be in it, and why."""
    with dest.open("r+b") as image:
        size = os.fstat(image.fileno()).st_size
        iso = Iso(lambda at, n: os.pread(image.fileno(), n * SECTOR, at * SECTOR), size // SECTOR)
        entries: dict[bytes, Entry] = {entry.path: entry for entry in iso.walk()}
        size = iso.sectors * SECTOR
        image.truncate(size)
    sectors: dict[Key, Extent] = {}
    changed: list[Key] = []
    for item in placed:
        if item.file.kind is not Kind.FILE or item.data is None:
            continue
        found = [entries.get(name) for name in item.names]
        right = all(entry is not None and entry.size == item.file.stored for entry in found)
        if right and item.file.key not in moved:
            assert found[0] is not None
            sectors[item.file.key] = Extent(found[0].sector, found[0].size)
        else:
            changed.append(item.file.key)
    if missing := {MANIFEST, README, SUMS, VOLUME} - {e.decode("latin1") for e in entries}:
        raise MediaError(f"the image {dest} lacks {missing}: {'; '.join(problems)}")
    if problems and not changed:
        changed.extend(_blamed(placed, problems))
    unreadable = {key: why for key, why in moved.items() if why}
    return ImageResult(size, sectors, root_hash, tuple(changed), unreadable)


def _blamed(placed: Sequence[Placed], problems: list[str]) -> Iterator[Key]:
    """The files that xorriso's complaints name; if they name none, the complaint is raised."""
    text = "\n".join(problems)
    blamed = [
        item.file.key
        for item in placed
        if item.file.source is not None and os.fspath(item.file.source) in text
    ]
    if not blamed:
        raise MediaError(f"xorriso met a problem: {text}", next_step="see the log")
    yield from blamed
