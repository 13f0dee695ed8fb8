"""hsmctl retention, hold and audit as people call them, on a real mount."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tools.lib.tempfs import TempFs, TempFsError

pytestmark = [pytest.mark.mount, pytest.mark.slow]


@pytest.fixture
def fs(tmp_path: Path):
    with TempFs(folder=tmp_path / "fs") as running:
        yield running


def test_records_holds_and_the_log(fs: TempFs, repo: Path) -> None:
    folder = fs.mountpoint / "r"
    folder.mkdir()
    fs.control("retention", "set", folder, "--mode", "enterprise", "--default", "15 y")
    assert "15 y" in fs.control("retention", "ls")
    one, two = folder / "one", folder / "two"
    for path in (one, two):
        path.write_bytes(b"bytes")
        path.chmod(0o444)
        with pytest.raises(PermissionError):
            path.unlink()
    assert "2090-01-01" in fs.control("retention", "extend", "--until", "2090-01-01", one)
    assert "retained" in fs.control("retention", "show", one, two)

    assert "2 files held" in fs.control("hold", "place", "case", "--reason", "why", folder)
    with pytest.raises(TempFsError, match="held by case"):
        fs.control("retention", "delete", one, "--reason", "wrong patient")
    assert str(one.relative_to(fs.mountpoint)) in fs.control("hold", "show", "case")
    assert "2 files released" in fs.control("hold", "release", "case", "--reason", "over")
    assert "released" not in fs.control("hold", "ls")
    fs.control("retention", "delete", one, "--reason", "wrong patient")
    assert not one.exists()
    assert "one" in fs.control("trash", "ls")
    with pytest.raises(TempFsError, match="must be kept"):
        fs.control("retention", "unset", folder)

    found = fs.control("audit", "search", "--kind", "retention.*", "--json").splitlines()
    kinds = [json.loads(line)["kind"] for line in found]
    assert kinds.count("retention.committed") == 2 and "retention.refused" in kinds
    assert "REFUSED" in fs.control("audit", "search", "--outcome", "refused")
    assert "head" in fs.control("audit", "verify")
    export = fs.folder / "audit.jsonl"
    fs.control("audit", "export", "-o", export)
    words = [sys.executable, str(repo / "tools/hsm-disc"), "audit", str(export)]
    subprocess.run(words, check=True)
    table = fs.control("audit", "export", "--format", "csv").splitlines()
    assert table[0].startswith("seq,at_ns") and len(table) > 10


def test_a_disc_with_held_files_stays(fs: TempFs) -> None:
    held = fs.mountpoint / "held"
    held.write_bytes(b"x" * 5000)
    fs.control("archive", "--now", "--wait", held)
    (barcode,) = [v["barcode"] for v in fs.ask("volume", "list") if v["state"] == "full"]
    fs.control("hold", "place", "case", "--reason", "why", held)
    with pytest.raises(TempFsError, match="1 files under legal hold"):
        fs.control("volume", "repack", barcode)
    fs.control("hold", "release", "case", "--reason", "over")
    fs.control("volume", "repack", barcode)
