"""The library in memory passes what every library must: it stands for one in the simulation."""

from __future__ import annotations

import pytest

from hsmfs.library.simulated.config import SimulatedConfig
from tests.library.conftest import MIB, Rig
from tests.library.test_library_conformance import *  # noqa: F403
from tests.sim.library import MemoryLibrary


@pytest.fixture(params=["singly", "whole"])
async def rig(request, tmp_path) -> Rig:
    whole = request.param == "whole"
    config = SimulatedConfig(
        tmp_path / "library", drives=4 if whole else 2, magazines=3,
        import_export=0 if whole else 2, drives_per_magazine=2 if whole else 0,
        disc_bytes=64 * MIB,
    )  # fmt: skip
    library = MemoryLibrary.made(config)
    if whole:
        await library.changer.carry(1, 1)
    return Rig(library, tmp_path, whole=whole)
