"""What goes wrong with a burn, and what that means for its disc."""

from __future__ import annotations

from ..errors import HsmError, MediaError


class AnotherDisc(HsmError):
    """This disc did not take the image; another one may. It is spoiled if it was begun.

    Attributes:
        untouched: the burn failed before anything was written: the disc is blank.
    """

    untouched = False


def too_large(size: int, barcode: str, most: int) -> MediaError:
    """An image that the disc has no room for."""
    return MediaError(f"the image has {size} bytes, disc {barcode} takes only {most}")


def untouched(fault: BaseException) -> bool:
    """The fault came before anything was written: the disc is blank."""
    return isinstance(fault, AnotherDisc) and fault.untouched


def reason(fault: BaseException) -> str:
    """What ails a burn, in words."""
    return fault.message if isinstance(fault, HsmError) else repr(fault)


def causes(fault: Exception) -> list[Exception]:
    """What went wrong, one by one, of several things at once."""
    if isinstance(fault, ExceptionGroup):
        return [cause for inner in fault.exceptions for cause in causes(inner)]
    return [fault]
