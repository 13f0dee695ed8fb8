"""Migrates, releases and recalls random files below a folder while something else uses them.

Each step is one `hsmctl --json archive|release|recall PATH`, chosen by a seeded generator. A step
may be refused, because files vanish and change underneath; what was done and what was refused is
counted, so that a run in which nothing moved can't pass for a good one.
"""

from __future__ import annotations

import os
import random
import subprocess
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

VERBS = ("archive", "release", "recall")


class Churn:
    """The loop, as a context manager: it works in a thread of its own until the block ends."""

    def __init__(
        self, control: Sequence[str], folder: Path, seed: int, *,
        step_limit_s: float = 120.0, env: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self._control = list(control)
        self._folder = folder
        self._random = random.Random(seed)
        self._step_limit_s = step_limit_s
        self._env = env
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="churn")
        self._crash: BaseException | None = None
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.last_refusal: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self._stop.set()
        self._thread.join()
        if kind is None and self._crash is not None:
            raise self._crash

    def faults(self) -> dict[str, str]:
        """What makes the run worthless: verbs that never once succeeded, by name and reason."""
        return {
            f"churn {verb}": "never succeeded: " + self.last_refusal.get(verb, "no file to try")
            for verb in VERBS
            if not self.done[verb]
        }

    def summary(self) -> str:
        return ", ".join(f"{v} {self.done[v]} done {self.refused[v]} refused" for v in VERBS)

    def _loop(self) -> None:
        try:
            while not self._stop.is_set():
                files = self._files()
                if files:
                    self._step(self._random.choice(VERBS), self._random.choice(files))
                else:
                    self._stop.wait(0.05)  # nothing written yet
        except BaseException as error:  # handed to the thread that leaves the block
            self._crash = error

    def _files(self) -> list[str]:
        """All regular files, in an order that does not depend on the filesystem's."""
        found: list[str] = []
        for parent, _folders, files in os.walk(self._folder):
            paths = [os.path.join(parent, name) for name in files]
            found += [path for path in paths if not os.path.islink(path) and os.path.isfile(path)]
        return sorted(found)

    def _step(self, verb: str, path: str) -> None:
        try:
            step = subprocess.run(
                [*self._control, "--json", verb, path], env=self._env, check=False,
                capture_output=True, timeout=self._step_limit_s,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            self.refused[verb] += 1
            self.last_refusal[verb] = f"{path}: no answer in {self._step_limit_s:g} s"
            return
        if step.returncode == 0:
            self.done[verb] += 1
            return
        self.refused[verb] += 1
        message = (step.stderr or step.stdout).decode(errors="replace").strip()
        self.last_refusal[verb] = f"{path}: exit status {step.returncode}: {message[-300:]}"
