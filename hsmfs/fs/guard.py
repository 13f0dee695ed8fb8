"""The one place where what went wrong becomes an errno for the kernel.

pyfuse3 ends the mount on any exception but FUSEError, so every handler is wrapped here. What is
expected keeps its errno; what is not is logged with its traceback and becomes EIO.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

import trio
from pyfuse3 import FUSEError, RequestContext

from .. import logs
from ..catalog.catalog import Catalog
from ..errors import Forbidden, HsmError, PosixError
from .nfs import Nfs
from .snapnumbers import PAST


class Handlers(Protocol):
    """Whose methods are guarded."""

    catalog: Catalog
    nfs: Nfs


S = TypeVar("S", bound=Handlers)
P = ParamSpec("P")
T = TypeVar("T")

log = logs.get(__name__)


def settled(
    handler: Callable[Concatenate[S, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """As `guarded`, for handlers that ask the catalog: they begin when no thread commits on it."""

    @functools.wraps(handler)
    async def safe(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            if self.catalog.committing:
                await self.catalog.settled()
            return await handler(self, *args, **kwargs)
        except FUSEError:
            raise
        except BaseException as fault:
            raise await _answer(fault, handler.__name__, (self, *args)) from fault

    return safe


def stable(
    handler: Callable[Concatenate[S, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """As `settled`, for handlers that change names and attributes; their last argument is ctx, the
    first the inode, which must not be of the past.

    What an NFS client changed is durable when it is answered (RFC 1813 section 4.8); nfsd leaves
    that to the filesystem, and FUSE has no message for it.
    """

    @functools.wraps(handler)
    async def safe(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            if cast(int, args[0]) >= PAST:
                raise FUSEError(errno.EROFS)
            if self.catalog.committing:
                await self.catalog.settled()
            result = await handler(self, *args, **kwargs)
            if self.nfs.threads and self.nfs.asks(cast(RequestContext, args[-1])):
                await self.catalog.sync()
        except FUSEError:
            raise
        except BaseException as fault:
            raise await _answer(fault, handler.__name__, (self, *args)) from fault
        return result

    return safe


def guarded(handler: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """The handler, raising nothing but FUSEError. One frame and not one for each promise: that is
    measured to matter."""

    @functools.wraps(handler)
    async def safe(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await handler(*args, **kwargs)
        except FUSEError:
            raise
        except BaseException as fault:
            raise await _answer(fault, handler.__name__, args) from fault

    return safe


async def _answer(fault: BaseException, doing: str, args: tuple[Any, ...]) -> BaseException:
    """What a handler raises instead: FUSEError, but for faults that end the program.

    A handler that is cancelled answers ETIMEDOUT: its process must not hang for ever (nor, by
    EINTR, be told to ask again), while nfsd makes of it that the client asks the next daemon. The
    cancelled scope stays so, and ends the task at its next checkpoint, after the reply was sent.
    """
    match fault:
        case trio.Cancelled():
            return FUSEError(errno.ETIMEDOUT)
        case Forbidden():
            return FUSEError(await _on_record(fault, args))
        case BaseExceptionGroup() if fault.split(trio.Cancelled)[1] is None:
            return FUSEError(errno.ETIMEDOUT)
        case Exception() | BaseExceptionGroup():
            return FUSEError(number_of(fault, doing))
        case _:
            return fault


async def _on_record(fault: Forbidden, args: tuple[Any, ...]) -> int:
    """Have the refusal written to the audit log; EPERM, or EIO if that cannot be written."""
    try:
        await args[0].refused(fault, args)
    except Exception as other:
        return number_of(other, "refusal")
    return fault.errno


def number_of(fault: BaseException, doing: str) -> int:
    """The errno for a fault; what nobody expected is logged."""
    match fault:
        case PosixError():
            return fault.number
        case HsmError():
            log.warning("request failed", request=doing, error=fault)
            return fault.errno
        case OSError() if fault.errno in _PLAIN:
            return fault.errno or errno.EIO
        case OSError():
            log.exception("request failed", fault, request=doing)
            return fault.errno or errno.EIO
        case _:
            log.exception("request failed by a fault of hsmfs", fault, request=doing)
            return errno.EIO


_PLAIN = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EINVAL, errno.ENAMETOOLONG})
"""What a pool's filesystem may answer to a request that is merely too large."""
