"""The configuration read again while the daemon runs: what counts at once, what after a restart.

Nothing that waits or is under way is touched: claims, queues, sessions and burns stay as they are,
and the next decision is made by the new numbers. A file with a fault changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import clock, config, crash, logs
from ..config import Config, PoolConfig
from ..errors import Conflict

if TYPE_CHECKING:
    from .service import Engine

log = logs.get(__name__)
LIVE: Mapping[str, frozenset[str] | None] = {
    "schedule": None,
    "recall": None,
    "prefetch": None,
    "scrub": frozenset({"drives", "rate", "share"}),
    "guard": frozenset({"slow_discs"}),
    "fs": frozenset({"wait_limit", "max_waiters"}),
    "engine": frozenset(
        {"run_cap", "recall_drives", "recall_retries", "recall_retry_wait", "min_residence",
         "burn_wait"}
    ),
}  # fmt: skip
"""Keys that count at once, by table; None: all of them. Of pools: high and low."""


@dataclass(slots=True)
class Reloaded:
    """What became of a changed configuration.

    Attributes:
        taken: keys that count from now on; later: those that need a restart.
    """

    file: str
    taken: list[str] = field(default_factory=list)
    later: list[str] = field(default_factory=list)


async def reload(engine: Engine, who: str) -> Reloaded:
    """Read the daemon's configuration again. Raises ConfigError, Conflict if there is no file."""
    file = engine.config_file
    if file is None:
        raise Conflict("this daemon was not started with a configuration file")
    result = Reloaded(str(file))
    new = merge(engine.config, await clock.blocking(partial(config.load, file)), result)
    async with engine.catalog.write():
        engine.trust.audit.note(
            "config.reloaded", who, str(file), taken=result.taken, later=result.later
        )
    crash.point("config.reload.noted")
    take_over(engine, new)
    log.info("configuration reloaded", file=file, taken=result.taken, later=result.later)
    engine.events.emit("config_reloaded", file=str(file), taken=result.taken, later=result.later)
    return result


def take_over(engine: Engine, new: Config) -> None:
    """Let every part have its new numbers; no await between the first and the last."""
    engine.config = new
    given = {pool.name: pool for pool in new.pool}
    for pool in engine.pools:
        if pool.name in given:
            pool.high, pool.low = given[pool.name].high, given[pool.name].low
    for part in (
        engine.mounts, engine.recaller, engine.migrator, engine.releaser, engine.prefetcher,
        engine.scrubber,
    ):  # fmt: skip
        part.configure(new)


def merge(old: Config, new: Config, result: Reloaded) -> Config:
    """The old configuration with what may change of the new one; the keys go into result."""
    tables: dict[str, Any] = {}
    for name in Config.model_fields:
        before, after = getattr(old, name), getattr(new, name)
        if name == "pool":
            tables[name] = _pools(before, after, result)
        elif before is None or after is None:
            result.later += [name] if before != after else []
        else:
            live = LIVE.get(name, frozenset())
            tables[name] = _table(name, before, after, live, result)
    return old.model_copy(update=tables)


def _table(
    name: str, before: Any, after: Any, live: frozenset[str] | None, result: Reloaded
) -> Any:
    update = {}
    for key in type(before).model_fields:
        value = getattr(after, key)
        if value == getattr(before, key):
            continue
        if live is None or key in live:
            update[key] = value
            result.taken.append(f"{name}.{key}")
        else:
            result.later.append(f"{name}.{key}")
    return before.model_copy(update=update)


def _pools(
    before: tuple[PoolConfig, ...], after: tuple[PoolConfig, ...], result: Reloaded
) -> tuple[PoolConfig, ...]:
    if [pool.name for pool in before] != [pool.name for pool in after]:
        result.later.append("pool")
        return before
    live = frozenset({"high", "low"})
    return tuple(
        _table(f"pool.{one.name}", one, other, live, result)
        for one, other in zip(before, after, strict=True)
    )
