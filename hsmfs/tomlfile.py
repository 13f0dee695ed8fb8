"""TOML files into frozen pydantic models, with errors that name file, line, key and cause.

Used for the configuration and for policies. tomllib and pydantic know nothing of lines, so the
text is scanned a second time for where each key stands.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from hsmfs.errors import ConfigError

M = TypeVar("M", bound=BaseModel)
Loc = tuple[str | int, ...]
"""Where a value is: table and key names, and the index in an array of tables."""
Check = Callable[[M], Iterable[tuple[Loc, str]]]
"""Finds what no single field can know: yields where and why."""

_TOKEN = re.compile(
    r'#[^\n]*|"""(?:\\.|[^\\])*?"""+|\'\'\'.*?\'\'\'+|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\''
    r"|[\[\]{}=\n,]|[^\s\[\]{}=,#\"']+",
    re.DOTALL,
)


def load(
    path: Path, model: type[M], checks: Check[M] | None = None, *, error: type[ConfigError]
) -> M:
    """Read path as a model; raises `error` with every fault found, one a line."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as e:
        raise error(f"{path}: {e.strerror}", next_step="check the path and its permissions") from e
    except UnicodeDecodeError as e:
        raise error(f"{path}: not UTF-8 at byte {e.start}") from e
    return loads(text, model, checks, name=str(path), error=error)


def loads(
    text: str,
    model: type[M],
    checks: Check[M] | None = None,
    *,
    name: str,
    error: type[ConfigError],
) -> M:
    """As `load`, for text that is called `name` in messages."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise error(f"{name}: {_toml_cause(e)}") from e
    try:
        # By way of JSON, so that strict models take arrays as tuples and strings as paths.
        value = model.model_validate_json(json.dumps(data, default=str))
    except ValidationError as e:
        faults = [(d["loc"], _cause(model, d)) for d in e.errors(include_url=False)]
        raise error(_report(name, text, faults)) from e
    if checks is not None and (found := list(checks(value))):
        raise error(_report(name, text, found))
    return value


def lines(text: str) -> dict[Loc, int]:
    """The line, from 1, of each table header and key of a valid TOML text."""
    found: dict[Loc, int] = {(): 1}
    arrays: dict[Loc, int] = {}
    table: Loc = ()
    for line, statement in _statements(text):
        if statement[0] == "[":
            is_array = statement[1] == "["
            keys = _keys(t for t in statement if t not in "[]")
            if is_array:
                path = (*_resolve(keys[:-1], arrays), keys[-1])
                arrays[path] = arrays.get(path, -1) + 1
                found.setdefault(path, line)
            table = _resolve(keys, arrays)
        else:
            keys = _keys(statement[: statement.index("=")])
            found.setdefault((*table, *keys), line)
            continue
        found.setdefault(table, line)
    return found


def _statements(text: str) -> Iterator[tuple[int, list[str]]]:
    """Each header or assignment with its line: its tokens up to the newline that ends it."""
    line, start, depth = 1, 1, 0
    statement: list[str] = []
    for token in _TOKEN.findall(text):
        if token == "\n":
            if depth == 0 and statement:
                yield start, statement
                statement = []
        elif not token.startswith("#"):
            if not statement:
                start = line
            depth += (token in ("[", "{")) - (token in ("]", "}"))
            statement.append(token)
        line += token.count("\n")
    if statement:
        yield start, statement


def _keys(tokens: Iterable[str]) -> list[str]:
    keys: list[str] = []
    for token in tokens:
        if token[0] in "\"'":
            keys.append(next(iter(tomllib.loads(f"{token} = 0"))))
        else:
            keys += [part for part in token.split(".") if part]
    return keys


def _resolve(keys: list[str], arrays: dict[Loc, int]) -> Loc:
    """The path of a table: under an array of tables it belongs to the last element so far."""
    path: Loc = ()
    for key in keys:
        path = (*path, key)
        if path in arrays:
            path = (*path, arrays[path])
    return path


def _report(name: str, text: str, faults: Iterable[tuple[Loc, str]]) -> str:
    known = lines(text)
    numbered = []
    for loc, cause in faults:
        at = loc
        while at not in known:
            at = at[:-1]
        numbered.append((known[at], f"{name} line {known[at]}: {_dotted(loc)}: {cause}"))
    return "\n".join(message for _, message in sorted(numbered))


def _dotted(loc: Loc) -> str:
    text = "".join(f" #{part + 1}" if isinstance(part, int) else f".{part}" for part in loc)
    return text.lstrip(".") or "file"


def _cause(model: type[BaseModel], detail: Any) -> str:  # an ErrorDetails of pydantic_core
    kind, loc = detail["type"], detail["loc"]
    if kind == "missing":
        return "is missing and has no default"
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(loc[-1]), _fields_at(model, loc[:-1]), n=1)
        return f"unknown key; did you mean {near[0]!r}?" if near else "unknown key"
    message = detail["msg"].removeprefix("Value error, ")
    return message if kind == "value_error" else f"{message}, not {detail['input']!r}"


def _fields_at(model: type[BaseModel], loc: Loc) -> list[str]:
    for part in loc:
        if isinstance(part, str) and part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that a field's type is, holds or may be."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, typing.get_args(annotation))), None)


def _toml_cause(e: tomllib.TOMLDecodeError) -> str:
    """tomllib says 'Cause (at line 3, column 7)'; ours has the line first, like all others."""
    match = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", str(e), re.DOTALL)
    return f"line {match[2]}: {match[1]} (column {match[3]})" if match else str(e)
