"""Third-party suites, already built, run on a folder: what each ran and what failed.

The suites are not part of this project and are given by path: pjdfstest (its `tests/` tree),
fsx and fsstress. Each function runs one on one folder and returns an Outcome; nothing here knows
what kind of filesystem lies below.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

Report = Callable[[str], None]

_TAP_PLAN = re.compile(r"^1\.\.(\d+)")
_TAP_LINE = re.compile(r"^(not )?ok\s*(\d+)?(.*)$")
_LONG_NAME = re.compile(r"[0-9a-f]{8}[0-9a-f/]{40,}")

STRESS_OPERATIONS = {
    "creat": 6, "mkdir": 3, "mknod": 2, "link": 2, "symlink": 2, "rename": 4, "rnoreplace": 2,
    "rexchange": 2, "rmdir": 1, "unlink": 3, "write": 12, "writev": 4, "mwrite": 6, "read": 4,
    "readv": 2, "mread": 4, "truncate": 6, "getdents": 1, "readlink": 1, "stat": 1, "chown": 3,
    "setfattr": 3, "removefattr": 1, "getfattr": 1, "listfattr": 1, "fsync": 1, "fdatasync": 1,
}  # fmt: skip
"""fsstress operations and their weights: all that give the same tree for one seed anywhere.

Direct I/O and fallocate are left out, because what they do depends on the filesystem's geometry
and would make the comparison with another filesystem meaningless.
"""


_running: set[int] = set()
"""Process groups of the programs that run now."""


@contextmanager
def held_still() -> Iterator[None]:
    """Stop all programs of the suite, with their children, for the length of the block."""
    groups = tuple(_running)
    _signal(groups, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal(groups, signal.SIGCONT)


def _signal(groups: tuple[int, ...], number: int) -> None:
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, number)


class SuiteError(Exception):
    """The suite could not be run at all: a wrong path, or a binary that is not the suite."""


@dataclass
class Outcome:
    """What one suite did on one folder: tests run, and why each failed one failed, by name."""

    ran: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    tree: dict[str, str] | None = None
    """What was left behind, by path, where the suite leaves the same tree everywhere."""


def new_failures(mount: Outcome, baseline: Outcome | None) -> dict[str, str]:
    """The failures that the baseline does not have, and the differences between their trees."""
    known = baseline.failures if baseline else {}
    found = {name: why for name, why in mount.failures.items() if name not in known}
    if baseline and baseline.tree is not None and mount.tree is not None:
        for path in sorted(baseline.tree.keys() | mount.tree.keys()):
            want, got = baseline.tree.get(path, "absent"), mount.tree.get(path, "absent")
            if want != got:
                found[f"tree {path}"] = f"expected {want}, got {got}"
    return found


def pjdfstest(suite: Path, folder: Path, *, jobs: int, limit_s: float, only: str | None,
              report: Report) -> Outcome:  # fmt: skip
    """Run pjdfstest's scripts, `jobs` at a time, each in a folder of its own below `folder`.

    A script that ends early, or is still running after `limit_s` seconds, fails for each test
    that it promised and did not run.
    """
    if not os.access(suite / "pjdfstest", os.X_OK):
        raise SuiteError(f"{suite}/pjdfstest: not there or not executable; build the suite first")
    if os.geteuid() != 0:
        raise SuiteError("pjdfstest changes users and makes devices: run it as root")
    scripts = sorted((suite / "tests").glob("*/*.t"))
    names = [str(script.relative_to(suite / "tests"))[:-2] for script in scripts]
    chosen = [name for name in names if only is None or re.search(only, name)]
    if not chosen:
        raise SuiteError(f"{suite}/tests: no script matches {only or '*/*.t'}")
    outcome = Outcome()
    with ThreadPoolExecutor(jobs) as pool:
        runs = pool.map(lambda name: _tap_script(suite, name, folder, limit_s), chosen)
        for name, (ran, failures) in zip(chosen, runs, strict=True):
            outcome.ran += ran
            outcome.failures.update(failures)
            report(f"{name}: {ran} tests" + (f", {len(failures)} FAILED" if failures else ""))
    return outcome


def _tap_script(suite: Path, name: str, folder: Path, limit_s: float) -> tuple[int, dict[str, str]]:
    workdir = Path(tempfile.mkdtemp(prefix="pjd-", dir=folder))
    workdir.chmod(0o755)  # the scripts act as other users below it
    command = ["/bin/sh", str(suite / "tests" / f"{name}.t")]
    output, status = _run(command, workdir, limit_s)
    failures: dict[str, str] = {}
    plan, seen = 0, 0
    for line in output.splitlines():
        if match := _TAP_PLAN.match(line):
            plan = int(match[1])
        elif match := _TAP_LINE.match(line):
            if match[1] is None and match[2] is None:
                continue  # a helper's unnumbered "ok"
            seen += 1
            if match[1] and "# TODO" not in match[3]:
                why = _LONG_NAME.sub(_shorten, match[3].removeprefix(" - ").strip())
                failures[f"{name}#{match[2] or seen}"] = why or "a condition in the script"
    if seen < plan or status is None:
        late = f", stopped after {limit_s:g} s" if status is None else ""
        failures[f"{name}#plan"] = f"ran {seen} of {plan} tests{late}"
    return seen, failures


def _shorten(name: re.Match[str]) -> str:
    """pjdfstest makes names of up to 4,095 random characters, which nobody wants to read."""
    return f"{name[0][:8]}...({len(name[0])} bytes)"


def fsx(binary: Path, folder: Path, *, ops: int, seed: int, procs: int, limit_s: float,
        report: Report, maps: bool = True) -> Outcome:  # fmt: skip
    """Run fsx on `procs` files at once; it compares all it reads with what it wrote."""
    _need_binary(binary)
    with tempfile.TemporaryDirectory(prefix="fsx-logs-") as logs, ThreadPoolExecutor(procs) as pool:

        def one(number: int) -> tuple[int, str, int | None]:
            name = f"fsx-{seed + number}"
            command = [
                str(binary), "-q", "-N", str(ops), "-S", str(seed + number), "-c", "40",
                "-l", str(10 * 2**20), "-o", str(2**18), "-P", logs,
                *([] if maps else ["-R", "-W"]), str(folder / name),
            ]  # fmt: skip
            output, status = _run(command, folder, limit_s)
            return number, output, status

        outcome = Outcome()
        for number, output, status in pool.map(one, range(procs)):
            outcome.ran += ops
            report(f"fsx seed {seed + number}: {ops} operations, {_ended(status, limit_s)}")
            if status != 0:
                tail = " | ".join(output.splitlines()[-12:])
                outcome.failures[f"fsx seed {seed + number}"] = f"{_ended(status, limit_s)}: {tail}"
    return outcome


def fsstress(binary: Path, folder: Path, *, ops: int, seed: int, procs: int, limit_s: float,
             report: Report, maps: bool = True) -> Outcome:  # fmt: skip
    """Run fsstress in `folder`, then record the tree it left, content and all.

    One seed leaves the same tree on every correct filesystem, so a baseline's tree is the oracle.
    """
    _need_binary(binary)
    chosen = {n: w for n, w in STRESS_OPERATIONS.items() if maps or n not in ("mread", "mwrite")}
    weights = [f for name, n in chosen.items() for f in ("-f", f"{name}={n}")]
    command = [
        str(binary), "-z", *weights, "-d", str(folder), "-n", str(ops), "-p", str(procs),
        "-s", str(seed),
    ]  # fmt: skip
    output, status = _run(command, folder, limit_s)
    report(f"fsstress seed {seed}: {procs} x {ops} operations, {_ended(status, limit_s)}")
    outcome = Outcome(ran=ops * procs)
    if status != 0:
        tail = " | ".join(output.splitlines()[-5:])
        outcome.failures["fsstress"] = f"{_ended(status, limit_s)}: {tail}"
    else:
        outcome.tree = tree(folder)
    return outcome


def tree(folder: Path) -> dict[str, str]:
    """Each path below `folder` with its kind, mode, owner, links, xattrs and content's SHA-256."""
    found: dict[str, str] = {}
    for parent, folders, files in os.walk(os.fsencode(folder)):
        for name in folders + files:
            path = os.path.join(parent, name)
            relative = os.fsdecode(os.path.relpath(path, os.fsencode(folder)))
            try:
                found[relative] = _describe(path)
            except OSError as error:
                found[relative] = f"unreadable: {error.strerror}"
    return found


def _describe(path: bytes) -> str:
    info = os.lstat(path)
    words = [f"mode {info.st_mode:o}", f"owner {info.st_uid}:{info.st_gid}"]
    if not stat.S_ISDIR(info.st_mode):
        words.append(f"links {info.st_nlink}")
    if stat.S_ISREG(info.st_mode):
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        words.append(f"{info.st_size} bytes {digest}")
    elif stat.S_ISLNK(info.st_mode):
        words.append(f"-> {hashlib.sha256(os.readlink(path)).hexdigest()}")
    for key in sorted(os.listxattr(path, follow_symlinks=False)):
        if key.startswith("user.") and not key.startswith("user.hsm."):
            value = os.getxattr(path, key, follow_symlinks=False)
            words.append(f"{key}={hashlib.sha256(value).hexdigest()}")
    return " ".join(words)


def _need_binary(binary: Path) -> None:
    if not os.access(binary, os.X_OK) or not binary.is_file():
        raise SuiteError(f"{binary}: not there or not executable; build the suite first")


def _ended(status: int | None, limit_s: float) -> str:
    if status is None:
        return f"stopped after {limit_s:g} s"
    return "passed" if status == 0 else f"exit status {status}"


def _run(command: list[str], cwd: Path, limit_s: float) -> tuple[str, int | None]:
    """Output and exit status; None for a command that had to be stopped with all its children."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True, umask=0o022,
        )  # fmt: skip
        status: int | None
        _running.add(process.pid)
        try:
            status = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _running.discard(process.pid)
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output.seek(0)
        return output.read().decode(errors="replace"), status
