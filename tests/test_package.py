"""What an installed wtal consists of, and how light it is to import."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import wtal

TREE = Path(__file__).parent.parent
PROJECT = tomllib.loads((TREE / "pyproject.toml").read_text())["project"]


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that sees the installed package, not the working folder."""
    return subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)


def test_one_version_everywhere() -> None:
    assert wtal.__version__ == PROJECT["version"] == metadata.version("wtal")
    assert f"## [{wtal.__version__}]" in (TREE / "CHANGELOG.md").read_text()


def test_importing_wtal_is_cheap() -> None:
    done = python("import sys, wtal; print(sorted({'torch', 'open_clip', 'tyro', 'rich'} & sys.modules.keys()))")
    assert done.stdout == "[]\n", done.stderr


def test_ops_need_torch_and_numpy_alone() -> None:
    done = python(
        "import sys, wtal.ops; print(sorted({'open_clip', 'torchvision', 'tyro', 'rich'} & sys.modules.keys()))"
    )
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("command", PROJECT["scripts"])
def test_help_answers_without_loading_torch(command: str) -> None:
    """That is what keeps it under a second."""
    module, function = PROJECT["scripts"][command].split(":")
    done = python(
        f"""
import sys
from {module} import {function} as main
sys.argv = [{command!r}, "--help"]
try:
    code = main()
except SystemExit as stop:
    code = stop.code
print("exit", code, "loaded", sorted({{"torch", "open_clip", "matplotlib"}} & sys.modules.keys()))
"""
    )
    assert f"usage: {command} " in done.stdout, done.stderr
    assert done.stdout.endswith("exit 0 loaded []\n") or done.stdout.endswith("exit None loaded []\n"), done.stdout


def test_commands_are_installed_as_declared() -> None:
    installed = {script.name: script.value for script in metadata.distribution("wtal").entry_points}
    assert installed == PROJECT["scripts"]


def test_the_wheel_holds_the_whole_package_and_nothing_else() -> None:
    distribution = metadata.distribution("wtal")
    if json.loads(distribution.read_text("direct_url.json") or "{}").get("dir_info", {}).get("editable"):
        pytest.skip("an editable install lists links instead of files")
    installed = {
        file.as_posix() for file in distribution.files or () if file.parts[0] == "wtal" and file.suffix != ".pyc"
    }
    source = {file.relative_to(TREE).as_posix() for file in (TREE / "wtal").rglob("*.*") if file.suffix != ".pyc"}
    native = {file for file in installed if file.endswith(".so")}
    assert {file.split(".")[0] for file in native} == {"wtal/_native"}
    assert len(native) == 1
    assert "wtal/py.typed" in installed
    assert "wtal/settings/recipes/thumos14.toml" in installed
    assert installed - native == source - {file for file in source if file.endswith(".so")}


def test_the_wheel_puts_nothing_beside_the_package() -> None:
    files = metadata.distribution("wtal").files or ()
    top = {file.parts[0] for file in files if not file.parts[0].startswith("..")}
    assert {name for name in top if not name.endswith((".dist-info", ".pth", ".py", "__pycache__"))} <= {"wtal"}
