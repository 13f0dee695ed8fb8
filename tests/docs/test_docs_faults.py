"""The table of faults and the scenes that prove it name the same faults."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest


def test_every_fault_of_the_table_is_acted_out(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("tools", "tools/proofs"):
        monkeypatch.syspath_prepend(str(repo / place))
    kept = set(sys.modules)
    try:
        faults = importlib.import_module("faults")
        rows = faults.table()
        assert rows.keys() == faults.SCENES.keys()
        assert {row.outcome for row in rows.values()} == {"data", "EIO"}
        assert all(row.log for row in rows.values() if row.outcome == "EIO")
    finally:
        for name in set(sys.modules) - kept:
            del sys.modules[name]
