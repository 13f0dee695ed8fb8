"""ppoll(2) as the event loop needs it: it reads no clock, and may keep Python's lock.

`select.poll` looks at the clock before it waits, which on some machines is a system call, and lets
Python's lock go even if it does not wait.
"""

from __future__ import annotations

import ctypes
import select


class _Fd(ctypes.Structure):
    """struct pollfd"""

    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


class _Timespec(ctypes.Structure):
    """struct timespec"""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


_NANOSECONDS = 10**9
_AT_ONCE = _Timespec(0, 0)
_look = ctypes.PyDLL(None).ppoll
_wait = ctypes.CDLL(None).ppoll
for _call in (_look, _wait):
    _call.argtypes = (ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_void_p)


class Poll:
    """Some descriptors that are looked at for something to read; negative ones are passed over.

    One that is broken counts as one that can be read.
    """

    def __init__(self, *fds: int) -> None:
        self._fds = (_Fd * len(fds))(*(_Fd(fd, select.POLLIN, 0) for fd in fds))
        self._at, self._count = ctypes.addressof(self._fds), len(fds)
        self._at_once = ctypes.addressof(_AT_ONCE)

    def look(self) -> bool:
        """Whether one of them can be read now."""
        return bool(_look(self._at, self._count, self._at_once, None) > 0)

    def wait(self, seconds: float) -> bool:
        """Sleep until one can be read, or that long; whether one can. A signal ends it, too."""
        until = _Timespec(*divmod(int(seconds * _NANOSECONDS), _NANOSECONDS))
        return bool(_wait(self._at, self._count, ctypes.addressof(until), None) > 0)

    def ready(self, index: int) -> bool:
        """What the last call found of one of them."""
        return bool(self._fds[index].revents)
