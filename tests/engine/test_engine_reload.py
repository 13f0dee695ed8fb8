"""The configuration read again while the engine works."""

from collections import Counter

import pytest

from hsmfs.catalog.queues import RecallClass
from hsmfs.config import ScheduleConfig
from hsmfs.engine import schedule
from hsmfs.engine.reload import LIVE as TAKEN
from hsmfs.engine.reload import Reloaded, merge, reload
from hsmfs.errors import ConfigError

LIVE = """
[schedule]
quiet = "{quiet} ms"
spare = {spare}
keep = "0 s"
bulk_age_limit = "{quiet} s"
[engine]
run_cap = "{quiet} ms"
burn_wait = "{quiet} s"
"""


def rewrite(lab, text):
    head, _, rest = lab.text.partition("[engine]")
    engine = text.partition("[engine]")
    (lab.root / "hsmfs.toml").write_text(head + engine[0] + "[engine]" + engine[2] + rest)
    lab.engine.config_file = lab.root / "hsmfs.toml"


async def test_what_counts_at_once_and_what_after_a_restart(lab):
    engine = lab.engine
    rewrite(lab, '[trash]\nkeep = "7 h"\n' + LIVE.format(quiet=3, spare=1))
    done = await reload(engine, "test")
    assert done.later == ["trash.keep"] and engine.config.trash.keep == 7 * 86_400
    assert {"schedule.quiet", "schedule.spare", "engine.run_cap"} <= set(done.taken)
    assert engine.mounts._board.rules.run_cap == 0.003
    (lab.root / "hsmfs.toml").write_text("[nothing]\n")
    with pytest.raises(ConfigError, match="nothing"):
        await reload(engine, "test")
    assert engine.mounts._board.rules.run_cap == 0.003, "a wrong file changes nothing"


async def test_it_loses_and_doubles_nothing(make_lab):
    """Rules change at each event while files come in from three discs and go to one more."""
    lab = make_lab(drives=1, slots=12)
    async with lab.running() as engine:
        inos = []
        for disc in range(3):
            some = [await lab.file(b"%d-%d" % (disc, n), b"x" * 300_000) for n in range(3)]
            await lab.archive(*some, release=True)
            inos += some
        new = [await lab.file(b"new-%d" % n, b"y" * 300_000) for n in range(2)]
        before = engine.events.since(0)[-1].seq
        for number, ino in enumerate(inos):
            urgency = RecallClass(number % 3)
            await engine.recaller.request(ino, urgency, "test")
        await engine.migrator.archive(new)
        await engine.migrator.flush()
        seen = changes = 0
        while engine.recaller.left() or engine.catalog.queues.migrations_waiting()[0]:
            changes += 1
            rewrite(lab, LIVE.format(quiet=1 + changes % 50, spare=changes % 2))
            await reload(engine, "test")
            seen = len(engine.events.since(before))
            await lab.until(lambda seen=seen: len(engine.events.since(before)) > seen + 1
                            or not engine.recaller.left())  # fmt: skip
        await lab.until(lambda: not engine.catalog.queues.recalls())
        await lab.settle()
        kinds = Counter((e.kind, e.fields.get("ino")) for e in engine.events.since(before))
        assert [kinds["recalled", ino] for ino in inos] == [1] * len(inos)
        assert sum(n for (kind, _), n in kinds.items() if kind == "volume_archived") == 1
        assert changes > 3
        for ino in inos:
            assert await lab.read(ino) == b"x" * 300_000


def changed(config, table, key):
    """The configuration with another number for a key, and for nothing else."""
    value = getattr(getattr(config, table), key)
    other = getattr(config, table).model_copy(update={key: (value or 6) + 1})
    return config.model_copy(update={table: other})


RULES = [("schedule", key) for key in ScheduleConfig.model_fields]
RULES += [("engine", "run_cap"), ("engine", "recall_drives")]


@pytest.mark.parametrize(("table", "key"), RULES)
def test_each_key_of_the_rules_is_taken_and_changes_them(make_lab, table, key):
    before = make_lab().config
    merged = merge(before, changed(before, table, key), done := Reloaded(""))
    assert (done.taken, done.later) == ([f"{table}.{key}"], [])
    assert schedule.rules(merged) != schedule.rules(before)


async def test_each_part_has_its_new_numbers(lab):
    """The wait of recalls by parity was the one of the start."""
    engine = lab.engine
    rewrite(lab, """
[schedule]
bulk_age_limit = "5 s"
[recall]
shelf_wait = "7 s"
budget_exchanges = 7
[prefetch]
share = 7
[scrub]
drives = 7
[guard]
slow_discs = 7
[fs]
wait_limit = "7 s"
max_waiters = 7
[engine]
burn_wait = "7 s"
""")
    text = engine.config_file.read_text().replace("50 ms", "7 s").replace(
        'min_residence = "0 s"', 'min_residence = "7 s"\nrecall_retries = 7'
    ).replace('name = "p"', 'name = "p"\nhigh = 77\nlow = 7')
    engine.config_file.write_text(text)
    done = await reload(engine, "test")
    tables = {name.split(".")[0] for name in done.taken}
    assert tables == {*TAKEN, "pool"} and not done.later
    recaller, mounts, config = engine.recaller, engine.mounts, engine.config
    for part in (recaller._config, recaller._reading.config, recaller._parity.config):
        assert part is config and part.engine.recall_retry_wait == 7
    assert (mounts._retries, mounts._retry_wait, mounts.robot_care.retry_wait) == (7, 7, 7)
    assert (recaller._slow.pause, recaller._slow._patience) == (3600 / 7, 5)
    assert engine.releaser._residence_ns == engine.migrator._wait_ns == 7 * 10**9
    assert engine.prefetcher.config.share == config.recall.budget_exchanges == 7
    assert engine.scrubber._config is config.scrub and config.scrub.drives == 7
    pool = next(iter(engine.pools))
    assert (pool.high, pool.low) == (77, 7)
