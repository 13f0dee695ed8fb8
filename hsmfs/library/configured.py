"""The library that the configuration names: the one place that knows each kind.

Everything else asks for `ports.Library` and cannot tell a simulated robot from a real one.
"""

from __future__ import annotations

from pathlib import Path

from hsmfs.config import LibraryConfig
from hsmfs.errors import ConfigError
from hsmfs.library.activity import WatchedLibrary
from hsmfs.library.labels import LabelledLibrary, Memory
from hsmfs.library.ports import Library
from hsmfs.library.scsi.config import ScsiConfig
from hsmfs.library.scsi.library import ScsiLibrary
from hsmfs.library.simulated.config import SimulatedConfig
from hsmfs.library.simulated.create import create
from hsmfs.library.simulated.layout import ELEMENTS
from hsmfs.library.simulated.library import SimulatedLibrary


def build(config: LibraryConfig) -> bool:
    """Build a simulated library if its folder holds none; blocking. False: it was there already.

    A real one is only looked for. Raises ConfigError if the one that is there has another size
    than the configuration says.
    """
    _labels(config)
    if config.kind == "scsi":
        ScsiLibrary(scsi(config))
        return False
    settings = _simulated(config)
    if (settings.path / ELEMENTS).exists():
        SimulatedLibrary(settings)
        return False
    create(settings)
    return True


def open_library(config: LibraryConfig) -> Library:
    """Open it; blocking, up to seconds. Raises ConfigError if it is not there or another one."""
    labels = _labels(config)
    library: Library
    if config.kind == "scsi":
        library = ScsiLibrary(scsi(config))
    else:
        library = SimulatedLibrary(_simulated(config))
    if labels is not None:
        library = LabelledLibrary(library, Memory(labels))
    return WatchedLibrary(library)


def _labels(config: LibraryConfig) -> Path | None:
    """The file that remembers which disc is where, if the changer reads no barcodes."""
    if config.barcodes:
        return None
    if config.path is None:
        raise ConfigError("library: a changer without barcodes needs [library] path")
    return config.path / "labels.json"


def scsi(config: LibraryConfig) -> ScsiConfig:
    """The part of the configuration that a SCSI library has."""
    return ScsiConfig(
        changer=config.changer,
        drive_devices=config.drive_devices,
        drives=config.drives,
        slots_per_magazine=config.slots_per_magazine,
        disc_bytes=config.disc,
        burner=config.burner,
    )


def _simulated(config: LibraryConfig) -> SimulatedConfig:
    if config.path is None:
        raise ConfigError("library: a simulated library needs its folder")
    return SimulatedConfig(
        path=config.path,
        drives=config.drives,
        magazines=config.magazines,
        slots_per_magazine=config.slots_per_magazine,
        import_export=0 if config.drives_per_magazine else config.import_export,
        drives_per_magazine=config.drives_per_magazine,
        arms=config.arms,
        disc_bytes=config.disc,
        exchange_s=config.exchange,
        load_s=config.load,
        seek_s=config.seek,
        read_bytes_per_s=config.read_rate,
        write_bytes_per_s=config.write_rate,
    )
