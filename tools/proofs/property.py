"""Random operations of users and the engine on a real mount: always what a plain directory does.

    tools/prove property [--steps N] [--seed N] [--shrink]

A hypothesis state machine (tools/lib/machine.py) draws the operations; the plain directory is the
model, errno for errno. --shrink looks for the shortest sequence that fails, which takes long.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from _verdict import Proof, proof
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from lib.machine import Machine, new_fs
from lib.tempfs import TempFs

STEPS = 2000
STEPS_EACH = 50
PATIENCE_S = 30.0
ENGINE = {
    "archive", "archive, not waited for", "release", "recall", "pin", "cancel", "policy run",
    "clean restart", "kill -9 and restart",
}  # fmt: skip


def run(p: Proof, steps: int, first_seed: int, phases: list[Phase]) -> Counter[str]:
    """Examples until there were enough steps; raises at the first difference."""
    with tempfile.TemporaryDirectory(prefix="hsmfs-property-") as name:
        with new_fs(Path(name)) as fs:

            class Ours(Machine):
                pass

            Ours.fs, Ours.patience_s, Ours.done = fs, PATIENCE_S, Counter()
            number = first_seed
            try:
                while Ours.done.total() < steps:
                    once = settings(
                        max_examples=5, stateful_step_count=STEPS_EACH, deadline=None,
                        phases=phases, database=None, print_blob=False,
                        suppress_health_check=list(HealthCheck),
                    )  # fmt: skip
                    run_state_machine_as_test(seed(number)(Ours), settings=once)
                    p.say(f"seed {number}: {Ours.done.total()} steps so far, no difference")
                    number += 1
            except BaseException:
                tell(p, number, fs)
                raise
            return Ours.done


def tell(p: Proof, number: int, fs: TempFs) -> None:
    """What the daemon was doing when seed `number` failed."""
    p.say(f"seed {number}: failed")
    if fs.daemon is not None:
        p.say(fs.control("queue", check=False))
        fs.daemon.send_signal(signal.SIGUSR1)  # all its tasks go to the log
        time.sleep(1)
    p.say(f"the end of the daemon's log:\n{fs.log_tail(1500)}")


def main(p: Proof) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, help="drawn if not given")
    parser.add_argument("--shrink", action="store_true")
    given = parser.parse_args()
    first = random.SystemRandom().randrange(2**31) if given.seed is None else given.seed
    p.say(f"seed {first}")
    done = run(p, given.steps, first, [Phase.generate] + [Phase.shrink] * given.shrink)
    for kind, number in done.most_common():
        p.figure(kind, number)
    p.figure("operations of users", sum(n for k, n in done.items() if k not in ENGINE))
    p.figure("operations of the engine", sum(n for k, n in done.items() if k in ENGINE))
    p.figure("kill -9 survived", done["kill -9 and restart"], at_least=min(1, given.steps // 500))
    p.figure("steps without a difference", done.total(), at_least=given.steps)


if __name__ == "__main__":
    with proof("hsmfs does what a plain directory does, whatever the engine does meanwhile") as p:
        main(p)
