"""Autocommit and expiry over 30 simulated years, to the second, with clock jumps and restarts.

    tools/prove expiry [--seed N] [--files 300]

The clocks are simulated, everything else is real: catalog, files, audit log, retention. Random
files are committed by chmod or by autocommit, some extended, while the wall clock is set back and
forth by years, the daemon is stopped and killed, and the machine is switched off. For each file a
model says when it must become a record and when it may be deleted; a second before it must not, a
second after it must. The model counts the seconds that the machine ran, and never looks at the wall
clock. A power cut may hold the clock back by the minute that was not noted, and the model with it.
"""

from __future__ import annotations

import argparse
import random
import shutil
import stat
import sys
import tempfile
from collections import Counter
from pathlib import Path

import trio
import trio.testing

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from _verdict import Proof, proof

from hsmfs import clock
from hsmfs.catalog.catalog import Catalog
from hsmfs.catalog.retention import Folder
from hsmfs.engine.files import Files
from hsmfs.engine.trust import Trust
from hsmfs.engine.trust.verify import verify
from hsmfs.errors import Forbidden
from hsmfs.pool.pools import Pools
from hsmfs.pool.store import Pool
from hsmfs.states import Lock, RetentionMode
from hsmfs.types import ROOT

S = 10**9
DAY = 86_400
YEAR = 365 * DAY
YEARS = 30
START = 1_900_000_000
IDLE = {b"hour": 3600, b"month": 30 * DAY}
MIN, MAX = 10 * DAY, 20 * YEAR
DEFAULT = 3 * YEAR


class Machine:
    """A catalog on a machine whose clocks the proof moves; times are whole seconds of the model."""

    def __init__(self, mock: trio.testing.MockClock) -> None:
        self.mock = mock
        self.path = Path(tempfile.mkdtemp(prefix="hsmfs-expiry-"))
        Pool.create(self.path / "pool")
        self.catalog = Catalog.create(self.path / "state")
        self.now = START
        self.folders: dict[bytes, int] = {}

    async def start(self) -> None:
        pool = Pool("p", self.path / "pool")
        async with self.catalog.write():
            pool.id = self.catalog.volumes.register_pool("p", "disk", Pool.uuid_at(pool.path))
        self.pool = pool
        self.files = Files(self.catalog, Pools([pool]))
        self.trust = Trust(self.catalog, self.files)
        await self.trust.begin()

    async def make_folders(self) -> None:
        for name in (*IDLE, b"by-hand"):
            async with self.catalog.write():
                made = self.catalog.names.create(ROOT, name, stat.S_IFDIR | 0o755, 0, 0, 1)
            self.folders[name] = made.ino
            idle = IDLE.get(name)
            await self.trust.retention.set_folder(
                Folder(made.ino, RetentionMode.COMPLIANCE, MIN * S, DEFAULT * S, MAX * S,
                       idle and idle * S), "proof",
            )  # fmt: skip

    async def to(self, second: int) -> None:
        """Let time pass; autocommit looks whenever it is due."""
        while self.now < second:
            await self.trust.autocommit.flush()
            due = self.trust.retention.tables.next_due()
            at = second if due is None else min(second, max(-(-due // S), self.now))
            self.mock.jump(at - self.now)
            self.now = at
            while await self.trust.autocommit.look():
                pass

    async def restart(self, *, clean: bool) -> None:
        if clean:
            await self.trust.end()
        self.catalog.close()
        self.catalog = Catalog.open(self.path / "state")
        await self.start()

    async def off(self, seconds: int) -> None:
        """The machine is switched off cleanly: that time does not pass."""
        await self.trust.end()
        self.catalog.close()
        self.mock.jump(seconds)
        clock.BOOT.reboot()
        self.catalog = Catalog.open(self.path / "state")
        await self.start()

    async def power_cut(self, seconds: int) -> int:
        """The clock may be held back by what was not noted; by how many seconds it was."""
        self.catalog.close()
        self.mock.jump(seconds)
        clock.BOOT.reboot()
        self.catalog = Catalog.open(self.path / "state")
        await self.start()
        shown = self.trust.clock.now_ns() // S
        held, self.now = self.now - shown, shown
        return held

    def close(self) -> None:
        self.catalog.close()
        shutil.rmtree(self.path)


class File:
    """What the model knows of a file."""

    def __init__(self, ino: int, commit_at: int | None) -> None:
        self.ino, self.commit_at = ino, commit_at
        self.until: int | None = None


class Life:
    """Thirty years of one machine."""

    def __init__(self, p: Proof, rng: random.Random, machine: Machine, files: int) -> None:
        self.p, self.rng, self.machine, self.files = p, rng, machine, files
        self.counts: Counter[str] = Counter()
        self.todo: list[tuple[int, int, str, File | None]] = []
        self.serial = 0

    def plan(self, at: int, what: str, file: File | None = None) -> None:
        self.serial += 1
        self.todo.append((at, self.serial, what, file))

    async def live(self) -> None:
        rng, end = self.rng, START + YEARS * YEAR
        for what, count in (
            ("create", self.files), ("jump", 200), ("restart", 60), ("kill", 60), ("off", 40),
            ("power cut", 20), ("save", 1000),
        ):  # fmt: skip
            for _ in range(count):
                last = end - DEFAULT if what == "create" else end
                self.plan(rng.randrange(START + 1, last), what)
        self.plan(end, "the end")
        while self.todo:
            self.todo.sort()
            at, _, what, file = self.todo.pop(0)
            if at > end + MAX:
                break
            await self.machine.to(at)
            self.counts[what] += 1
            await self.act(what, file)

    async def act(self, what: str, file: File | None) -> None:
        m, rng = self.machine, self.rng
        if what == "create":
            await self.create()
        elif what == "the end":
            pass
        elif what == "jump":
            clock.WALL.set((m.now + rng.randrange(-40 * YEAR, 40 * YEAR)) * S)
            await m.trust.look()
        elif what == "save":
            async with m.catalog.write():
                m.trust.retention.tables.put_clock(m.trust.clock.row())
        elif what in ("restart", "kill"):
            await m.restart(clean=what == "restart")
        elif what == "off":
            await m.off(rng.randrange(1, 90 * DAY))
        elif what == "power cut":
            async with m.catalog.write():
                m.trust.retention.tables.put_clock(m.trust.clock.row())
            m.mock.jump(30)
            m.now += 30
            held = await m.power_cut(rng.randrange(1, 30 * DAY))
            self.counts["seconds held back by power cuts"] += held
            self.p.require(0 <= held <= 60, f"a power cut held the clock back by {held} s")
        else:
            assert file is not None
            await self.look(what, file)
        shown = m.trust.clock.now_ns()
        self.p.require(shown == m.now * S, f"after {what}: {shown / S} is not {m.now}")

    async def create(self) -> None:
        m, rng = self.machine, self.rng
        name = rng.choice(list(m.folders))
        async with m.catalog.write():
            attr = m.catalog.names.create(
                m.folders[name], b"%d" % self.serial, stat.S_IFREG | 0o644, 0, 0, clock.now_ns(),
                pool=m.pool.id,
            )
            m.trust.retention.arrived(attr, m.folders[name])
        file = File(attr.ino, m.now + IDLE[name] if name in IDLE else None)
        if file.commit_at is None:
            self.plan(m.now + rng.randrange(1, 50 * DAY), "commit", file)
        else:
            touches = sorted(rng.randrange(1, IDLE[name]) for _ in range(rng.choice((0, 0, 1, 3))))
            for touch in touches:
                self.plan(m.now + touch, "touch", file)
            self.plan_commit(file)
        self.serial += 1

    def plan_commit(self, file: File) -> None:
        assert file.commit_at is not None
        self.plan(file.commit_at - 1, "not yet a record", file)
        self.plan(file.commit_at + 1, "a record", file)

    async def look(self, what: str, file: File) -> None:
        m, rng = self.machine, self.rng
        attr = m.files.attr(file.ino)
        if what == "touch":
            async with m.catalog.write():
                await m.files.setattr(file.ino, attr._replace(ctime_ns=clock.now_ns()))
            file.commit_at = m.now + self.idle(file)
            self.plan_commit(file)
        elif what == "commit":
            wanted = rng.choice((0, m.now + rng.randrange(-YEAR, 40 * YEAR)))
            wall = clock.now_ns() // S
            async with m.catalog.write():
                m.trust.retention.wish(file.ino, wanted * S)
                made = m.trust.retention.commit(attr, "proof")
                await m.files.setattr(file.ino, made._replace(mode=made.mode & ~0o222))
            asked = wanted > max(m.now, wall) + 3600
            period = wanted - m.now if asked else DEFAULT
            self.committed(file, m.now + min(max(period, MIN), MAX))
        elif what == "not yet a record":
            if file.commit_at == m.now + 1:
                self.p.require(not attr.locked, f"inode {file.ino} was committed too early")
        elif what == "a record":
            if file.commit_at == m.now - 1:
                self.p.require(attr.locked == Lock.RECORD, f"inode {file.ino} is not committed")
                record = m.trust.retention.tables.get(file.ino)
                at = record.committed_ns / S if record else 0
                self.p.require(at == file.commit_at, f"committed at {at}, not {file.commit_at}")
                self.committed(file, file.commit_at + DEFAULT)
        elif what == "extend":
            later = file.until + rng.randrange(1, 5 * YEAR)
            until = await m.trust.retention.extend(attr, later * S, "proof")
            file.until = min(later, max(m.now + MAX, file.until))
            self.p.require(until == file.until * S, "extended to another time than the model's")
            self.plan_expiry(file)
        else:
            await self.try_to_delete(what, file)

    def idle(self, file: File) -> int:
        parent = self.machine.catalog.names.parent(file.ino)
        return next(IDLE[name] for name, ino in self.machine.folders.items() if ino == parent)

    def committed(self, file: File, until: int) -> None:
        file.until = until
        self.plan_expiry(file)
        if self.rng.random() < 0.3:
            self.plan(self.machine.now + self.rng.randrange(1, MIN), "extend", file)

    def plan_expiry(self, file: File) -> None:
        assert file.until is not None
        self.plan(file.until - 1, "not yet deletable", file)
        self.plan(file.until, "deletable", file)

    async def try_to_delete(self, what: str, file: File) -> None:
        m = self.machine
        attr = m.files.attr(file.ino)
        assert attr is not None and file.until is not None
        try:
            m.trust.retention.may_lose_name(attr, "unlink")
            may = True
        except Forbidden:
            may = False
        if m.now == file.until - 1:
            self.p.require(not may, f"inode {file.ino} could be deleted a second early")
        elif m.now == file.until:
            self.p.require(may, f"inode {file.ino} could not be deleted when its time was over")
            self.counts["expired to the second"] += 1
        else:
            self.counts["looks at times that a later extension moved"] += 1


async def run(p: Proof, seed: int, files: int, mock: trio.testing.MockClock) -> None:
    clock.WALL.set(START * S)
    clock.BOOT.simulate()
    machine = Machine(mock)
    try:
        await machine.start()
        await machine.make_folders()
        life = Life(p, random.Random(seed), machine, files)
        await life.live()
        for what, count in sorted(life.counts.items()):
            p.figure(what, count)
        p.figure("simulated years", (machine.now - START) / YEAR, at_least=YEARS)
        expired = life.counts["expired to the second"]
        p.figure("files that expired to the second", expired, at_least=files)
        verdict = await verify(machine.catalog)
        p.figure("audit records", verdict.records)
        p.require(not verdict.breaks, f"the audit chain is broken: {verdict.breaks[:1]}")
        kinds = Counter(record.kind for record in machine.trust.audit.log.after(0))
        p.figure("clock jumps on record", kinds["clock.jumped"], at_least=150)
    finally:
        machine.close()


def main(p: Proof) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--files", type=int, default=300)
    given = parser.parse_args()
    p.say(f"seed {given.seed}: --seed {given.seed} repeats this run")
    mock = trio.testing.MockClock()
    trio.run(run, p, given.seed, given.files, mock, clock=mock)


if __name__ == "__main__":
    with proof("autocommit and expiry are right to the second over 30 years") as p:
        main(p)
