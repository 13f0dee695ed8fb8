"""Checks what import-linter cannot: short files that say their job, and who may import what."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 500
STAND_ALONE = {"tools/hsm-disc"}
"""One file on purpose: it is carried about, and laid beside discs, without hsmfs."""
ONLY_IN = {"pyfuse3": "hsmfs/fs", "apsw": "hsmfs/catalog", "sqlite3": "nowhere"}
"""The binding to the kernel and the database each have one room; others ask that room."""


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module


def faults(path: Path) -> Iterator[str]:
    where = path.relative_to(ROOT).as_posix()
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    length = text.count("\n")
    if length > LONGEST and where not in STAND_ALONE:
        yield f"{where}: {length} lines; split it by job (at most {LONGEST})"
    if tree.body and not ast.get_docstring(tree):
        yield f"{where}: says nowhere what it is responsible for"
    if not where.startswith("hsmfs/"):
        return
    for line, module in imports(tree):
        room = ONLY_IN.get(module.split(".")[0])
        if room and not where.startswith(room + "/"):
            yield f"{where}:{line}: {module} may be imported in {room} only"


def main() -> int:
    files = [p for top in ("hsmfs", "tests", "tools") for p in (ROOT / top).rglob("*.py")]
    scripts = [p for p in (ROOT / "tools").iterdir() if p.is_file() and is_python(p)]
    found = [fault for path in sorted({*files, *scripts}) for fault in faults(path)]
    for fault in found:
        print(fault)
    return bool(found)


def is_python(path: Path) -> bool:
    return path.read_bytes().split(b"\n", 1)[0].rstrip().endswith(b"python3")


if __name__ == "__main__":
    sys.exit(main())
