"""Blank discs are chosen quickly however many there are: the event loop waits for it."""

from __future__ import annotations

from collections import Counter


async def test_a_choice_asks_the_catalog_as_often_with_many_blanks_as_with_few(make_lab):
    asked = {}
    for slots in (8, 64):
        lab = make_lab(at=f"of-{slots}", slots=slots)
        async with lab.running() as engine:
            statements = []
            engine.catalog.db.set_exec_trace(
                lambda cursor, sql, values, seen=statements: seen.append(sql) or True
            )
            blanks = engine.migrator.blanks
            left = blanks.left()
            assert len(left) == slots
            assert blanks.for_set(left, 1, 3, Counter()) == next(iter(left))
            engine.catalog.db.set_exec_trace(None)
            asked[slots] = len(statements)
    assert asked[8] == asked[64]
