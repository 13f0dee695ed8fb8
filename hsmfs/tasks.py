"""What every task and thread is doing just now: for SIGUSR1 and a daemon that seems to hang.

Relies on trio's view of its own tasks and on faulthandler for the threads.
"""

from __future__ import annotations

import faulthandler
import traceback
from typing import TextIO

import trio


def dump_tasks(out: TextIO) -> None:
    """Write the tree of trio tasks with where each waits, then all threads, to a real file."""
    root = trio.lowlevel.current_root_task()
    if root is not None:
        _dump(root, 0, out)
    out.flush()
    faulthandler.dump_traceback(file=out, all_threads=True)


def _dump(task: trio.lowlevel.Task, depth: int, out: TextIO) -> None:
    indent = "  " * depth
    out.write(f"{indent}task {task.name}\n")
    frames = [
        (frame, line)
        for frame, line in task.iter_await_frames()
        if "/trio/_core/" not in frame.f_code.co_filename
    ]
    for frame, line in frames[-2:]:
        summary = traceback.extract_stack(frame, limit=1)[0]
        out.write(f"{indent}  at {summary.filename}:{line} in {summary.name}\n")
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            _dump(child, depth + 1, out)
