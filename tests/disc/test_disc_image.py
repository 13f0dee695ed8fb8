"""Images by the real xorriso, read back by our own parser and by stock tools."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from random import Random

import pytest

from hsmfs.disc.estimate import estimate_sectors
from hsmfs.disc.layout import Kind, StagedFile, place
from hsmfs.disc.reader import read_chunk
from hsmfs.errors import ChecksumMismatch, ForeignDisc, MediaError
from hsmfs.types import CHUNK, SECTOR, VolumeId

ODD_NAMES = [
    b"plain.txt",
    "影像/检查 一.dcm".encode(),
    b"bad\xff\xfe\x80utf8",
    b"n" * 255,
    b"m" * 253,
    b"\xe4" * 255,
    b"new\nline",
    b"back\\slash",
    b"\"quotes' `$(x)`",
    b"-leading dash",
    b"--",
    b" ",
    b"*?[x]",
    b"cr\rtail\r",
    b"tab\tbell\x07\x7f",
    b"semi;1",
    b"CASE",
    b"case",
    b".hidden",
    b"...",
    b"tail\\",
    b"/".join([b"deep"] * 40) + b"/end",
    b"#comment",
    b"x\\n",
    b"\\x41",
]


def odd_files(maker) -> list[StagedFile]:
    files = [maker.file(name, data=b"<%d>" % i) for i, name in enumerate(ODD_NAMES)]
    files.append(maker.file(b"link/a", b"link/b", b"other/c\xff", data=b"shared" * 1000))
    files.append(maker.file(b"empty"))
    files.append(maker.file(b"packed", b"packed too", data=b"ab" * 3_000_000, pack=True))
    files.append(maker.file(b"long/" + b"/".join([b"\xfe" * 250] * 5), data=b"far"))
    files.append(maker.file(b"y" * 253, data=b"z" * 20_000, pack=True))
    files.append(maker.other(Kind.DIR, b"empty folder", mode=0o2750))
    files.append(maker.other(Kind.DIR, b"link", mode=0o1777))
    files.append(maker.other(Kind.SYMLINK, b"sym", target=b"../a\xff b/./c", mode=0o777))
    files.append(
        maker.other(Kind.SYMLINK, b"sym2", target=b"/abs/" + b"t" * 250 + b"/x", mode=0o777)
    )
    files.append(maker.other(Kind.SYMLINK, b"sym3", target=b"/".join([b"k" * 190] * 5), mode=0o777))
    files.append(maker.other(Kind.SYMLINK, b"sym4", target=b"/".join([b"k" * 200] * 20)))
    files.append(maker.other(Kind.FIFO, b"fifo", mode=0o600))
    files.append(maker.file(b"attrs", data=b"x", xattrs={b"user.\xff": b"\0\1", b"user.t": b"v"}))
    return files


def test_every_odd_thing_comes_back(maker, opened) -> None:
    files = odd_files(maker)
    image, result = maker.build(*files)
    disc = opened(image)
    assert not result.changed
    assert disc.root_hash == result.root_hash
    assert result.size == image.stat().st_size
    for item in disc.manifest():
        staged = next(f for f in files if f.key == item.file.key)
        for field in (
            "paths",
            "kind",
            "mode",
            "uid",
            "gid",
            "mtime_ns",
            "atime_ns",
            "ctime_ns",
            "btime_ns",
            "xattrs",
            "digest",
            "target",
            "rdev",
            "frame_ends",
            "stored",
        ):
            assert getattr(item.file, field) == getattr(staged, field), field
    for _, part in disc.parts(VolumeId(7)):
        assert part.volume == 7
    assert [f for f in disc.verify() if f.problem] == []
    entries = {e.path: e for e in disc.iso.walk()}
    for name in ODD_NAMES:
        if len(name) != 255:
            assert entries[b"files/" + name].is_file
    assert max(len(name) for path in entries for name in path.split(b"/")) == 253
    a = entries[b"files/link/a"]
    assert (a.mode & 0o7777, a.uid) == (0o640, os.getuid())
    assert (
        a.ino == entries[b"files/other/c\xff"].ino and a.sector == entries[b"files/link/b"].sector
    )
    assert entries[b"files/link"].mode & 0o7777 == 0o1777
    assert entries[b"files/sym"].target == b"../a\xff b/./c"
    assert entries[b"files/sym2"].target == b"/abs/" + b"t" * 250 + b"/x"
    assert entries[b"files/sym3"].target == b"/".join([b"k" * 190] * 5)
    assert b"files/sym4" not in entries
    assert b"files/fifo" in entries and b"files/empty folder" in entries


def test_stock_tools_read_a_disc(maker, tmp_path: Path) -> None:
    image, _ = maker.build(*odd_files(maker))
    out = tmp_path / "out"
    subprocess.run(
        [
            "xorriso",
            "-no_rc",
            "-report_about",
            "SORRY",
            "-local_charset",
            "ISO-8859-1",
            "-charset",
            "ISO-8859-1",
            "-osirrox",
            "on",
            "-indev",
            image,
            "-extract",
            "/",
            out,
        ],
        check=True,
        capture_output=True,
    )
    done = subprocess.run(
        ["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=out, capture_output=True
    )
    assert done.returncode == 0, done
    plain = subprocess.run(
        ["zstd", "-dc", out / "files/packed.zst"], check=True, capture_output=True
    )
    assert plain.stdout == b"ab" * 3_000_000
    assert (out / "files/link/a").stat().st_mtime == 1_600_000_000


def test_chunks_are_read_by_sector_alone(maker, opened) -> None:
    data = os.urandom(1000) * 9000
    plain, packed = maker.file(b"a", data=data), maker.file(b"b", data=data, pack=True)
    image, _ = maker.build(plain, packed)
    raw = image.read_bytes()
    read_at = lambda at, n: raw[at * SECTOR : (at + n) * SECTOR]  # noqa: E731
    for item, part in opened(image).parts(VolumeId(1)):
        got = [read_chunk(part, i, item.file.digest, read_at) for i in item.file.chunks]
        assert b"".join(got) == data and len(got) == 3
        with pytest.raises(ValueError, match="not in part"):
            read_chunk(part, 3, item.file.digest, read_at)


@pytest.mark.parametrize("pack", [False, True])
def test_a_flipped_bit_is_found_and_its_sector_named(maker, opened, pack: bool) -> None:
    file = maker.file(b"a", data=os.urandom(1000) * 9000, pack=pack)
    image, result = maker.build(file)
    extent = result.sectors[file.key]
    at = extent.sector * SECTOR + (file.frame_ends[0] + 50 if pack else CHUNK + 5000)
    raw = bytearray(image.read_bytes())
    raw[at] ^= 4
    image.write_bytes(raw)
    (bad,) = (f for f in opened(image).verify() if f.problem)
    assert (
        bad.key == file.key
        and bad.sector is not None
        and bad.sector <= at // SECTOR < bad.sector + 2049
    )
    part = next(part for _, part in opened(image).parts(VolumeId(1)))
    with pytest.raises(ChecksumMismatch) as caught:
        read_chunk(part, 1, file.digest, lambda s, n: bytes(raw[s * SECTOR : (s + n) * SECTOR]))
    assert caught.value.sector == bad.sector


@pytest.mark.parametrize("part", ["seek table", "manifest", "snapshot"])
def test_damage_outside_of_chunks_is_found_too(maker, opened, tmp_path: Path, part: str) -> None:
    snapshot = tmp_path / "snapshot"
    snapshot.write_bytes(os.urandom(5000))
    file = maker.file(b"a", data=b"x" * 9_000_000, pack=True)
    image, result = maker.build(file, snapshot=snapshot)
    disc = opened(image)
    at = {
        "seek table": result.sectors[file.key].sector * SECTOR + file.stored - 3,
        "manifest": disc.iso.find(b"MANIFEST.jsonl").sector * SECTOR,
        "snapshot": disc.snapshot().sector * SECTOR + 4999,
    }[part]
    raw = bytearray(image.read_bytes())
    raw[at] ^= 1
    image.write_bytes(raw)
    if part == "manifest":
        with pytest.raises(ChecksumMismatch):
            list(opened(image).verify())
    else:
        (bad,) = (f for f in opened(image).verify() if f.problem)
        assert bad.sector is not None


def test_a_large_file_goes_in_parts_without_a_copy(maker, opened) -> None:
    data = os.urandom(2 * CHUNK + 100)
    whole = maker.file(b"big", b"big link", data=data)
    parts = [
        maker.of(
            whole.source, *whole.paths, ino=whole.ino, part=1, parts=2, length=CHUNK, stored=CHUNK
        ),
        maker.of(
            whole.source,
            *whole.paths,
            ino=whole.ino,
            part=2,
            parts=2,
            offset=CHUNK,
            source_offset=CHUNK,
            length=CHUNK + 100,
            stored=CHUNK + 100,
        ),
    ]
    got = b""
    for number, part in enumerate(parts, 1):
        image, _ = maker.build(part, name=f"{number}.iso")
        disc = opened(image)
        assert [f.name for f in disc.verify() if f.key] == [b"files/big.part-%04d-of-0002" % number]
        assert not [f for f in disc.verify() if f.problem]
        got += disc.iso.read(disc.iso.find(b"files/big.part-%04d-of-0002" % number))
    assert got == data


def test_derived_names_give_way_to_true_ones(maker, opened) -> None:
    packed = maker.file(b"a", data=b"x" * 10_000, pack=True)
    files = [
        packed,
        maker.file(b"a.zst", data=b"true"),
        maker.file(b"d", data=b"1"),
        maker.file(b"d/e", data=b"2"),
        maker.file(b"d/e", data=b"3"),
    ]
    stored = [item.data for item in place(files)]
    assert stored == [
        b"files.long/2-1.zst",
        b"files/a.zst",
        b"files.long/4-1",
        b"files/d/e",
        b"files.long/6-1",
    ]
    image, result = maker.build(*files)
    assert not result.changed and not [f for f in opened(image).verify() if f.problem]


def test_the_estimate_is_a_close_upper_bound(maker) -> None:
    files = odd_files(maker) + [maker.file(b"many/%04d" % i, data=b"x" * 3000) for i in range(3000)]
    _, result = maker.build(*files)
    estimate = estimate_sectors(files)
    assert result.size <= estimate * SECTOR <= result.size * 1.05 + 200 * SECTOR


@pytest.mark.parametrize(
    ("lengths", "folders"),
    [((200, 253), 3), ((100, 160), 20), ((150, 220), 50)],
)
def test_many_long_names_do_not_break_the_image(maker, opened, lengths, folders: int) -> None:
    random = Random(folders)
    files = [maker.other(Kind.DIR, b"%0200d" % i) for i in range(100)]
    for i in range(600):
        name = b"%d" % i + bytes(random.choices(range(97, 255), k=random.randint(*lengths) - 3))
        path = b"dir%d/" % random.randrange(folders) + name
        if i % 5:
            files.append(maker.file(path, data=b"%d" % i))
        else:
            files.append(maker.other(Kind.SYMLINK, path, target=b"t/" * random.randint(1, 400)))
    image, result = maker.build(*files)
    findings = list(opened(image).verify())
    assert not result.changed and not [f for f in findings if f.problem]
    assert sum(f.name.startswith(b"files/") for f in findings) > 3 * folders
    assert result.size <= estimate_sectors(files) * SECTOR


@pytest.mark.parametrize("cut", [0, 10 * SECTOR, 40 * SECTOR, -SECTOR])
def test_a_truncated_image_is_refused(maker, opened, cut: int) -> None:
    image, _ = maker.build(maker.file(b"a", data=b"x" * 100_000))
    os.truncate(image, cut if cut >= 0 else image.stat().st_size + cut)
    with pytest.raises(ForeignDisc, match=r"cut off|no ISO|only \d+ sectors"):
        opened(image)


def test_foreign_images_are_refused(tmp_path: Path, opened) -> None:
    (tmp_path / "zeros").write_bytes(bytes(1 << 20))
    with pytest.raises(ForeignDisc, match="no ISO 9660"):
        opened(tmp_path / "zeros")
    (tmp_path / "x/y").mkdir(parents=True)
    subprocess.run(["xorrisofs", "-quiet", "-o", tmp_path / "iso", tmp_path / "x"], check=True)
    with pytest.raises(ForeignDisc, match=r"no VOLUME\.json"):
        opened(tmp_path / "iso")


@pytest.mark.parametrize("how", ["grown", "gone", "shrunk"])
def test_a_source_that_changed_is_reported_not_fatal(maker, opened, how: str) -> None:
    file, other = maker.file(b"a", data=b"x" * 10_000), maker.file(b"b", data=b"kept")
    match how:
        case "grown":
            file.source.write_bytes(b"x" * 20_000)
        case "gone":
            file.source.unlink()
        case "shrunk":
            file.source.write_bytes(b"")
    _, result = maker.build(file, other)
    assert result.changed == (file.key,) and list(result.sectors) == [other.key]


def test_progress_is_told_and_its_error_ends_the_work(maker, tmp_path: Path) -> None:
    # A stand-in for xorriso, since the real one is done before it first speaks of progress.
    slow = tmp_path / "slow"
    slow.write_text(
        "#!/bin/sh\nprintf '\\rxorriso : UPDATE : Writing:      3s   50.0%%   fifo   2%%\\n' >&2\n"
        'exec xorriso "$@"\n'
    )
    slow.chmod(0o755)
    file = maker.file(b"a", data=bytes(10_000))
    seen: list[tuple[int, int]] = []
    maker.build(file, progress=lambda done, total: seen.append((done, total)), xorriso=str(slow))
    assert seen[0] == (3 * SECTOR, 10_000)

    def stop(done: int, total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        maker.build(file, progress=stop, xorriso=str(slow))
    assert not (tmp_path / "disc.iso").exists()


def test_an_old_image_is_written_over(maker, opened, tmp_path: Path) -> None:
    large = maker.file(b"large", data=Random(1).randbytes(3_000_000))
    image, before = maker.build(large)
    inode = image.stat().st_ino
    image, after = maker.build(maker.file(b"small", data=b"s" * 5000))
    assert image.stat().st_ino == inode
    assert image.stat().st_size == after.size < before.size
    disc = opened(image)
    assert [item.file.paths for item in disc.manifest()] == [(b"small",)]
    assert all(finding.problem is None for finding in disc.verify())


def test_a_failing_xorriso_is_a_media_error(maker, tmp_path: Path) -> None:
    (tmp_path / "false").write_text("#!/bin/sh\necho 'xorriso : FATAL : no room' >&2\nexit 5\n")
    (tmp_path / "false").chmod(0o755)
    with pytest.raises(MediaError, match="no room"):
        maker.build(maker.file(b"a", data=b"1"), xorriso=str(tmp_path / "false"))
    assert not (tmp_path / "disc.iso").exists()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_many_files_in_one_folder(maker, opened, count: int) -> None:
    source = maker.file(b"one for all", data=b"one").source
    files = [maker.of(source, b"many/\xff%d" % i, ino=100 + i) for i in range(count)]
    image, result = maker.build(*files)
    assert len(result.sectors) == count
    assert sum(f.problem is None for f in opened(image).verify()) == count + 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_file_over_4_gib_is_in_one_piece(maker, tmp_path: Path) -> None:
    source = tmp_path / "pool" / "huge"
    with source.open("wb") as out:
        out.truncate((1 << 32) + 5 * CHUNK)
        out.seek((1 << 32) + CHUNK)
        out.write(b"end")
    file = maker.of(source, b"huge", ino=99)
    image, result = maker.build(file)
    with image.open("rb") as raw:
        raw.seek(result.sectors[file.key].sector * SECTOR + (1 << 32) + CHUNK)
        assert result.sectors[file.key].stored == source.stat().st_size and raw.read(3) == b"end"


def test_the_root_hash_covers_everything(maker, opened) -> None:
    image, result = maker.build(maker.file(b"a", data=b"1"))
    disc = opened(image)
    sums = disc.iso.read(disc.iso.find(b"SHA256SUMS"))
    assert hashlib.sha256(sums).hexdigest() == disc.volume["sums_sha256"]
    assert hashlib.sha256(b"1").hexdigest().encode() + b"  files/a\n" in sums
    assert hashlib.sha256(disc.iso.read(disc.iso.find(b"VOLUME.json"))).digest() == result.root_hash
