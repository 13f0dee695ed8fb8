"""Opening a simulated library: its robot, its drives and the faults that it acts out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from hsmfs.errors import ConfigError
from hsmfs.library.ports import ElementKind
from hsmfs.library.simulated.changer import SimulatedChanger
from hsmfs.library.simulated.config import SimulatedConfig
from hsmfs.library.simulated.drive import SimulatedDrive
from hsmfs.library.simulated.faults import Fault, Faults
from hsmfs.library.simulated.layout import Geometry
from hsmfs.library.simulated.timing import Timing


class SimulatedLibrary:
    """A `ports.Library` in a directory. One process at a time uses it.

    Attributes:
        changer, drives, disc_bytes: as in the protocol
        faults: what goes wrong, from Python and from faults.json
    """

    def __init__(self, config: SimulatedConfig, faults: Iterable[Fault] = ()) -> None:
        """Open what `create` built; blocking, a few milliseconds.

        Raises ConfigError if there is no library, or its size is not the one in the config.
        """
        geometry = Geometry.read(config.path)
        wanted = Geometry.of(config)
        for field in fields(Geometry):
            is_, asked = getattr(geometry, field.name), getattr(wanted, field.name)
            if is_ != asked:
                raise ConfigError(
                    f"library: {config.path} was built with {field.name} = {is_}, not {asked}"
                )
        timing = Timing.of(config)
        self.disc_bytes = geometry.disc_bytes
        self.faults = Faults(config.path, faults)
        self.drives = tuple(
            SimulatedDrive(
                config.path,
                element.drive,
                element.address,
                disc_bytes=geometry.disc_bytes,
                timing=timing,
                faults=self.faults,
                sync_burns=config.sync_burns,
            )
            for element in geometry.elements()
            if element.kind is ElementKind.DRIVE and element.drive is not None
        )
        self.changer = SimulatedChanger(config.path, geometry, timing, self.faults, self.drives)

    async def close(self) -> None:
        """Close every image; discs stay in their drives."""
        for drive in self.drives:
            drive.close()
