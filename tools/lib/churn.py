"""Migrates, releases and recalls random files below a folder while something else uses them.

Each round archives some files, releases them although they are open, and recalls others, all with
`hsmctl --json`, chosen by a seeded generator. The users of the files are held still meanwhile: in
half of the rounds until the disc is verified (only so is a file that is written to all the time
ever released, and they go on with one that is not on disk), in the others for a moment, so that
they change what is being burned. Files may be refused; what was done and refused is counted, so
that a run in which nothing moved can't pass for a good one.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Self

VERBS = ("archive", "release", "recall")
OPTIONS = {"archive": ("--now",), "release": ("--open",), "recall": ("--wait",)}
MOMENT_S, FREE_S = 0.5, 1.5
"""At most so long are the users held still for a moment, and left alone after a round."""
WALK_SHARE = 5
"""Walking the tree takes at most one part in about this many of the time."""
FILES = 40
"""At most so many files in one order: one that has vanished refuses it whole."""


class Churn:
    """The loop, as a context manager: it works in a thread of its own until the block ends.

    `still` is a context in which those who use the files do nothing.
    """

    def __init__(
        self, control: Sequence[str], folder: Path, seed: int, *,
        still: Callable[[], AbstractContextManager[object]] = nullcontext,
        step_limit_s: float = 120.0, env: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self._control = list(control)
        self._folder = folder
        self._random = random.Random(seed)
        self._still = still
        self._step_limit_s = step_limit_s
        self._env = env
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="churn")
        self._crash: BaseException | None = None
        self.rounds = 0
        self.done: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
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
        """What makes the run worthless: verbs that never moved a byte, by name and reason."""
        return {
            f"churn {verb}": "moved nothing: " + self.last_refusal.get(verb, "no file to try")
            for verb in VERBS
            if not self.bytes[verb]
        }

    def summary(self) -> str:
        """Rounds, and files and bytes by verb."""
        verbs = ", ".join(
            f"{verb} {self.done[verb]} files of {self.bytes[verb] >> 20} MiB,"
            f" {self.refused[verb]} refused"
            for verb in VERBS
        )
        return f"{self.rounds} rounds, {verbs}"

    def _loop(self) -> None:
        try:
            files: list[str] = []
            walk_at = 0.0
            while not self._stop.is_set():
                if time.monotonic() >= walk_at or not files:
                    begun = time.monotonic()
                    files = self._files()
                    walk_at = time.monotonic() + WALK_SHARE * (time.monotonic() - begun)
                if files:
                    self._round(files)
                else:
                    self._stop.wait(0.05)  # nothing written yet
        except BaseException as error:  # handed to the thread that leaves the block
            self._crash = error

    def _round(self, files: list[str]) -> None:
        chosen, others = self._some(files), self._some(files)
        wait, early, recall = (self._random.random() < 0.5 for _ in range(3))
        moment, free = self._random.random() * MOMENT_S, self._random.random() * FREE_S
        with self._still():
            if wait:
                self._step("archive", chosen, "--wait")
            else:
                self._step("archive", chosen)
                self._stop.wait(moment)
            if early:
                self._step("release", chosen)
            if early and recall:
                self._step("recall", chosen[:1])  # before a user of it does
        if recall:
            self._step("recall", others)
        if not early:
            self._step("release", chosen)
        self.rounds += 1
        self._stop.wait(free)

    def _some(self, files: list[str]) -> list[str]:
        return self._random.sample(files, self._random.randint(1, min(FILES, len(files))))

    def _files(self) -> list[str]:
        """All regular files, in an order that does not depend on the filesystem's."""
        found: list[str] = []
        for parent, _folders, files in os.walk(self._folder):
            paths = [os.path.join(parent, name) for name in files]
            found += [path for path in paths if not os.path.islink(path) and os.path.isfile(path)]
        return sorted(found)

    def _step(self, verb: str, paths: list[str], *options: str) -> None:
        there = [path for path in paths if os.path.lexists(path)]
        if not there:
            return
        try:
            step = subprocess.run(
                [*self._control, "--json", verb, *OPTIONS[verb], *options, *there], env=self._env,
                check=False, capture_output=True, timeout=self._step_limit_s,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            self._refuse(verb, len(there), f"no answer in {self._step_limit_s:g} s")
            return
        outcome = _outcome(step.stdout)
        if outcome is None:
            message = (step.stderr or step.stdout).decode(errors="replace").strip()
            self._refuse(verb, len(there), f"exit status {step.returncode}: {message[-300:]}")
            return
        self.done[verb] += outcome["files"] - outcome.get("failed", 0) * (verb != "release")
        self.bytes[verb] += outcome["bytes"]
        if outcome["failed"]:
            self._refuse(verb, outcome["failed"], str(outcome["failures"][:1]))

    def _refuse(self, verb: str, files: int, why: str) -> None:
        self.refused[verb] += files
        self.last_refusal[verb] = why


def _outcome(output: bytes) -> dict[str, Any] | None:
    """The last object that hsmctl printed, if it is an outcome; None if the order was refused."""
    text = output.decode(errors="replace").strip()
    for candidate in (text, text.rpartition("\n")[2]):
        try:
            found = json.loads(candidate)
        except ValueError:
            continue
        if isinstance(found, dict) and {"files", "bytes", "failed"} <= found.keys():
            return found
    return None
