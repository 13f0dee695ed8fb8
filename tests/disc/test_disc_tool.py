"""tools/hsm-disc, run isolated: no hsmfs and no site packages can be imported."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hsmfs.disc.layout import Kind
from hsmfs.types import CHUNK, SECTOR, DataVersion

TOOL = Path(__file__).parents[2] / "tools" / "hsm-disc"
LABEL_LATER = {"created_ns": 1_800_000_000_000_000_000, "barcode": "HSM002L1"}


def run(
    *args: object, site: bool = False, path: str | None = None
) -> subprocess.CompletedProcess[bytes]:
    flags = ["-I"] if site else ["-I", "-S"]
    env = {**os.environ, **({"PATH": path} if path is not None else {})}
    return subprocess.run(
        [sys.executable, *flags, str(TOOL), *map(str, args)], capture_output=True, env=env
    )


@pytest.mark.parametrize("site", [False, True], ids=["zstd program", "zstandard"])
def test_extract_gives_everything_back(maker, tmp_path: Path, site: bool) -> None:
    data = os.urandom(1000) * 9000
    image, _ = maker.build(
        maker.file(
            b"a/x\xff\n\\", b"b/link", data=b"one", mode=0o600, xattrs={b"user.k\xff": b"v\0"}
        ),
        maker.file(b"packed", data=data, pack=True),
        maker.file(b"empty"),
        maker.file(b"far/" + b"/".join([b"d" * 200] * 6), data=b"far"),
        maker.file(b"n" * 255, data=b"q"),
        maker.other(Kind.DIR, b"folder", mode=0o2710),
        maker.other(Kind.DIR, b"a", mode=0o500),
        maker.other(Kind.SYMLINK, b"s", target=b"gone/\xff", mode=0o777),
        maker.other(Kind.SYMLINK, b"s2", target=b"k" * 3000, mode=0o777),
        maker.other(Kind.FIFO, b"fifo"),
    )
    out = os.fsencode(tmp_path / "out")
    done = run("extract", image, "-C", tmp_path / "out", site=site)
    assert done.returncode == 0, done
    first = out + b"/a/x\xff\n\\"
    assert Path(os.fsdecode(first)).read_bytes() == b"one" and os.path.samefile(
        first, out + b"/b/link"
    )
    assert os.getxattr(first, b"user.k\xff") == b"v\0"
    assert os.stat(first).st_mtime_ns == 1_600_000_000_123_456_789
    assert stat.S_IMODE(os.stat(out + b"/folder").st_mode) == 0o2710
    assert os.stat(out + b"/a").st_mtime_ns == 1_600_000_000_123_456_789
    assert (tmp_path / "out/packed").read_bytes() == data
    assert os.readlink(out + b"/s") == b"gone/\xff" and os.readlink(out + b"/s2") == b"k" * 3000
    assert stat.S_ISFIFO(os.stat(out + b"/fifo").st_mode)
    assert (tmp_path / "out/far").is_dir() and (tmp_path / "out/empty").stat().st_size == 0
    os.chmod(out + b"/a", 0o700)
    again = run("extract", image, "-C", tmp_path / "out", "--json", site=site)
    assert again.returncode == 1 and b"exists already" in again.stderr


def test_parts_from_several_discs_are_joined(maker, tmp_path: Path, conf_label) -> None:
    data = os.urandom(2 * CHUNK + 100)
    whole = maker.file(b"big", b"link", data=data)
    images = []
    for part in (1, 2):
        length = CHUNK if part == 1 else CHUNK + 100
        image, _ = maker.build(
            maker.of(
                whole.source,
                *whole.paths,
                ino=whole.ino,
                part=part,
                parts=2,
                offset=(part - 1) * CHUNK,
                source_offset=(part - 1) * CHUNK,
                length=length,
                stored=length,
            ),
            name=f"{part}.iso",
        )
        images.append(image)
        assert run("verify", image).returncode == 0
    alone = run("extract", images[0], "-C", tmp_path / "alone")
    assert alone.returncode == 1 and b"lacks part 2 of 2" in alone.stderr
    assert run("extract", *reversed(images), "-C", tmp_path / "out").returncode == 0
    assert (tmp_path / "out/big").read_bytes() == data
    assert os.path.samefile(tmp_path / "out/big", tmp_path / "out/link")


def test_the_newest_version_wins(maker, tmp_path: Path, conf_label) -> None:
    old = maker.file(b"a", data=b"old")
    new = replace(
        maker.of(maker.file(b"a", data=b"new!").source, b"a", ino=old.ino), version=DataVersion(2)
    )
    one, _ = maker.build(old, name="1.iso")
    two, _ = maker.build(new, name="2.iso", label=replace(conf_label, **LABEL_LATER))
    assert run("extract", two, one, "-C", tmp_path / "out").returncode == 0
    assert (tmp_path / "out/a").read_bytes() == b"new!"


@pytest.mark.parametrize("pack", [False, True])
def test_damage_is_found_and_not_extracted(maker, tmp_path: Path, pack: bool) -> None:
    file = maker.file(b"bad", data=b"x" * 6_000_000, pack=pack)
    image, result = maker.build(file, maker.file(b"good", data=b"fine"))
    with image.open("r+b") as raw:
        raw.seek(result.sectors[file.key].sector * SECTOR + (20 if pack else CHUNK + 20))
        raw.write(b"\x55\x55")
    done = run("verify", image, "--json")
    (problem,) = json.loads(done.stdout)["problems"]
    first = result.sectors[file.key].sector + (0 if pack else CHUNK // SECTOR)
    assert (
        done.returncode == 1
        and problem["name"] == "bad"
        and f"sector {first}" in problem["problem"]
    )
    done = run("extract", image, "-C", tmp_path / "out")
    assert done.returncode == 1 and (tmp_path / "out/good").read_bytes() == b"fine"
    assert sorted(os.listdir(tmp_path / "out")) == ["good"]
    if not pack:
        run("extract", image, "-C", tmp_path / "kept", "--keep-damaged")
        assert (tmp_path / "kept/bad").stat().st_size == 6_000_000


def test_a_folder_is_as_good_as_an_image(maker, tmp_path: Path) -> None:
    image, _ = maker.build(
        maker.file(b"a\xff", data=b"1"), maker.file(b"p", data=b"x" * 9000, pack=True)
    )
    subprocess.run(
        [
            "xorriso",
            "-no_rc",
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
            tmp_path / "mnt",
        ],
        check=True,
        capture_output=True,
    )
    assert run("verify", tmp_path / "mnt").returncode == 0
    assert run("extract", tmp_path / "mnt", "-C", tmp_path / "out", "--only", "p").returncode == 0
    assert os.listdir(tmp_path / "out") == ["p"]


def test_list_and_info(maker) -> None:
    image, result = maker.build(
        maker.file("影像\n".encode(), data=b"1"), maker.file(b"\xff", data=b"2")
    )
    listing = run("list", image).stdout.decode()
    assert "影像\\n" in listing and "\\xff" in listing
    lines = [json.loads(line) for line in run("list", image, "--json").stdout.splitlines()]
    assert [line["size"] for line in lines] == [1, 1]
    assert json.loads(run("info", image, "--json").stdout)["root_hash"] == result.root_hash.hex()
    assert b"HSM001L1" in run("info", image).stdout


def test_without_zstd_it_says_what_to_install(maker, tmp_path: Path) -> None:
    image, _ = maker.build(
        maker.file(b"p", data=b"x" * 9000, pack=True), maker.file(b"a", data=b"1")
    )
    done = run("extract", image, "-C", tmp_path / "out", path="/nonexistent")
    assert done.returncode == 1 and b"apt install zstd" in done.stderr
    assert (tmp_path / "out/a").read_bytes() == b"1"
    assert run("verify", image, path="/nonexistent").returncode == 0


def test_a_link_on_the_disc_leads_no_file_outside(maker, tmp_path: Path) -> None:
    image, _ = maker.build(maker.file(b"d/x", data=b"1"))
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out/d").symlink_to(tmp_path / "elsewhere")
    assert run("extract", image, "-C", tmp_path / "out").returncode == 1
    assert not os.listdir(tmp_path / "elsewhere")


@pytest.mark.parametrize("what", ["missing", "empty", "zeros", "cut"])
def test_what_is_no_disc_is_said_to_be_none(maker, tmp_path: Path, what: str) -> None:
    image, _ = maker.build(maker.file(b"a", data=b"x" * 100_000))
    match what:
        case "missing":
            image.unlink()
        case "empty":
            image.write_bytes(b"")
        case "zeros":
            image.write_bytes(bytes(1 << 20))
        case "cut":
            os.truncate(image, image.stat().st_size - SECTOR)
    for command in (["list"], ["info"], ["verify"], ["extract", "-C", tmp_path / "o"]):
        done = run(command[0], image, *command[1:])
        assert done.returncode == 3 and done.stderr.startswith(b"hsm-disc: " + bytes(image)), done
        assert b"Traceback" not in done.stderr


def test_discs_of_two_archives_are_not_mixed(maker, conf_label, tmp_path: Path) -> None:
    """Both have an inode 2 in version 1, with other bytes."""
    images = []
    for archive in ("a-1", "b-2"):
        file = replace(maker.file(archive.encode(), data=archive.encode() * 100), ino=2)
        label = replace(conf_label, archive=archive)
        images.append(maker.build(file, label=label, name=f"{archive}.iso")[0])
    for command in ("extract", "audit"):
        target = ["-C", tmp_path / "out"] if command == "extract" else []
        done = run(command, *images, *target)
        assert done.returncode == 2, done
        assert b"archive a-1" in done.stderr and b"archive b-2" in done.stderr
    assert not (tmp_path / "out").exists()
    for image in images:
        assert run("extract", image, "-C", tmp_path / image.stem).returncode == 0
    assert (tmp_path / "b-2/b-2").read_bytes() == b"b-2" * 100
