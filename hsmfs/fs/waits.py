"""Requests that may wait for a disc, so that a stop or an unmount can end them with an answer."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import trio
from pyfuse3 import FUSEError


class Waits:
    """The requests that wait now; neither pyfuse3 nor an unmount ends them.

    The answer is EIO and not EINTR, on which most programs just ask again, for ever; nfsd's is one
    on which its client asks again, since it finds the next daemon then.
    """

    def __init__(self) -> None:
        self._scopes: set[trio.CancelScope] = set()
        self._ended = False

    def __len__(self) -> int:
        return len(self._scopes)

    @contextmanager
    def waiting(self, *, nfs: bool = False) -> Iterator[None]:
        """Around the wait. Raises FUSEError EIO, for nfsd EAGAIN, when it is ended."""
        number = errno.EAGAIN if nfs else errno.EIO
        if self._ended:
            raise FUSEError(number)
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)
        if scope.cancelled_caught:
            raise FUSEError(number)

    def end(self) -> None:
        """Answer all of them, and who comes later at once."""
        self._ended = True
        for scope in self._scopes:
            scope.cancel()
