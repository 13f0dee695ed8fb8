"""Opening a real library: its robot and drives as discovery finds them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from hsmfs.clock import MEDIA, blocking
from hsmfs.errors import ConfigError
from hsmfs.library.ports import ElementKind
from hsmfs.library.scsi import burner, discovery
from hsmfs.library.scsi.changer import ScsiChanger
from hsmfs.library.scsi.config import ScsiConfig
from hsmfs.library.scsi.discovery import Found, Place
from hsmfs.library.scsi.drive import ScsiDrive
from hsmfs.library.scsi.link import Link, Opener
from hsmfs.library.scsi.sg import Generic
from hsmfs.types import ElementAddress


class ScsiLibrary:
    """A `ports.Library` of SCSI devices.

    Attributes:
        changer, drives, disc_bytes: as in the protocol
    """

    def __init__(self, config: ScsiConfig, opener: Opener = Generic) -> None:
        """Find the devices; blocking, a second or so.

        Raises ConfigError if there is no changer, a kind of element is missing, it has another
        number of drives than the configuration says, or the program that burns is not installed.
        """
        found = discovery.survey(config, opener)
        for kind in (ElementKind.STORAGE, ElementKind.DRIVE):
            if not any(span.kind is kind for span in found.spans):
                raise ConfigError(f"library: {found.changer.path} has no {kind.name.lower()}")
        if config.drives is not None and config.drives != len(found.places):
            raise ConfigError(
                f"library: {found.changer.path} has {len(found.places)} drives, "
                f"not {config.drives}",
                next_step="set [library] drives to the number that it has",
            )
        burner.check(config.burner)
        self.disc_bytes = config.disc_bytes
        self.found = found
        self.drives = tuple(self._drive(place, config, opener) for place in found.places)
        find = discovery.again(found.changer, opener)
        self._link = Link("the changer", _path(find), opener)
        self.changer = ScsiChanger(
            self._link, found.spans, self.drives, config.slots_per_magazine
        )
        for drive in self.drives:
            drive.full = partial(self.changer.holds_disc, drive.address)

    async def close(self) -> None:
        """Free the drives and let go of all devices; discs stay where they are."""

        def close() -> None:
            for drive in self.drives:
                drive.close()
            self._link.close()

        await blocking(close, MEDIA)

    @staticmethod
    def _drive(place: Place, config: ScsiConfig, opener: Opener) -> ScsiDrive:
        """A drive that is not connected is there too: it fails until it comes back."""
        device = place.device
        serial = device.identity.serial if device else ""
        find = (
            discovery.again(device, opener)
            if device
            else discovery.later(place.address, config, opener)
        )
        return ScsiDrive(
            place.name,
            serial or f"element-{place.address}",
            ElementAddress(place.address),
            Link(f"drive {place.name}", _path(find), opener),
            node=_node(find),
            burner=config.burner,
        )


def _path(find: Callable[[], Found | None]) -> Callable[[], Path | None]:
    def path() -> Path | None:
        found = find()
        return found.path if found else None

    return path


def _node(find: Callable[[], Found | None]) -> Callable[[], Path | None]:
    def node() -> Path | None:
        found = find()
        return found.node if found else None

    return node
