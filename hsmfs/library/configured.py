"""The library that the configuration names: the one place that knows each kind.

Everything else asks for `ports.Library` and cannot tell a simulated robot from a real one.
"""

from __future__ import annotations

from hsmfs.config import LibraryConfig
from hsmfs.library.activity import WatchedLibrary
from hsmfs.library.ports import Library
from hsmfs.library.simulated.config import SimulatedConfig
from hsmfs.library.simulated.create import create
from hsmfs.library.simulated.layout import ELEMENTS
from hsmfs.library.simulated.library import SimulatedLibrary


def build(config: LibraryConfig) -> bool:
    """Build a simulated library if its folder holds none; blocking. False: it was there already.

    Raises ConfigError if the one that is there has another size than the configuration says.
    """
    settings = _simulated(config)
    if (config.path / ELEMENTS).exists():
        SimulatedLibrary(settings)
        return False
    create(settings)
    return True


def open_library(config: LibraryConfig) -> Library:
    """Open it; blocking, milliseconds. Raises ConfigError if it is not there or another one."""
    return WatchedLibrary(SimulatedLibrary(_simulated(config)))


def _simulated(config: LibraryConfig) -> SimulatedConfig:
    return SimulatedConfig(
        path=config.path,
        drives=config.drives,
        magazines=config.magazines,
        slots_per_magazine=config.slots_per_magazine,
        import_export=config.import_export,
        disc_bytes=config.disc,
        exchange_s=config.exchange,
        load_s=config.load,
        seek_s=config.seek,
        read_bytes_per_s=config.read_rate,
        write_bytes_per_s=config.write_rate,
    )
