"""Requests that may wait for a disc, so that a stop or an unmount can end them with an answer."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import trio
from pyfuse3 import FUSEError


class Waits:
    """The requests that wait now; neither pyfuse3 nor an unmount ends them.

    The answer is EIO and not EINTR, on which most programs just ask again, for ever.
    """

    def __init__(self) -> None:
        self._scopes: set[trio.CancelScope] = set()
        self._ended = False

    def __len__(self) -> int:
        return len(self._scopes)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the wait. Raises FUSEError EIO when it is ended."""
        if self._ended:
            raise FUSEError(errno.EIO)
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)
        if scope.cancelled_caught:
            raise FUSEError(errno.EIO)

    def end(self) -> None:
        """Answer all of them with EIO, and who comes later at once."""
        self._ended = True
        for scope in self._scopes:
            scope.cancel()
