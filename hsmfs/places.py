"""Where a daemon is asked and mounted, without checking the whole of its configuration.

A command that asks the daemon needs two paths of the file; pydantic, for all the others, takes
longer than most answers.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

CONFIG = Path("/etc/hsmfs/hsmfs.toml")
SOCKET = Path("/run/hsmfs/hsmfs.sock")


@dataclass(frozen=True, slots=True)
class Places:
    """The [daemon] table's paths of that name."""

    socket: Path
    mountpoint: Path


def glance(path: Path) -> Places | None:
    """The places that a configuration names; None if they are not plain to see in it, so that
    whoever reads all of it (`config.load`) says what is wrong.
    """
    try:
        daemon = tomllib.loads(path.read_text(encoding="utf-8"))["daemon"]
        found = Places(Path(daemon.get("socket", SOCKET)), Path(daemon["mountpoint"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return found if found.socket.is_absolute() and found.mountpoint.is_absolute() else None
