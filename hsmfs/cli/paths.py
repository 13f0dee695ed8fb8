"""Between paths that people type under the mountpoint and paths in the namespace.

Only text is worked on: the mount is not asked unless a path does not lie under the mountpoint as
it is written, so a daemon that hangs cannot hang hsmctl.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

from ..errors import NotFound
from ..logs import printable


def to_namespace(path: str, mountpoint: Path) -> bytes:
    """The namespace path of a path under the mountpoint. Raises NotFound if it is elsewhere."""
    full = os.fsencode(os.path.abspath(path))
    mount = os.fsencode(mountpoint)
    inside = _below(full, mount)
    if inside is None:
        # Perhaps a symbolic link outside of the mount leads into it.
        folder, name = os.path.split(full)
        real = os.path.join(os.path.realpath(folder), name)
        inside = _below(real, os.path.realpath(mount))
    if inside is None:
        raise NotFound(
            f"{printable(full)} is not under the mountpoint {mountpoint}",
            next_step=f"give a path below {mountpoint}",
        )
    return inside


def _below(path: bytes, mount: bytes) -> bytes | None:
    mount = mount.rstrip(b"/")
    if path == mount:
        return b"/"
    return path[len(mount) :] if path.startswith(mount + b"/") else None


def from_namespace(item: dict[str, Any], mountpoint: Path) -> str:
    """`path` or `path_b64` of an answer as a path under the mountpoint, on one line."""
    raw = base64.b64decode(item["path_b64"])
    if not raw:
        return f"(inode {item.get('ino', '?')}, no name)"
    return printable(os.fsencode(mountpoint).rstrip(b"/") + raw.rstrip(b"/")) or "/"
