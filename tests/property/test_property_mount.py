"""A short walk of the state machine on a real mount; `tools/prove property` goes further."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tools.lib.machine import Machine, new_fs


@pytest.mark.mount
@pytest.mark.slow
def test_a_mount_does_what_a_plain_directory_does(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with new_fs(tmp_path / "hsmfs") as fs:

        class Ours(Machine):
            pass

        Ours.fs, Ours.done = fs, Counter()
        run_state_machine_as_test(
            seed(request.config.option.seed)(Ours),
            settings=settings(
                max_examples=6, stateful_step_count=50, deadline=None, database=None,
                phases=[Phase.generate], suppress_health_check=list(HealthCheck),
            ),
        )  # fmt: skip
        assert Ours.done.total() >= 250
