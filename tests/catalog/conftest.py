"""An empty catalog, for those who need no more."""

from __future__ import annotations

import pytest

from hsmfs.catalog.catalog import Catalog


@pytest.fixture
async def catalog(tmp_path):
    catalog = Catalog.create(tmp_path)
    yield catalog
    catalog.close()
