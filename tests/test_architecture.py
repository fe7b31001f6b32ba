"""The rooms of wtal/ and the one direction of their imports: from the command line down to the ops."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "wtal"
FLOORS = (
    ("cli",),
    ("ablation",),
    ("training",),
    ("report",),
    ("api", "evaluation"),
    ("inference",),
    ("runs", "features"),
    ("models", "data"),
    ("settings",),
    ("platform",),
    ("about",),
    ("ops", "errors"),
)
"""Rooms from the top down; those of one floor do not know each other. Whatever is named wtal itself is the face."""

FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
MODULES = {
    ".".join(("wtal", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
}


def imports(path: Path) -> Iterator[str]:
    """Modules of wtal that a file imports anywhere in it, those inside functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            raise AssertionError(f"{path}:{node.lineno}: a relative import")
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "wtal":
            for name in (f"{node.module}.{alias.name}" for alias in node.names):
                yield name if name in MODULES or name == "wtal._native" else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "wtal")


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "wtal"


def test_every_module_has_its_room() -> None:
    rooms = {room(module) for module in MODULES} - {"wtal"}
    assert rooms == set(FLOOR)
    assert len(list(ROOT.glob("*.py"))) <= 10


def test_imports_run_downwards_only() -> None:
    upward = [
        f"{module} imports {other}"
        for module, path in MODULES.items()
        if module != "wtal"
        for other in imports(path)
        if other != "wtal._native" and room(other) != room(module)
        if room(other) == "wtal" or FLOOR[room(other)] <= FLOOR[room(module)]
    ]
    assert upward == []


def test_no_two_modules_need_each_other() -> None:
    packages = {module for module, path in MODULES.items() if path.name == "__init__.py"}
    graph = {module: set(imports(path)) - packages for module, path in MODULES.items() if module not in packages}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_file_is_long() -> None:
    sources = (path for folder in (ROOT, ROOT.parent / "csrc") for path in folder.rglob("*.*"))
    lengths = {
        str(path.relative_to(ROOT.parent)): len(path.read_text(encoding="utf-8").splitlines())
        for path in sources
        if path.suffix in {".py", ".js", ".h", ".cpp", ".cu", ".cuh"}
    }
    assert {path: lines for path, lines in lengths.items() if lines > 400} == {}
