"""Tells at once when somebody sets the wall clock: timerfd_create(2), TFD_TIMER_CANCEL_ON_SET."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import AsyncIterator

import trio

_CLOCK_REALTIME = 0
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC  # TFD_NONBLOCK and TFD_CLOEXEC are these
_ABSTIME, _CANCEL_ON_SET = 1, 2
_FAR = 2**40
"""Seconds: an alarm that never comes."""
_libc = ctypes.CDLL(None, use_errno=True)


class _Spec(ctypes.Structure):
    """struct itimerspec."""

    _fields_ = [
        ("every_s", ctypes.c_long), ("every_ns", ctypes.c_long),
        ("at_s", ctypes.c_long), ("at_ns", ctypes.c_long),
    ]  # fmt: skip


async def wall_clock_set() -> AsyncIterator[None]:
    """Yields each time the wall clock was set discontinuously; for ever. Raises OSError."""
    fd = _libc.timerfd_create(_CLOCK_REALTIME, _FLAGS)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create")
    try:
        while True:
            _arm(fd)
            await trio.lowlevel.wait_readable(fd)
            try:
                os.read(fd, 8)  # on the loop: it is readable, and never blocks
            except OSError as fault:
                if fault.errno not in (errno.ECANCELED, errno.EAGAIN):
                    raise
            yield
    finally:
        os.close(fd)


def _arm(fd: int) -> None:
    spec = _Spec(0, 0, _FAR, 0)
    if _libc.timerfd_settime(fd, _ABSTIME | _CANCEL_ON_SET, ctypes.byref(spec), None):
        raise OSError(ctypes.get_errno(), "timerfd_settime")
