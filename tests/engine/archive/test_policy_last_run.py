"""When a policy ran last outlives the daemon."""

from __future__ import annotations

from hsmfs.catalog.catalog import Catalog


async def test_last_run_survives_a_restart(tmp_path):
    catalog = Catalog.create(tmp_path)
    async with catalog.write():
        catalog.queues.policy_ran("cold", 5)
        catalog.queues.policy_ran("cold", 7)
    catalog.close()
    again = Catalog.open(tmp_path)
    assert again.queues.policy_runs() == {"cold": 7}
    again.close()
