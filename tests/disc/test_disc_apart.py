"""Manifests read by a process of their own: the same lines, and no fault is lost on the way."""

from __future__ import annotations

import os
import signal

import pytest

from hsmfs.disc.apart import FEW, Manifests
from hsmfs.disc.layout import Kind, Placed, StagedFile
from hsmfs.disc.lines import lines
from hsmfs.disc.manifest import manifest_line
from hsmfs.errors import ForeignDisc, HsmError
from hsmfs.types import DataVersion, Digest, InodeNo


def item(ino, path, kind=Kind.DIR, **more):
    file = StagedFile(
        InodeNo(ino), DataVersion(1), (path,), kind, 0o750, 1, 2, 3, 4, 5, 6, {b"user.x": b"\0"},
        **more,
    )  # fmt: skip
    return manifest_line(Placed(file, (b"files/" + path,)))


@pytest.fixture
def manifest(tmp_path):
    def write(name, count, last=b""):
        digest = Digest(b"s" * 32, (b"s" * 32,), 10)
        found = [item(2, b"d\xff"), item(3, b"d\xff/l", Kind.SYMLINK, target=b"to")]
        found += [
            item(10 + n, b"d\xff/%d" % n, Kind.FILE, digest=digest, length=10, stored=10,
                 stored_sha256=b"s" * 32, kept={"holds": ["h"]})
            for n in range(count)
        ]  # fmt: skip
        path = tmp_path / name
        path.write_bytes(b"".join(found) + last)
        return path

    return write


def test_the_lines_of_several_manifests_are_those_that_reading_gives(manifest):
    paths = [manifest("one \n two", 2 * FEW + 1), manifest("none", 0), manifest("few", 3)]
    with Manifests(paths) as manifests:
        found = [(folders, list(some)) for folders, some in manifests]
    assert [some for _, some in found] == [list(lines(path)) for path in paths]
    assert [folders for folders, _ in found] == [{b"d\xff": 2}] * 3
    assert found[2][1][2].kept == {"holds": ["h"]}


def test_what_nobody_wants_of_a_manifest_is_passed_over(manifest):
    with Manifests([manifest("a", 3 * FEW), manifest("b", 1)]) as manifests:
        firsts = [next(some).ino for _, some in manifests]
    assert firsts == [2, 2]


def test_a_line_that_does_not_read_is_named(manifest):
    with Manifests([manifest("a", 1, b'{"ino": \n')]) as manifests:
        [(_, some)] = [next(iter(manifests))]
        with pytest.raises(ForeignDisc, match="not readable"):
            list(some)


def test_a_reader_that_is_killed_is_no_end_of_the_manifest(manifest):
    with Manifests([manifest("a", 400 * FEW)]) as manifests:
        _, some = next(iter(manifests))
        next(some)
        os.kill(manifests._process.pid, signal.SIGKILL)
        with pytest.raises(HsmError, match="ended with -9"):
            list(some)


def test_who_goes_early_leaves_no_process(manifest):
    with Manifests([manifest("a", 400 * FEW)]) as manifests:
        next(iter(manifests))
    assert manifests._process.returncode is not None
