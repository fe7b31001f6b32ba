"""Whatever the docs, docstrings and comments point to is there: files by their path, names in Python."""

from __future__ import annotations

import builtins
import re
import subprocess
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

TREE = Path(__file__).parents[2]
FILE = re.compile(
    r"(?<![\w/.-])(?:wtal|csrc|tests|docs|tools|benchmarks)/[\w./*-]*\.(?:py|md|toml|cpp|cuh?|h|sh|js|txt|json|png|svg)\b"
)
NAME = re.compile(r":(?:func|class|mod|meth|data|attr):`~?([\w.]+)`")
NOT_OURS = ("docs/results.json",)  # written by a command that a page shows


def sources(*endings: str) -> list[Path]:
    """What git tracks, or, in an unpacked source package, what is there."""
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=TREE)
    names = listed.stdout.splitlines() or [str(path.relative_to(TREE)) for path in TREE.rglob("*.*")]
    return [path for name in names if (path := TREE / name).suffix in endings and path.is_file()]


def test_every_path_that_is_named_leads_to_a_file() -> None:
    missing = [
        f"{path.relative_to(TREE)}: {name}"
        for path in sources(".py", ".md", ".cpp", ".cu", ".cuh", ".h", ".js", ".toml", ".sh", ".yml")
        for name in FILE.findall(path.read_text(encoding="utf-8"))
        if name not in NOT_OURS and not any(TREE.glob(name))
    ]
    assert missing == []


def holders(module: ModuleType, source: str) -> Iterator[object]:
    """Where a name without a path may live: the module and the classes in it."""
    yield module
    yield builtins
    yield from (value for value in vars(module).values() if isinstance(value, type))


def has(owner: object, path: list[str]) -> bool:
    for name in path:
        if name in getattr(owner, "__annotations__", {}) and not hasattr(owner, name):
            return True
        if not hasattr(owner, name):
            return False
        owner = getattr(owner, name)
    return True


def resolves(name: str, module: ModuleType, source: str) -> bool:
    parts = name.split(".")
    if parts[0] != "wtal":
        on_self = re.search(rf"\bself\.{parts[0]}\b", source) is not None
        return on_self or any(has(owner, parts) for owner in holders(module, source))
    for end in range(len(parts), 0, -1):
        try:
            owner = import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        return has(owner, parts[end:])
    return False


@pytest.mark.parametrize(
    "path", [path for path in sources(".py") if path.is_relative_to(TREE / "wtal")], ids=lambda path: path.stem
)
def test_every_name_that_a_docstring_refers_to_is_there(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    names = set(NAME.findall(source))
    if not names:
        return
    module = import_module(".".join(path.relative_to(TREE).with_suffix("").parts).removesuffix(".__init__"))
    assert [name for name in names if not resolves(name, module, source)] == []
