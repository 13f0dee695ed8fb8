"""The one place where what went wrong becomes an errno for the kernel.

pyfuse3 ends the mount on any exception but FUSEError, so every handler is wrapped here. What is
expected keeps its errno; what is not is logged with its traceback and becomes EIO.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import trio
from pyfuse3 import FUSEError

from .. import logs
from ..catalog.catalog import Catalog
from ..errors import HsmError, PosixError


class Handlers(Protocol):
    """Whose methods are guarded."""

    catalog: Catalog


S = TypeVar("S", bound=Handlers)
P = ParamSpec("P")
T = TypeVar("T")

log = logs.get(__name__)


def settled(
    handler: Callable[Concatenate[S, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """As `guarded`, for handlers that ask the catalog: they begin when no thread commits on it."""

    async def begin(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self.catalog.committing:
            await self.catalog.settled()
        return await handler(self, *args, **kwargs)

    return guarded(functools.wraps(handler)(begin))


def guarded(handler: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """The handler, raising nothing but FUSEError.

    A handler that is cancelled answers EIO: its process must not hang for ever (nor, by EINTR, be
    told to ask again). The cancelled
    scope stays so, and ends the task at its next checkpoint, after the reply was sent.
    """

    @functools.wraps(handler)
    async def safe(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await handler(*args, **kwargs)
        except FUSEError:
            raise
        except trio.Cancelled:
            raise FUSEError(errno.EIO) from None
        except BaseExceptionGroup as faults:
            if faults.split(trio.Cancelled)[1] is None:
                raise FUSEError(errno.EIO) from None
            raise FUSEError(number_of(faults, handler.__name__)) from faults
        except Exception as fault:
            raise FUSEError(number_of(fault, handler.__name__)) from fault

    return safe


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
