"""Making an hsmfs from a configuration, and opening its pools: what init and the daemon share.

Everything is checked against the catalog before a byte is served: a pool that is gone, read-only,
exchanged or left out of the configuration is an error that names it, never an empty filesystem.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from .. import clock, crash
from ..catalog.catalog import Catalog
from ..config import Config, PoolConfig
from ..errors import Conflict, PoolUnavailable
from ..library import configured
from ..pool.pools import Pools
from ..pool.store import Pool
from .fsck import Report, fsck


@dataclass(frozen=True, slots=True)
class Made:
    """What `init` made, and what it found there already."""

    pools: tuple[str, ...]
    library: bool
    """False: the library was there already."""
    discs: int


async def init(config: Config) -> Made:
    """Make pools, library and catalog; durable when this returns.

    The catalog comes last, so that an init that was cut off can be repeated. Raises Conflict if
    there is a catalog already, PoolUnavailable, ConfigError.
    """
    state = config.daemon.state
    if Catalog.complete(state):
        raise Conflict(
            f"{state} holds a catalog already: this hsmfs was initialised before",
            next_step="run 'hsmctl mount', or set [daemon] state to an empty folder",
        )
    for pool in config.pool:
        await clock.blocking(lambda pool=pool: Pool.create(pool.path))  # type: ignore[misc]
        crash.point("init.pool.made")
    built = await clock.blocking(lambda: configured.build(config.library))
    crash.point("init.library.built")
    await clock.blocking(lambda: config.engine.spool.mkdir(parents=True, exist_ok=True))
    catalog = await clock.blocking(lambda: Catalog.create(state, uid=os.getuid(), gid=os.getgid()))
    try:
        crash.point("init.catalog.created")
        await open_pools(config.pool, catalog)
        await catalog.sync()
    finally:
        catalog.close()
    library = config.library
    discs = library.magazines * library.slots_per_magazine
    return Made(tuple(pool.name for pool in config.pool), built, discs)


async def open_pools(configs: tuple[PoolConfig, ...], catalog: Catalog) -> Pools:
    """Open, check and register the pools. Raises PoolUnavailable, naming the pool."""
    known = catalog.volumes.pools()
    opened: list[Pool] = []
    for config in configs:
        pool = await clock.blocking(lambda config=config: _open(config))  # type: ignore[misc]
        registered = known.get(config.name)
        if registered is not None and registered[1] != pool.uuid:
            raise PoolUnavailable(
                f"pool {config.name}: {config.path} is not the pool it was "
                f"(its mark is {pool.uuid}, not {registered[1]})",
                next_step=f"mount the right filesystem at {config.path}, or give a new pool a "
                "name of its own",
            )
        opened.append(pool)
    async with catalog.write():
        for pool in opened:
            pool.id = catalog.volumes.register_pool(pool.name, pool.tier, pool.uuid)
    crash.point("pools.register.committed")
    given = {pool.name for pool in opened}
    for name, (number, _) in known.items():
        if name not in given and await catalog.read(
            lambda reports, number=number: reports.holds_files(number)  # type: ignore[misc]
        ):
            raise PoolUnavailable(
                f"pool {name} holds files, but is not in the configuration",
                next_step="add its [[pool]] again",
            )
    return Pools(opened)


def _open(config: PoolConfig) -> Pool:
    if not config.path.is_dir():
        raise PoolUnavailable(f"pool {config.name}: {config.path} is not there")
    pool = Pool(
        config.name, config.path, config.tier, config.capacity, config.high, config.low
    )
    pool.check()
    return pool


async def fsck_offline(
    config: Config, *, repair: bool, deep: bool, begun: Callable[[str], None]
) -> Report:
    """fsck on a catalog that no daemon holds. Raises CatalogInUse, PoolUnavailable and so on.

    A catalog that is damaged is reported as far as SQLite can read it.
    """
    catalog = await clock.blocking(lambda: Catalog.open(config.daemon.state))
    try:
        pools = await open_pools(config.pool, catalog)
        library = await clock.blocking(lambda: configured.open_library(config.library))
        try:
            elements = await library.changer.inventory()
        finally:
            await library.close()
        report = await fsck(
            catalog,
            pools,
            elements,
            repair=repair,
            deep=deep,
            spool=config.engine.spool,
            begun=begun,
        )
        await catalog.sync()
        return report
    finally:
        catalog.close()
