"""Is the disc in the drive the one that its barcode says? Read before any use of it.

A full disc must carry a VOLUME.json with the catalog's barcode and uuid; a disc to burn must be
blank. Where VOLUME.json does not read, the filesystem's volume identifier tells. Whatever else is
found is flagged, and nothing is read from it or written to it: a disc that lay among the blank ones
and is not blank is set aside. One whose description reads as nothing of ours is looked at in
another drive first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from .. import clock
from ..catalog.catalog import Catalog
from ..catalog.volumes import Volume
from ..disc.iso9660 import Iso
from ..disc.layout import VolumeLabel, volume_id
from ..disc.reader import DiscReader
from ..errors import (
    DriveError,
    ForeignDisc,
    MediaError,
    UnreadableSector,
    VolumeMissing,
    WrongVolume,
)
from ..library.ports import DiscStatus
from ..states import VolumeState
from ..types import SECTOR
from .ledger import Ledger
from .schedule import Purpose
from .session import Session


async def check_place(
    session: Session, mistaken: Callable[[VolumeLabel | None], Awaitable[None]]
) -> None:
    """Return if the disc may be the one that it was taken for, where no barcodes are read.

    Else people changed the places of discs: `mistaken` is told what was found, None for a blank
    disc, and VolumeMissing raised; nobody is to blame.
    """
    volume, medium = session.volume, session.medium
    if volume.state is VolumeState.BURNING or medium.status is DiscStatus.INCOMPLETE:
        return
    label: VolumeLabel | None = None
    if not medium.blank:
        try:
            label = await read_label(session, session.test)
        except MediaError:
            return
    if (label.uuid if label is not None else None) != volume.uuid:
        await mistaken(label)
        raise VolumeMissing(
            f"disc {volume.barcode} is not where it was: another one lies there",
            next_step="run 'hsmctl library inventory --rescan'",
        )


async def check_medium(
    session: Session,
    purpose: Purpose,
    catalog: Catalog,
    ledger: Ledger,
    *,
    size: int = 0,
    another: bool = False,
) -> None:
    """Return if the disc may be used for the purpose.

    size: bytes to be burned on it. another: there is a drive yet that may say otherwise. Raises
    MediaError for a half-burned disc (now damaged) or one too small (now under quarantine),
    WrongVolume (both discs are flagged), ForeignDisc (among blank discs: set aside), DriveError if
    another drive is to be asked who wrote the disc.
    """
    volume, medium = session.volume, session.medium
    if volume.state is VolumeState.BLANK and not medium.blank:
        await ledger.set_aside(volume, what := await _written_by_others(session))
        raise ForeignDisc(
            what,
            next_step="take it out: 'hsmctl volume export'; a disc of another hsmfs is taken over"
            " by 'hsmctl volume adopt'",
        )
    if medium.status is DiscStatus.INCOMPLETE:
        reason = f"a burn of disc {volume.barcode} was cut off"
        await ledger.flag(volume.id, reason, VolumeState.DAMAGED)
        raise MediaError(f"{reason}; nothing on it counts", next_step="take it out of the library")
    if medium.blank:
        if purpose is Purpose.BURN:
            if 0 < medium.capacity_bytes < size:
                raise await ledger.too_small(volume, size, medium.capacity_bytes)
            return
        if volume.state is VolumeState.BURNING:
            raise MediaError(f"disc {volume.barcode} is still blank", next_step="burn it")
        raise await _wrong(ledger, volume, f"disc {volume.barcode} should be full and is blank")
    try:
        label = await read_label(session)
    except UnreadableSector:
        # The rest may read, and every chunk has a checksum; parity needs what such a disc has.
        found = await _volume_id(session)
        if found not in ("", volume_id(volume.inside or volume.barcode)):
            message = f"the disc labelled {volume.barcode} has the volume identifier {found}"
            raise await _wrong(ledger, volume, message) from None
        return
    except ForeignDisc as error:
        reason = f"disc {volume.barcode} was not written by hsmfs: {error.message}"
        if another:
            await session.doubt(error)
            raise DriveError(f"{reason}, says drive {session.drive.name}") from error
        await ledger.flag(volume.id, reason)
        raise ForeignDisc(reason) from error
    if label.barcode != (volume.inside or volume.barcode):
        other = catalog.volumes.by_barcode(label.barcode)
        message = f"the disc labelled {volume.barcode} is {label.barcode} inside"
        if other is not None:
            await ledger.flag(other.id, message)
        raise await _wrong(ledger, volume, message)
    if label.uuid != volume.uuid:
        raise await _wrong(ledger, volume, f"disc {volume.barcode} has another uuid inside")


async def _written_by_others(session: Session) -> str:
    """What lies on a disc that should be blank. Raises DriveError."""
    barcode = session.volume.barcode
    if session.medium.status is DiscStatus.INCOMPLETE:
        return f"disc {barcode} should be blank and holds a session that was not ended"
    try:
        label = await read_label(session, session.test)  # nobody is to blame for such a disc
    except MediaError as error:
        return f"disc {barcode} should be blank and was written by others: {error.message}"
    return (
        f"disc {barcode} should be blank and was written by hsmfs:"
        f" disc {label.index} of set {label.set_name}, barcode {label.barcode}"
    )


def refuse_blank(session: Session) -> None:
    """Return if something was written on the disc, and to its end. Raises MediaError."""
    medium, barcode = session.medium, session.volume.barcode
    if medium.status is DiscStatus.INCOMPLETE or medium.blank:
        what = "blank" if medium.blank else "half burned"
        raise MediaError(f"disc {barcode} is {what}", next_step="put in the disc that you mean")


async def read_label(
    session: Session, read: Callable[[int, int], Awaitable[bytes]] | None = None
) -> VolumeLabel:
    """VOLUME.json of the disc. Raises ForeignDisc, UnreadableSector, DriveError."""
    read = read or session.read
    sectors = session.medium.written_bytes // SECTOR

    def read_at(sector: int, count: int) -> bytes:
        return trio.from_thread.run(read, sector, count)

    return await clock.blocking(lambda: DiscReader(read_at, sectors).label, clock.MEDIA)


async def _volume_id(session: Session) -> str:
    """The volume identifier of the disc's filesystem; "" if it does not read."""

    def read_at(sector: int, count: int) -> bytes:
        return trio.from_thread.run(session.test, sector, count)

    try:
        return await clock.blocking(lambda: Iso(read_at).volume_id, clock.MEDIA)
    except UnreadableSector:
        return ""


async def _wrong(ledger: Ledger, volume: Volume, message: str) -> WrongVolume:
    await ledger.flag(volume.id, message)
    return WrongVolume(message)
