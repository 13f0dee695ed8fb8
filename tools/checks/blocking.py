"""Finds calls that may block the event loop: those that stand in the body of an `async def`.

What is passed to `clock.blocking` as a function or lambda is not in the body. A call that is known
to be quick says so on its line: `# on the loop: WHY`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULES = {"subprocess", "shutil", "requests"}
CALLS = {
    "open",
    "time.sleep",
    "trio.run",
}
OF_OS = set(
    """fsync fdatasync sync pread preadv pwrite pwritev read write sendfile splice copy_file_range
    posix_fallocate walk scandir listdir system popen""".split()  # noqa: SIM905
)
METHODS = {"read_text", "read_bytes", "write_text", "write_bytes", "rglob"}
EXCUSE = "# on the loop: "


def own_calls(function: ast.AsyncFunctionDef) -> Iterator[ast.Call]:
    """The calls of the function itself, not those of functions inside it."""
    todo: list[ast.AST] = list(function.body)
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.Call):
            yield node
        todo += ast.iter_child_nodes(node)


def blocks(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    if "RWF_NOWAIT" in ast.unparse(call):
        return False
    return (
        name in CALLS
        or name.split(".")[0] in MODULES
        or (name.startswith("os.") and name[3:] in OF_OS)
        or (isinstance(call.func, ast.Attribute) and call.func.attr in METHODS)
    )


def faults(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.AsyncFunctionDef):
            continue
        for call in own_calls(node):
            excused = any(EXCUSE in lines[at - 1] for at in (call.lineno, call.end_lineno or 1))
            if blocks(call) and not excused:
                yield (
                    f"{path.relative_to(ROOT)}:{call.lineno}: {ast.unparse(call.func)}() in "
                    f"async {node.name}: use clock.blocking, or say '{EXCUSE}WHY'"
                )


def main() -> int:
    found = [fault for path in sorted((ROOT / "hsmfs").rglob("*.py")) for fault in faults(path)]
    for fault in found:
        print(fault)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
