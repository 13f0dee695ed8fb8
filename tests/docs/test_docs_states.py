"""The state tables of docs/architecture.md say what the code allows."""

from __future__ import annotations

import re
from enum import IntEnum
from pathlib import Path

import pytest

from hsmfs.states import BURN_TRANSITIONS, FILE_TRANSITIONS, VOLUME_TRANSITIONS

PAGE = Path(__file__).resolve().parents[2] / "docs/architecture.md"


def documented(what: str) -> dict[str, set[str]]:
    _, _, table = PAGE.read_text(encoding="utf-8").partition(f"| {what} | is | may become |\n")
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", table.split("\n\n")[0], re.MULTILINE)
    return {name: set() if next_ == "nothing" else set(next_.split(", ")) for name, next_ in rows}


@pytest.mark.parametrize(
    ("what", "table"),
    [("file", FILE_TRANSITIONS), ("volume", VOLUME_TRANSITIONS), ("burn", BURN_TRANSITIONS)],
)
def test_architecture_page_lists_the_allowed_transitions(
    what: str, table: dict[IntEnum, frozenset[IntEnum]]
) -> None:
    allowed = {old.name.lower(): {new.name.lower() for new in news} for old, news in table.items()}
    assert documented(what) == allowed
