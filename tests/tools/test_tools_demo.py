"""The demo's picture, and its words for wrong usage; the demo itself is run by tools/demo."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools/lib"))

from demo.picture import Picture, size  # noqa: E402


def drawn(width: int) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=False)
    picture = Picture(console, live=False)
    picture.step("read back")
    picture.bar("read back", 268, 127_600_000)
    picture.reach("read back", 10, 5_000_000)
    picture.robot("carries S0001D01 from magazine 1 slot 1 to drive d1")
    picture.drive("d1", "burning", disc="S0001D02", detail="12.3 MB of 60.1 MB", done=0.2)
    picture.note("recalled a.dcm from S0001D01", file=True)
    console.print(picture._render())
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_picture_fits(width: int) -> None:
    text = drawn(width)
    assert "…" not in text
    assert "10/268 files" in text
    assert "20%  12.3 MB of 60.1 MB" in text
    assert max(map(len, text.splitlines())) <= width


def test_without_a_terminal_changes_are_lines() -> None:
    lines = drawn(120).splitlines()
    assert lines[0] == "==> read back"
    assert lines[1].endswith("s  robot: carries S0001D01 from magazine 1 slot 1 to drive d1")
    assert lines[2].endswith("s  d1: burning S0001D02")


def test_sizes() -> None:
    assert [size(n) for n in (0, 999, 1000, 43_202_522, 2 * 10**9)] == [
        "0 B", "999 B", "1.0 kB", "43.2 MB", "2.00 GB",
    ]  # fmt: skip


def test_unknown_arguments_are_refused() -> None:
    done = subprocess.run([ROOT / "tools/demo", "--bogus"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "unknown argument '--bogus'" in done.stderr
