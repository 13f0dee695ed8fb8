"""The crash proof's parts, shortened: its points, one life without a crash, a few with one."""

from __future__ import annotations

import re
import sys
from collections import Counter

import pytest

LEAST = 60
SOME = ("files.write.after", "release.synced", "recall.save.synced", "burn.committed")


def all_points(repo):
    text = "\n".join(path.read_text() for path in (repo / "hsmfs").rglob("*.py"))
    return re.findall(r'crash\.point\(\s*"([^"]+)"', text)


def test_points_are_many_and_named_once(repo):
    points = all_points(repo)
    assert len(points) >= LEAST
    assert [name for name, count in Counter(points).items() if count > 1] == []


@pytest.mark.mount
@pytest.mark.parametrize("point", SOME)
def test_a_life_cut_off(repo, tmp_path, monkeypatch, point):
    monkeypatch.syspath_prepend(str(repo / "tools"))
    monkeypatch.syspath_prepend(str(repo / "tools/proofs"))
    for name in ("crash", "_verdict"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import crash

    assert point in all_points(repo)
    assert crash.die_at(point, tmp_path / "life", seed=1) == []
