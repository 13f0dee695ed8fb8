"""A configuration in a temporary folder, and hsmctl and hsmfsd called in this process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hsmfs.cli.main import main

TOML = """
[daemon]
mountpoint = "{0}/mnt"
state = "{0}/state"
socket = "{0}/sock"
[[pool]]
name = "pool"
path = "{0}/pool"
[library]
kind = "simulated"
path = "{0}/library"
drives = 2
magazines = 1
slots_per_magazine = 2
disc = "16 MiB"
[engine]
spool = "{0}/spool"
spool_limit = "1 GiB"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "mnt").mkdir()
    path = tmp_path / "hsmfs.toml"
    path.write_text(TOML.format(tmp_path))
    return path


@pytest.fixture
def hsmctl(config: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`hsmctl("init")` gives exit code, output and errors."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["--config", str(config), *words])
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def hsmfsd(
    config: Path, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[[], tuple[int, str]]]:
    """`hsmfsd()` gives exit code and errors of a daemon that cannot start."""
    from hsmfs.daemon import main as daemon

    def run() -> tuple[int, str]:
        code = daemon(["--config", str(config)])
        return code, capfd.readouterr().err

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield run
    root.handlers[:] = handlers
    root.setLevel(level)
