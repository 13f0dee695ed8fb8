"""The guard as the API shows it: plain values."""

from __future__ import annotations

from typing import Any

from ...catalog.guard import Met
from ..views import b64, text
from .guard import Guard
from .rules import Rule


def guard_view(guard: Guard) -> dict[str, Any]:
    """Mode, rules in order, and the same as TOML."""
    return {
        "mode": guard.mode.value,
        "rules": [_rule(rule) for rule in guard.file.rule],
        "toml": guard.text,
        "own": guard.own,
    }


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "name": rule.name,
        "outcome": rule.outcome.value,
        "uid": list(rule.uid),
        "gid": list(rule.gid),
        "process": list(rule.process),
        "via": list(rule.via),
        "client": list(rule.client),
        "path": list(rule.path),
        "rate": str(rule.rate) if rule.rate else None,
        "stay_s": rule.stay,
    }


def met_view(met: Met) -> dict[str, Any]:
    """A row of the report."""
    return {
        "uid": met.uid,
        "process": met.process,
        "via": met.via,
        "client": met.client,
        "rule": met.rule,
        "outcome": met.outcome,
        "learning": met.learning,
        "files": met.files,
        "first_ns": met.first_ns,
        "last_ns": met.last_ns,
        "path": text(met.path),
        "path_b64": b64(met.path),
    }
