"""Every error an admin or a program can meet: what happened, to what, and what to do next.

One class a cause. Each carries its errno (for the mount), HTTP status (for the API) and exit code
(for hsmctl); `tools/docs errors` prints the table. Messages name the object; `next_step` says what
a person can do.
"""

from __future__ import annotations

import errno as E
from collections.abc import Sequence
from typing import ClassVar


class HsmError(Exception):
    """Something failed; the next step is in the log."""

    errno: ClassVar[int] = E.EIO
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    default_next: ClassVar[str] = "see the log of hsmfsd"

    def __init__(self, message: str, *, next_step: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step or self.default_next

    def __str__(self) -> str:
        return f"{self.message}; {self.next_step}"


class PosixError(HsmError):
    """A filesystem request that POSIX says must fail, with its errno."""

    status = 409
    default_next = "this is the answer POSIX prescribes"

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(message or E.errorcode.get(number, str(number)))
        self.number = number


class ConfigError(HsmError):
    """The configuration is wrong; nothing was started."""

    errno, status, exit_code = E.EINVAL, 400, 3
    default_next = "correct the file and run 'hsmctl config check'"


class TraceError(HsmError):
    """A trace of requests cannot be read or replayed."""

    errno, status = E.EINVAL, 400
    default_next = "docs/scheduler.md tells what a trace looks like"


class PolicyError(ConfigError):
    """A policy file is wrong; the policies before it stay in force."""

    default_next = "correct the file and run 'hsmctl policy check'"


class GuardRules(ConfigError):
    """Rules of the storm guard are wrong; the rules before them stay in force."""

    default_next = "correct them and run 'hsmctl guard load' again"


class NotFound(HsmError):
    """No such object."""

    errno, status, exit_code = E.ENOENT, 404, 4
    default_next = "check the name"


class Conflict(HsmError):
    """The object's present state does not allow the request."""

    errno, status, exit_code = E.EBUSY, 409, 5
    default_next = "look at 'hsmctl status' and try again"


class CatalogInUse(HsmError):
    """Another daemon holds the catalog."""

    errno, status, exit_code = E.EBUSY, 409, 6
    default_next = "stop the other hsmfsd first"


class CatalogDamaged(HsmError):
    """The catalog cannot be trusted; nothing was changed."""

    errno, status, exit_code = E.EIO, 500, 7
    default_next = "copy the state directory, then run 'hsmctl fsck' or restore a snapshot"


class SchemaTooNew(HsmError):
    """The catalog was written by a newer hsmfs."""

    errno, status, exit_code = E.EINVAL, 409, 8
    default_next = "install that version or a newer one"


class PoolUnavailable(HsmError):
    """A pool's directory is gone, read-only or not the one it was."""

    errno, status, exit_code = E.EIO, 503, 9
    default_next = "mount the pool's filesystem, then restart hsmfsd"


class PoolReadOnly(PoolUnavailable):
    """A pool's filesystem takes no writes; what is on it can be read."""

    errno = E.EROFS
    default_next = "check the filesystem and remount it writable"


class PoolFull(HsmError):
    """No room for more bytes, and nothing can be released."""

    errno, status, exit_code = E.ENOSPC, 507, 10
    default_next = "archive and release files, or add a pool"


class MediaError(HsmError):
    """A disc could not be read or written as it should."""

    exit_code = 11
    default_next = "see 'hsmctl volume' for the disc's state"


class UnreadableSector(MediaError):
    """A sector of a disc does not read."""

    default_next = "recall from another copy; the volume is marked suspect"

    def __init__(self, message: str, sector: int) -> None:
        super().__init__(message)
        self.sector = sector


class ChecksumMismatch(UnreadableSector):
    """Bytes came off a disc, but not the ones that were written."""


class WriteOnceViolation(MediaError):
    """Something tried to write to a disc that is not blank."""

    default_next = "use a blank disc; this is a bug if hsmfs chose it"


class WrongVolume(MediaError):
    """The disc in the drive is not the one its barcode says."""

    default_next = "put the disc back in its place and run 'hsmctl library inventory'"


class ForeignDisc(MediaError):
    """The disc or image is not one that hsmfs wrote, or is cut off."""

    default_next = "check it with tools/hsm-disc"


class DriveError(HsmError):
    """A drive failed."""

    exit_code = 12
    default_next = "it was taken down; 'hsmctl drive up' after repair"


class ChangerError(HsmError):
    """The robot failed or refused a move."""

    exit_code = 13
    default_next = "look at the library's panel, then run 'hsmctl library inventory'"


class DoorOpen(ChangerError):
    """The library's door is open."""

    default_next = "close the door; work goes on by itself"


class VolumeMissing(HsmError):
    """The disc is not where it should be, or not in the library."""

    exit_code = 14
    default_next = "put the disc into the library and run 'hsmctl library inventory'"


class SameLabel(VolumeMissing):
    """Two discs in the library bear the same label: nobody can tell which of them is meant."""

    default_next = (
        "take both out, see with 'tools/hsm-disc info' which is the right one, put another label on"
        " the other, bring them back and run 'hsmctl library inventory'"
    )

    def __init__(self, barcode: str, places: Sequence[str]) -> None:
        super().__init__(f"the label {barcode} is on the discs in {' and '.join(places)}")


class OnShelf(VolumeMissing):
    """The disc lies outside the library, and an operator was asked to bring it."""

    default_next = "read the file again when the disc is back; see 'hsmctl request ls'"


class RecallFailed(HsmError):
    """No copy of the bytes could be read."""

    exit_code = 15
    default_next = "see 'hsmctl why' for each copy and its fault"


class RecallCancelled(HsmError):
    """An admin or a shutdown ended the wait."""

    # Not EINTR: programs take that for "ask again", for ever.
    errno, status, exit_code = E.EIO, 409, 16
    default_next = "read the file again"


class RecallTimeout(HsmError):
    """The wait for a recall was longer than its bound; it goes on if a drive has begun it."""

    errno, status, exit_code = E.EIO, 504, 17
    default_next = "read the file again later; 'hsmctl why' says what it waits for"


class DaemonUnreachable(HsmError):
    """hsmctl cannot reach the daemon."""

    errno, status, exit_code = E.ECONNREFUSED, 503, 18
    default_next = "start it with 'systemctl start hsmfs' or 'hsmctl mount'"


class Forbidden(HsmError):
    """Retention or a legal hold forbids it, to everybody."""

    errno, status, exit_code = E.EPERM, 403, 20
    default_next = "see 'hsmctl retention show' for until when and why"

    def __init__(
        self, message: str, *, act: str = "", ino: int = 0, why: str = "",
        next_step: str | None = None,
    ) -> None:
        """why: without the path, which is asked when the act is undone: within it, it may have
        another one, or none.
        """
        super().__init__(message, next_step=next_step)
        self.act, self.ino, self.why = act, ino, why or message


class NotClean(HsmError):
    """fsck found what is not right and was not put right."""

    errno, status, exit_code = E.EIO, 409, 19
    default_next = "run 'hsmctl fsck --repair'"


class Unauthorized(HsmError):
    """The API does not know who asks."""

    errno, status, exit_code = E.EACCES, 401, 21
    default_next = "use --token-file with a valid token (hsmctl token create), or --cert"


class Denied(HsmError):
    """The role of the one who asks does not allow it."""

    errno, status, exit_code = E.EACCES, 403, 22
    default_next = "see 'hsmctl whoami' and docs/access.md"


class NeedsApproval(HsmError):
    """A second person must approve the order first."""

    errno, status, exit_code = E.EACCES, 409, 23
    default_next = "ask another admin for 'hsmctl approve', then give the same order again"


class TooMany(HsmError):
    """Too many requests, or too many failed logins, from one place."""

    errno, status, exit_code = E.EAGAIN, 429, 24
    default_next = "try again in a minute"


class NotIntact(HsmError):
    """Bytes are not what their checksum says."""

    errno, status, exit_code = E.EIO, 409, 26
    default_next = "see each finding; 'hsmctl fsck --deep' and 'hsmctl scrub run' mend copies"


class BadSeal(HsmError):
    """A signature, a timestamp or a checksum does not hold."""

    errno, status, exit_code = E.EBADMSG, 422, 25
    default_next = "keep it as it is, and compare it with another copy"


class OverBudget(HsmError):
    """A recall needs more exchanges or bytes than may be ordered by the way."""

    errno, status, exit_code = E.EDQUOT, 409, 27
    default_next = "look with 'hsmctl recall --estimate', then order it with --over-budget"
