"""A configuration in a temporary folder, and hsmctl and hsmfsd called in this process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hsmfs.cli.main import main


@pytest.fixture
def config(config_file: Path) -> Path:
    return config_file


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
