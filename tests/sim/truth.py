"""What is true of discs and robot, against what the catalog believes; each raises `Failure`.

What redundancy promises is worked out from the truth (library.py): a file is safe while one of its
copies lies on sound discs, or its set has lost no more discs than it has parity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsmfs.states import CopyState, FileState, SetState, VolumeState
from hsmfs.types import SECTOR, InodeNo

from .library import Disc
from .plan import DAY
from .world import Failure

if TYPE_CHECKING:
    from .life import Life

_COUNTED = (VolumeState.FULL, VolumeState.SUSPECT, VolumeState.EXPORTED, VolumeState.LOST)
VOLUME_DESCRIPTOR = 16
"""The sector with the volume identifier (ECMA-119, 8.4)."""
GRACE = 20 * DAY
"""A test may be late by so much, as drives and people have other things to do."""
WANTED = 2
"""Copies of each file."""


# What is promised


def disc_of(life: Life, barcode: str) -> Disc | None:
    """The true disc of a volume, wherever it is."""
    shelves = life.world.shelves
    assert shelves is not None
    index = getattr(shelves, "_index", None)
    if index is None:
        index = shelves._index = {d.name: d for d in shelves.all_discs()}  # type: ignore[attr-defined]
    disc: Disc | None = index.get(barcode)
    if disc is not None and disc.name in life.world.state.get("destroyed", ()):
        return None
    return disc


def sound(life: Life, barcode: str) -> bool:
    disc = disc_of(life, barcode)
    return disc is not None and disc.sound


def promised(life: Life, ino: int) -> bool:
    """Whether the bytes of the file must still be had."""
    attr = life.engine.files.attr(InodeNo(ino))
    if attr is None:
        return False
    if attr.state in (FileState.RESIDENT, FileState.PREMIGRATED):
        return True
    catalog = life.catalog
    by_copy: dict[int, list[bool]] = {}
    for copy in catalog.copies.of(InodeNo(ino), attr.base_version):
        volume = catalog.volumes.get(copy.where.volume)
        if volume is None or copy.state not in (CopyState.VALID, CopyState.DAMAGED):
            continue
        if volume.state in (VolumeState.RETIRED, VolumeState.BURNING, VolumeState.BLANK):
            continue
        good = sound(life, volume.barcode)
        if not good and volume.set_id is not None:
            group = catalog.sets.get(volume.set_id)
            if group is not None and group.state is SetState.CLOSED:
                discs = catalog.sets.discs(group.id)
                good = sum(not sound(life, d.barcode) for d in discs) <= group.m
        parts = by_copy.setdefault(copy.copy_no, [True] * copy.where.parts)
        parts[copy.where.part] = parts[copy.where.part] and good
    return any(all(parts) for parts in by_copy.values())


# At all times


def always(life: Life) -> None:
    """Whoever uses a disc has the one that he asked for, but if it does not say who it is. A disc
    made anew and the one that it was made from are alike to the last byte."""
    shelves = life.world.shelves
    assert shelves is not None
    for bay in life.engine.mounts._bays.values():
        claim = bay.claim
        if claim is not None and claim.session is not None and not claim.unknown:
            disc = shelves.places.get(bay.drive.address)
            if disc is None or VOLUME_DESCRIPTOR in disc.bad:
                continue
            if disc.name not in (claim.barcode, claim.session.volume.inside):
                raise Failure(f"drive {bay.drive.name} works on {disc.name} for {claim.barcode}")


def released(life: Life, ino: int) -> None:
    """Bytes are given up only when as many copies as wanted were read back."""
    attr = life.engine.files.attr(InodeNo(ino))
    if attr is None or attr.state != FileState.MIGRATED:
        return
    whole: dict[int, int] = {}
    for copy in life.catalog.copies.of(InodeNo(ino), attr.version):
        volume = life.catalog.volumes.get(copy.where.volume)
        if volume is not None and volume.state in _COUNTED and copy.state is not CopyState.PENDING:
            whole[copy.copy_no] = whole.get(copy.copy_no, 0) + 1
    if len(whole) < WANTED:
        raise Failure(f"inode {ino} was released with {len(whole)} copies of {WANTED}")


def robot_is_right(life: Life) -> None:
    shelves, robot = life.world.shelves, life.engine.robot
    assert shelves is not None
    if robot._stale:
        return
    for address, disc in shelves.places.items():
        element = robot.elements[address]  # type: ignore[index]
        if element.barcode != disc.label:
            raise Failure(
                f"the robot is thought to have {element.barcode} in {element.place},"
                f" and has {disc.label}"
            )
    in_units = {at: held for held, at in shelves.magazines.items()}
    thought = {at: robot.magazine_in(at) for at in in_units if at is not None}
    if thought != in_units:
        raise Failure(f"magazines are thought to be in units {thought}, and are in {in_units}")


def tests_are_true(life: Life) -> None:
    """No disc passes a test that began when its sectors did not read any more.

    Nothing is under way at a look, so a test that a disc passed since the last one began after it.
    """
    assert life.world.shelves is not None
    passed: dict[str, int] = life.world.state.setdefault("passed", {})
    for disc in life.world.shelves.all_discs():
        volume = life.catalog.volumes.by_barcode(disc.name) if disc.bad else None
        if volume is not None and volume.state in _COUNTED:
            at = volume.verified_ns or 0
            if at > passed.setdefault(disc.name, at):
                raise Failure(f"disc {disc.name} passed a test, and has sectors that do not read")


# At the end


def places_agree(life: Life) -> None:
    """Discs are where the catalog says; those that never kept their burn do not count."""
    shelves = life.world.shelves
    assert shelves is not None
    at_ = {disc.name: at for at, disc in shelves.places.items()}
    for barcode, (_, state, said) in life.catalog.volumes.seats().items():
        at = at_.get(barcode)
        if said != at and state is not VolumeState.RETIRED:
            raise Failure(f"disc {barcode} is in {at}, and the catalog says {said}")
        if state in (VolumeState.FULL, VolumeState.SUSPECT):
            disc = disc_of(life, barcode)
            if disc is not None and disc.fragile and disc.written:
                raise Failure(f"disc {barcode} did not keep its burn and counts")


def rot_was_found(life: Life) -> None:
    """A disc that does not read was found by its next test."""
    late = life.world.now - 2 * life.world.size.scrub_days * DAY - GRACE
    for volume in life.catalog.volumes.all(VolumeState.FULL):
        disc = disc_of(life, volume.barcode)
        if disc is not None and disc.bad and disc.bad_since < late:
            raise Failure(f"disc {volume.barcode} has bad sectors for long, and counts as full")


def parity_is_right(life: Life) -> None:
    """Row P of each closed set of sound discs is the exclusive or of their images."""
    shelves = life.world.shelves
    assert shelves is not None
    for group in life.catalog.sets.all():
        volumes = life.catalog.sets.discs(group.id)
        if group.state is not SetState.CLOSED or group.m != 1 or len(volumes) != group.k + 1:
            continue
        discs = [disc_of(life, volume.barcode) for volume in volumes]
        start = volumes[-1].parity_sector
        if start is None or any(disc is None or not disc.sound for disc in discs):
            continue
        images = [shelves.image(disc).read_bytes() for disc in discs if disc is not None]
        total = 0
        for volume, image in zip(volumes[:-1], images[:-1], strict=True):
            total ^= int.from_bytes(image[: volume.used], "little")
        size = max(volume.used for volume in volumes[:-1])
        row = images[-1][start * SECTOR : start * SECTOR + size]
        if int.from_bytes(row, "little") != total:
            raise Failure(f"the parity of set {group.name} is not that of its discs")


def copies_are_few(life: Life) -> None:
    """Nothing is burned twice, in a world where no disc had to be replaced."""
    counts = life.world.counts
    replaced = ("volume_state", "inventory_differs", "burn_failed")
    if counts["step refresh"] or any(counts[f"event {what}"] for what in replaced):
        return
    for file in life.world.files.values():
        attr = life.engine.files.attr(InodeNo(file.ino)) if file.ino else None
        if attr is not None:
            found = {c.copy_no for c in life.catalog.copies.of(attr.ino, attr.version)
                     if c.state is CopyState.VALID}  # fmt: skip
            discs = [c.where.volume for c in life.catalog.copies.of(attr.ino, attr.version)
                     if c.state is CopyState.VALID and c.where.part == 0]  # fmt: skip
            if len(discs) > max(WANTED, len(found)) or len(found) > WANTED:
                raise Failure(f"inode {attr.ino} was burned {len(discs)} times")
