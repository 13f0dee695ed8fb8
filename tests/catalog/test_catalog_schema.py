"""The schema: its versions, and what its indexes are for."""

from __future__ import annotations

import stat

import apsw
import pytest

from hsmfs.catalog import check, inodes, migrate, namespace
from hsmfs.catalog.catalog import Catalog
from hsmfs.catalog.queues import Migration
from hsmfs.catalog.reports import Place, Query, Reports
from hsmfs.errors import CatalogDamaged, NotFound, SchemaTooNew
from hsmfs.states import FileState
from hsmfs.types import ROOT

FILE = stat.S_IFREG | 0o644


async def test_absent_newer_and_foreign(tmp_path):
    with pytest.raises(NotFound, match="hsmctl init"):
        Catalog.open(tmp_path)
    Catalog.create(tmp_path).close()
    path = tmp_path / "catalog.db"
    db = apsw.Connection(str(path))
    db.pragma("user_version", migrate.newest() + 1)
    db.close()
    with pytest.raises(SchemaTooNew, match="schema"):
        Catalog.open(tmp_path)
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(CatalogDamaged):
        Catalog.open(tmp_path)


async def test_of_an_older_schema(tmp_path, monkeypatch):
    first = migrate.steps()[:1]
    with monkeypatch.context() as older:
        older.setattr(migrate, "steps", lambda: first)
        old = Catalog.create(tmp_path)
        async with old.write():
            attr = old.names.create(ROOT, b"f", FILE, 1, 2, 3)
        old.close()
    catalog = Catalog.open(tmp_path)
    assert catalog.names.lookup(ROOT, b"f") == attr
    assert catalog.db.pragma("user_version") == migrate.newest() > 1
    assert await check.run(catalog) == []
    catalog.close()


async def test_hot_statements_scan_nothing(catalog):
    for sql, args in (
        (inodes._GET, (1,)),
        (namespace._LOOKUP, (1, b"x")),
        (namespace._LIST, (1, 0, 10)),
        (inodes._PUT, (None,) * 12),
        ("SELECT parent FROM dentries WHERE ino = ? ORDER BY parent, id LIMIT 1", (1,)),
    ):
        plan = [row[3] for row in catalog.db.execute(f"EXPLAIN QUERY PLAN {sql}", args)]
        assert not [step for step in plan if "SCAN" in step or "TEMP B-TREE" in step], (sql, plan)


def test_every_column_is_explained():
    for _, sql in migrate.steps():
        for table in sql.split("CREATE TABLE")[1:]:
            body = table[table.index("(") + 1 : table.index("\n) STRICT")]
            for line in body.splitlines():
                if not line.strip().startswith(("PRIMARY", "--")):
                    assert not line.strip() or "--" in line, line


async def test_files_are_weighed_by_the_index_alone_and_as_they_are_paged(catalog):
    async with catalog.write():
        for number in range(30):
            attr = catalog.names.create(ROOT, b"%d" % number, FILE, number % 3, 2, number)
            catalog.inodes.put(attr._replace(size=number, dirty=number % 2 == 0))
    async with catalog.write():
        catalog.queues.put_migration(Migration(attr.ino, attr.version, 1, "p", "g", 1, False))
    plain = Query(states=(FileState.RESIDENT,), modified_before_ns=20, min_size=3)
    for query in (plain, Query(uids=(1, 2), unqueued=True), Query(gids=(3,))):
        reports = Reports(catalog.db)
        paged, place = [], Place()
        while place is not None:
            found, place = reports.page(query, place, 7)
            paged += found
        assert reports.weigh(query) == (len(paged), sum(found.size for found in paged))
    seen = []
    catalog.db.exec_trace = lambda cursor, sql, values: seen.append((sql, values)) or True
    reports.weigh(plain)
    catalog.db.exec_trace = None
    ((sql, values),) = seen
    plan = catalog.db.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
    assert [row[3] for row in plan if "COVERING INDEX inodes_by_state" not in row[3]] == []
