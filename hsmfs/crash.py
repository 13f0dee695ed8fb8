"""Named points at which a test may kill the process, as a power cut or `kill -9` would.

`HSMFS_CRASH=name` or `name:n` kills at the n-th time the point is passed (the first by default).
`HSMFS_CRASH_LIST=file` appends each point's name to the file whenever it is passed, so that a
proof can tell which points a workload reaches and how often. Without either a point costs one
comparison.
"""

from __future__ import annotations

import os
import signal

_target, _, _count = os.environ.get("HSMFS_CRASH", "").partition(":")
_left = int(_count or 1)
_list = os.environ.get("HSMFS_CRASH_LIST", "")
_active = bool(_target or _list)


def point(name: str) -> None:
    """Die here if a test asked for it."""
    if _active:
        _passed(name)


def _passed(name: str) -> None:
    global _left
    if _list:
        with open(_list, "a", encoding="ascii") as out:
            out.write(name + "\n")
    if name == _target:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
