"""Reads of NFS clients that wait for a disc: a task waits in place of the thread of nfsd.

The thread waits along for a moment, if no more than half of all do so; then it gets EAGAIN, of
which nfsd makes that the client asks again (NFS3ERR_JUKEBOX, NFS4ERR_DELAY). The task is a reader
as any other one: it is listed, bounded, guarded and ended as they are, and what it met is told to
the client when it comes again.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

import trio
from pyfuse3 import FUSEError

from .. import logs
from ..engine.files import Files
from ..engine.waiters import again
from ..errors import HsmError, PosixError
from ..types import InodeNo, Range, Requester
from .nfs import Nfs

FORSAKEN_SECONDS = 60.0
"""A client that did not ask for so long has gone: Linux's ask at least every 15 s."""

log = logs.get(__name__)
ECHO_SECONDS = 2.0
"""So long an error is told again: a client whose read-ahead failed asks once more, page by page,
and would wait anew."""
_Key = tuple[InodeNo, Range]


@dataclass(eq=False, slots=True)
class _Deputy:
    key: _Key
    who: Requester
    asked: float
    done: trio.Event = field(default_factory=trio.Event)
    error: HsmError | None = None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


class Deputies:
    """All of them; patience is how long a thread of nfsd waits along, in seconds."""

    def __init__(self, files: Files, nfs: Nfs, patience: float) -> None:
        self._files, self._nfs, self._patience = files, nfs, patience
        self._all: dict[_Key, _Deputy] = {}
        self._echoes: dict[tuple[InodeNo, int], tuple[float, HsmError]] = {}
        self._threads = 0
        self._nursery: trio.Nursery | None = None

    def __len__(self) -> int:
        return len(self._all)

    async def run(self) -> None:
        """Let them wait; for ever."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                while True:
                    await trio.sleep(FORSAKEN_SECONDS / 4)
                    now = trio.current_time()
                    self._dismiss(now - FORSAKEN_SECONDS)
                    self._echoes = {k: echo for k, echo in self._echoes.items() if echo[0] > now}
            finally:
                self._nursery = None

    def _dismiss(self, before: float) -> None:
        for deputy in [d for d in self._all.values() if d.asked < before]:
            deputy.scope.cancel()
            del self._all[deputy.key]

    async def wait(self, ino: InodeNo, wanted: Range, who: Requester) -> None:
        """Return when the range has come. Raises FUSEError EAGAIN, or HsmError if it cannot."""
        if self._nursery is None:
            raise FUSEError(errno.EAGAIN)
        key, now = (ino, wanted), trio.current_time()
        until, error = self._echoes.get((ino, who.uid), (now, None))
        if error is not None and now < until:
            raise _told(error)
        deputy = self._all.get(key)
        if deputy is None:
            deputy = self._all[key] = _Deputy(key, who, now)
            self._nursery.start_soon(self._stand_in, deputy)
        deputy.asked = now
        if not deputy.done.is_set() and self._threads < self._nfs.threads // 2:
            self._threads += 1
            try:
                with trio.move_on_after(self._patience):
                    await deputy.done.wait()
            finally:
                self._threads -= 1
        if not deputy.done.is_set():
            raise FUSEError(errno.EAGAIN)
        self._all.pop(key, None)
        if deputy.error is not None:
            self._echoes[ino, who.uid] = trio.current_time() + ECHO_SECONDS, deputy.error
            raise _told(deputy.error)

    async def _stand_in(self, deputy: _Deputy) -> None:
        ino, wanted = deputy.key
        with deputy.scope:
            try:
                await self._files.wait_for(ino, wanted, deputy.who)
            except HsmError as fault:
                deputy.error = fault
            except Exception as fault:
                log.exception("a read of NFS failed by a fault of hsmfs", fault, ino=ino)
                deputy.error = HsmError(f"inode {ino}: {fault}")
        deputy.done.set()
        if deputy.error is None and self._all.get(deputy.key) is deputy:
            del self._all[deputy.key]


def _told(error: HsmError) -> HsmError:
    """What a client is told: nfsd takes ETIMEDOUT, too, for "ask again" (nfserrno)."""
    if isinstance(error, PosixError) and error.number == errno.ETIMEDOUT:
        return PosixError(errno.EIO, error.message)
    return again(error)
