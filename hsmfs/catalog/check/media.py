"""Invariants of discs out of the library, sets, tests and replacements: rows agree with volumes."""

from __future__ import annotations

from collections.abc import Iterator

from ...states import SetState, VolumeState
from ..connection import Database
from .finding import Finding, Severity, each, sql

_OF_VOLUMES = ("exports", "requests", "rebuilds", "pairs", "health", "scrubs", "refreshes",
               "refresh_files")  # fmt: skip
_V = VolumeState


def media_rows_have_volumes(db: Database) -> Iterator[Finding]:
    """Orders, requests, tests and the health ledger are of discs that exist."""
    for table in _OF_VOLUMES:
        for volume, count in each(
            db,
            f"SELECT volume, count(*) FROM {table} WHERE volume NOT IN (SELECT id FROM volumes)"
            " GROUP BY volume",
        ):
            yield Finding(
                "media_rows_have_volumes", Severity.ERROR, f"volume number {volume}",
                f"does not exist, but has {count} rows in {table}", "delete them",
                fix=sql(
                    f"DELETE FROM {table} WHERE volume = ?1"
                    " AND ?1 NOT IN (SELECT id FROM volumes)",
                    volume,
                ),
            )  # fmt: skip


def exports_and_requests_are_of_exported(db: Database) -> Iterator[Finding]:
    """A disc that is to leave, or to be brought, counts as exported."""
    for table, what in (("exports", "is to leave the library"), ("requests", "is asked for")):
        stale = f"(SELECT id FROM volumes WHERE state != {int(_V.EXPORTED)})"
        for volume, barcode, state in each(
            db,
            f"SELECT v.id, v.barcode, v.state FROM {table} t JOIN volumes v ON v.id = t.volume"
            " WHERE v.state != ?",
            int(_V.EXPORTED),
        ):
            yield Finding(
                "exports_and_requests_are_of_exported", Severity.NOTE, f"volume {barcode}",
                f"{what}, but is {VolumeState(state).name.lower()}", "end that",
                fix=sql(f"DELETE FROM {table} WHERE volume = ? AND volume IN {stale}", volume),
            )  # fmt: skip


def members_have_sets(db: Database) -> Iterator[Finding]:
    """A disc's set exists, as does that of parity in the spool; its place is one of the set's."""
    for volume, barcode, group in each(
        db,
        "SELECT id, barcode, set_id FROM volumes WHERE set_id IS NOT NULL"
        " AND set_id NOT IN (SELECT id FROM volume_sets)",
    ):
        yield Finding(
            "members_have_sets", Severity.ERROR, f"volume {barcode}",
            f"is in set number {group}, which does not exist", "take it out of the set",
            fix=sql(
                "UPDATE volumes SET set_id = NULL, set_index = NULL WHERE id = ?"
                " AND set_id NOT IN (SELECT id FROM volume_sets)",
                volume,
            ),
        )  # fmt: skip
    for (group,) in each(
        db,
        "SELECT DISTINCT set_id FROM set_parity WHERE set_id NOT IN (SELECT id FROM volume_sets)",
    ):
        yield Finding(
            "members_have_sets", Severity.NOTE, f"set number {group}",
            "does not exist, but has parity", "forget the parity",
            fix=sql(
                "DELETE FROM set_parity WHERE set_id = ?1"
                " AND ?1 NOT IN (SELECT id FROM volume_sets)",
                group,
            ),
        )  # fmt: skip
    for barcode, index, name in each(
        db,
        "SELECT v.barcode, v.set_index, s.name FROM volumes v JOIN volume_sets s ON s.id = v.set_id"
        " WHERE v.set_index IS NULL OR v.set_index NOT BETWEEN 0 AND s.k + s.m - 1",
    ):
        yield Finding(
            "members_have_sets", Severity.ERROR, f"volume {barcode}",
            f"has place {index} in set {name}, which has no such place",
        )  # fmt: skip


def members_agree_with_their_set(db: Database) -> Iterator[Finding]:
    """One disc a place; all are to be kept where the set is; a closed set has no blank disc."""
    for name, index, barcodes in each(
        db,
        "SELECT s.name, v.set_index, group_concat(v.barcode, ' and ') FROM volumes v"
        " JOIN volume_sets s ON s.id = v.set_id GROUP BY s.id, v.set_index HAVING count(*) > 1",
    ):
        yield Finding(
            "members_agree_with_their_set", Severity.ERROR, f"set {name}",
            f"has {barcodes} in one place, {index}", "leave the last that was made in it",
            fix=lambda catalog: catalog.sets.one_a_place(),
        )  # fmt: skip
    for volume, barcode, here, name, there in each(
        db,
        "SELECT v.id, v.barcode, v.vault, s.name, s.vault FROM volumes v JOIN volume_sets s"
        " ON s.id = v.set_id WHERE v.vault != s.vault",
    ):
        yield Finding(
            "members_agree_with_their_set", Severity.ERROR, f"volume {barcode}",
            f"is to be kept in {here or 'the library'}, its set {name} in {there or 'the library'}",
            "keep it where the set is",
            fix=sql(
                "UPDATE volumes SET vault = (SELECT vault FROM volume_sets s WHERE s.id = set_id)"
                " WHERE id = ? AND set_id IS NOT NULL",
                volume,
            ),
        )  # fmt: skip
    for barcode, name in each(
        db,
        "SELECT v.barcode, s.name FROM volumes v JOIN volume_sets s ON s.id = v.set_id"
        " WHERE s.state = ? AND v.state IN (?, ?)",
        int(SetState.CLOSED), int(_V.BLANK), int(_V.BURNING),
    ):  # fmt: skip
        yield Finding(
            "members_agree_with_their_set", Severity.ERROR, f"volume {barcode}",
            f"was never burned to its end, but set {name} is closed with it",
        )


def rebuilds_can_be_made(db: Database) -> Iterator[Finding]:
    """A disc that is to be made anew is in a closed set with parity, or that is done."""
    fit = (
        "(SELECT v.id FROM volumes v JOIN volume_sets s ON s.id = v.set_id"
        f" WHERE s.m > 0 AND s.state = {int(SetState.CLOSED)})"
    )
    for volume, barcode in each(
        db,
        "SELECT r.volume, v.barcode FROM rebuilds r JOIN volumes v ON v.id = r.volume"
        f" WHERE r.image != 'done' AND r.volume NOT IN {fit}",
    ):
        yield Finding(
            "rebuilds_can_be_made", Severity.ERROR, f"volume {barcode}",
            "is to be made anew, but no parity of a closed set covers it", "forget the order",
            fix=sql(f"DELETE FROM rebuilds WHERE volume = ? AND volume NOT IN {fit}", volume),
        )  # fmt: skip
