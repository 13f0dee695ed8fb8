"""Brings a catalog's schema up to date: forward-only SQL files, each in one transaction.

`user_version` is the number of the last file applied, `application_id` marks the file as ours.
"""

from __future__ import annotations

from importlib import resources

import apsw

from ..errors import CatalogDamaged, SchemaTooNew

APPLICATION_ID = 0x48534D46  # "HSMF"


def steps() -> list[tuple[int, str]]:
    """The schema files in order, as (number, SQL)."""
    folder = resources.files("hsmfs.catalog").joinpath("schema")
    return sorted(
        (int(item.name.split("_")[0]), item.read_text(encoding="utf-8"))
        for item in folder.iterdir()
        if item.name.endswith(".sql")
    )


def newest() -> int:
    """The schema version that this program writes."""
    return steps()[-1][0]


def version(db: apsw.Connection) -> int:
    """The schema version of an open catalog; 0 for an empty file."""
    found = db.pragma("user_version")
    assert isinstance(found, int)
    return found


def check(db: apsw.Connection, path: str) -> None:
    """Raise SchemaTooNew or CatalogDamaged if this program must not touch the file."""
    mark, found = db.pragma("application_id"), version(db)
    if found and mark != APPLICATION_ID:
        raise CatalogDamaged(f"{path} is a SQLite file, but not a catalog of hsmfs")
    if found > newest():
        raise SchemaTooNew(
            f"catalog {path} has schema {found}, this hsmfs knows up to {newest()}",
        )


def upgrade(db: apsw.Connection, path: str) -> None:
    """Apply what is missing."""
    check(db, path)
    for number, sql in steps():
        if number <= version(db):
            continue
        with db:
            db.execute(sql)
            db.pragma("application_id", APPLICATION_ID)
            db.pragma("user_version", number)
