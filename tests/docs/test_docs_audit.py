"""docs/audit.md lists the kinds of records as the code has them."""

from __future__ import annotations

import re
from pathlib import Path

from hsmfs.engine.trust.kinds import KINDS


def test_every_kind_is_in_the_table(repo: Path) -> None:
    page = (repo / "docs/audit.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z]+\.[a-z_]+)` \| (.*) \|$", page, re.MULTILINE)
    assert dict(rows) == KINDS
