"""The tools: checks find what they should, verdicts do not flatter, nothing stays behind."""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tools.lib.nas import load


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.parametrize(
    ("line", "blocks"),
    [
        ("os.fsync(fd)", True),
        ("open('x')", True),
        ("subprocess.run(['x'])", True),
        ("path.read_text()", True),
        ("os.pwrite(fd, b'')", True),
        ("os.preadv(fd, b, 0, os.RWF_NOWAIT)", False),
        ("await blocking(lambda: os.fsync(fd))", False),
        ("os.stat('x')", False),
    ],
)
def test_blocking_calls_are_found(repo: Path, line: str, blocks: bool) -> None:
    check = module(repo / "tools/checks/blocking.py")
    function = ast.parse(f"async def f():\n    {line}\n").body[0]
    assert any(map(check.blocks, check.own_calls(function))) is blocks


def test_foreign_imports_and_silent_modules_are_found(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = module(repo / "tools/checks/layout.py")
    monkeypatch.setattr(check, "ROOT", tmp_path)
    (tmp_path / "hsmfs/engine").mkdir(parents=True)
    file = tmp_path / "hsmfs/engine/x.py"
    file.write_text("import apsw\nfrom pyfuse3 import main\n" + "\n" * 500)
    assert len(list(check.faults(file))) == 4


@pytest.mark.parametrize(
    ("body", "last", "code"),
    [
        ("p.figure('a', 2, at_least=1)", "PROVED: it holds", 0),
        ("p.figure('a', 2, at_most=1)", "NOT PROVED: it holds: a is 2", 1),
        ("p.require(False, 'x differs')", "NOT PROVED: it holds: x differs", 1),
        ("pass", "NOT PROVED: it holds: nothing was required", 1),
        ("1 / 0", "NOT PROVED: it holds: ZeroDivisionError: division by zero", 1),
    ],
)
def test_verdicts(repo: Path, body: str, last: str, code: int) -> None:
    script = f"from _verdict import proof\nwith proof('it holds') as p:\n    {body}\n"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(repo / "tools/proofs")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.splitlines()[-1], done.returncode) == (last, code)


def test_contained_runs_leave_no_process_and_no_folder(repo: Path, tmp_path: Path) -> None:
    script = f"""
    . {repo}/tools/_setup.sh
    contained bash -c 'setsid sleep 1000 >/dev/null 2>&1 & echo $! $TMPDIR; exit 7'
    """
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    pid, folder = done.stdout.split()
    assert done.returncode == 7
    assert Path(folder).parent == tmp_path
    assert not Path(folder).exists()
    status = Path(f"/proc/{pid}/status")
    assert not status.exists() or "State:\tZ" in status.read_text(), "dead, if not yet reaped"


def test_what_could_not_be_read_now_is_no_file_s_end() -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    os.write(writer, b"half of it")
    with pytest.raises(BlockingIOError):
        load.whole(reader)
    os.close(writer)
    os.close(reader)
