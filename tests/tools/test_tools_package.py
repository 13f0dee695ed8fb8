"""What is installed is whole: what is not Python must be named in setup.cfg, or is left out."""

from __future__ import annotations

import configparser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def packaged() -> set[Path]:
    """Data files as setuptools finds them: a pattern counts from its package's folder."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    folders = {init.parent for init in (ROOT / "hsmfs").rglob("__init__.py")}
    found: set[Path] = set()
    for package, patterns in config["options.package_data"].items():
        of = folders if package == "*" else {ROOT / package.replace(".", "/")}
        for pattern in patterns.replace(",", " ").split():
            found.update(*(folder.glob(pattern) for folder in of))
    return found


def test_data_files_are_installed() -> None:
    files = {path for path in (ROOT / "hsmfs").rglob("*") if path.is_file()}
    data = {path for path in files if path.suffix not in (".py", ".pyc")}
    assert data - packaged() == set()
