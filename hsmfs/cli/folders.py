"""Folders of the mount as the servers of this host are told of them."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import Conflict
from .context import Ctl, path_query


def host_path(ctl: Ctl, path: str) -> Path:
    """What is called path under the mountpoint, as the host has it; it need not exist."""
    name = ctl.namespace(path)
    return Path(os.fsdecode(os.fsencode(ctl.config.daemon.mountpoint) + name.rstrip(b"/")))


def folder(ctl: Ctl, path: str) -> Path:
    """A folder as the host has it. Raises Conflict if it is none, and what the daemon says."""
    kind = ctl.client.get("/info", **path_query(ctl.namespace(path)))["entry"]["kind"]
    if kind != "folder":
        raise Conflict(f"{path} is a {kind}", next_step="export the folder that it is in")
    return host_path(ctl, path)
