"""The library in memory passes what every library must: it stands for one in the simulation."""

from __future__ import annotations

import pytest

from hsmfs.library.simulated.config import SimulatedConfig
from tests.library.conftest import MIB, Rig
from tests.library.test_library_conformance import *  # noqa: F403
from tests.sim.library import MemoryLibrary


@pytest.fixture
def rig(tmp_path) -> Rig:
    config = SimulatedConfig(
        tmp_path / "library", drives=2, magazines=2, import_export=2, disc_bytes=64 * MIB
    )
    return Rig(MemoryLibrary.made(config), tmp_path)
