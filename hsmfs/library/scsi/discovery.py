"""Which SCSI devices are the robot and its drives, found by what they say of themselves.

The kernel's names change from start to start; a drive is known by its serial number. The robot
tells which device is in which of its drive places (READ ELEMENT STATUS with DVCID, SMC-3 section
6.11.5); where it cannot, the configuration does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hsmfs.errors import ConfigError
from hsmfs.library.ports import ElementKind
from hsmfs.library.scsi import elements
from hsmfs.library.scsi.config import ScsiConfig
from hsmfs.library.scsi.elements import Span, Status
from hsmfs.library.scsi.inquiry import DeviceType, Identity, identify, text
from hsmfs.library.scsi.link import Opener
from hsmfs.library.scsi.sg import Generic, ScsiError

SYSFS = Path("/sys/class/scsi_generic")
DEV = Path("/dev")
_SHORTEST = 4
"""A serial number shorter than this is no proof of anything inside a longer text."""


@dataclass(frozen=True, slots=True)
class Found:
    """A device of this host that is a changer or an optical drive."""

    path: Path
    """/dev/sgN, for commands."""
    node: Path | None
    """/dev/srN, for programs that burn; None for a changer."""
    identity: Identity


@dataclass(frozen=True, slots=True)
class Place:
    """A drive of the changer and the device that it is, if that is known."""

    name: str
    address: int
    told: str
    """The identification that the robot gives, for people; '' if none."""
    device: Found | None


@dataclass(frozen=True, slots=True)
class Map:
    """A library as it was found."""

    changer: Found
    spans: tuple[Span, ...]
    places: tuple[Place, ...]
    others: tuple[Found, ...]
    """Optical drives that are in no place of this changer."""


def devices(opener: Opener = Generic) -> list[Found]:
    """All changers and optical drives of this host, by number; blocking.

    One that vanishes meanwhile, or that another program holds, is left out. Raises PermissionError.
    """
    found: list[Found] = []
    if not SYSFS.is_dir():
        return found
    for folder in sorted(SYSFS.iterdir(), key=_number):
        device = _look(folder, opener)
        if device is not None:
            found.append(device)
    return found


def _look(folder: Path, opener: Opener) -> Found | None:
    """The device of a folder of sysfs; None if it is of another type, gone, or does not answer."""
    try:
        kind = int((folder / "device/type").read_text())
        if kind not in (DeviceType.OPTICAL_DRIVE, DeviceType.CHANGER):
            return None
        path = DEV / folder.name
        device = opener(path)
        try:
            return Found(path, _node(folder), identify(device))
        finally:
            device.close()
    except (ScsiError, FileNotFoundError):
        return None


def survey(config: ScsiConfig, opener: Opener = Generic) -> Map:
    """Find the library; blocking. Raises ConfigError if there is none, or more than one."""
    all_ = devices(opener)
    changer = _choose(config.changer, [d for d in all_ if d.identity.type == DeviceType.CHANGER])
    drives = [d for d in all_ if d.identity.type == DeviceType.OPTICAL_DRIVE]
    device = opener(changer.path)
    try:
        spans = tuple(elements.spans(device))
        bays = [
            status
            for span in spans
            if span.kind is ElementKind.DRIVE
            for status in elements.read(device, span)
        ]
    except ScsiError as error:
        raise ConfigError(f"library: changer {changer.path} does not tell what it has: {error}",
                          next_step="look at the library's panel") from error  # fmt: skip
    finally:
        device.close()
    matched = _assign(bays, config.drive_devices, drives)
    places = tuple(
        Place(f"d{index}", bay.address, text(bay.designator), device)
        for index, (bay, device) in enumerate(zip(bays, matched, strict=True), 1)
    )
    _no_drive_twice(places)
    taken = {place.device.path for place in places if place.device}
    return Map(changer, spans, places, tuple(d for d in drives if d.path not in taken))


def again(device: Found, opener: Opener = Generic) -> Callable[[], Found | None]:
    """A function that finds the device, wherever it is today; blocking."""

    def find() -> Found | None:
        here = _look(SYSFS / device.path.name, opener)
        if here is not None and _same(here, device):
            return here
        found = [d for d in devices(opener) if _same(d, device)]
        return found[0] if len(found) == 1 else None

    return find


def later(address: int, config: ScsiConfig, opener: Opener = Generic) -> Callable[[], Found | None]:
    """A function that looks for a drive that was not there when the library was opened."""

    def find() -> Found | None:
        places = survey(config, opener).places
        return next((place.device for place in places if place.address == address), None)

    return find


def _same(one: Found, other: Found) -> bool:
    """Whether it is the same device; one without a serial number is known by its path alone."""
    if one.identity.type != other.identity.type or one.identity.serial != other.identity.serial:
        return False
    return bool(one.identity.serial) or one.path == other.path


def _choose(wanted: str, changers: Sequence[Found]) -> Found:
    if wanted:
        chosen = [c for c in changers if _is(c, wanted)]
        if not chosen:
            raise ConfigError(f"library: there is no changer {wanted}: {_list(changers)}",
                              next_step="see 'hsmctl library discover'")  # fmt: skip
        return chosen[0]
    if len(changers) != 1:
        raise ConfigError(
            f"library: {len(changers)} changers are connected: {_list(changers)}",
            next_step="set [library] changer to one of them" if changers else
            "check cables and power, and that the module 'sg' is loaded",
        )  # fmt: skip
    return changers[0]


def _list(found: Sequence[Found]) -> str:
    return ", ".join(f"{d.path} (serial {d.identity.serial or 'none'})" for d in found) or "none"


def _assign(
    bays: Sequence[Status], configured: Sequence[str], drives: Sequence[Found]
) -> list[Found | None]:
    """The device of each drive place: as configured, else as the robot tells.

    Nothing is guessed: a place for which two devices are possible gets none.
    """
    chosen: list[Found | None] = [None] * len(bays)
    for index, wanted in enumerate(configured[: len(bays)]):
        chosen[index] = next((d for d in drives if _is(d, wanted)), None)
    for says in (_tells, _begins):
        for index, bay in enumerate(bays):
            if index < len(configured) or chosen[index] is not None:
                continue
            possible = [d for d in drives if d not in chosen and says(bay.designator, d.identity)]
            if len(possible) == 1:
                chosen[index] = possible[0]
    if len(bays) == len(drives) == 1 and not configured and not bays[0].designator:
        chosen[0] = drives[0]
    return chosen


def _tells(designator: bytes, identity: Identity) -> bool:
    """Whether the robot's identification of a drive is of this device."""
    if not designator:
        return False
    if designator.strip(b" \0") in {d.strip(b" \0") for d in identity.designators}:
        return True
    serial = identity.serial
    return len(serial) >= _SHORTEST and text(designator).endswith(serial)


def _begins(designator: bytes, identity: Identity) -> bool:
    """Whether a T10 identification (SPC-4 section 7.8.6.4) that was cut off may be of this."""
    told = text(designator)
    whole = f"{identity.vendor:<8}{identity.product:<16}{identity.serial}"
    return len(told) > len("vendor--product---------") and whole.startswith(told)


def _is(device: Found, wanted: str) -> bool:
    """Whether a path (or a link to it, as in /dev/disk/by-id) or a serial number means it."""
    if not wanted.startswith("/"):
        return device.identity.serial == wanted
    path = Path(wanted).resolve()
    return path in (device.path, device.node)


def _no_drive_twice(places: Sequence[Place]) -> None:
    seen: dict[Path, str] = {}
    for place in places:
        if place.device is None:
            continue
        other = seen.setdefault(place.device.path, place.name)
        if other != place.name:
            raise ConfigError(
                f"library: {place.device.path} would be drive {other} and drive {place.name}",
                next_step="correct [library] drive_devices",
            )


def _node(folder: Path) -> Path | None:
    block = folder / "device/block"
    names = sorted(block.iterdir()) if block.is_dir() else []
    return DEV / names[0].name if names else None


def _number(folder: Path) -> int:
    digits = re.search(r"\d+$", folder.name)
    return int(digits[0]) if digits else 0
