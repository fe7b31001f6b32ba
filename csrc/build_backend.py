"""scikit-build-core, plus two things: torch is asked for only where there is none, and the build says what it found.

A plain ``requires = ["torch"]`` would make pip download a second torch (2.6 GB) into the isolated build
environment, and the kernels would be built against that one instead of the user's.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from packaging.version import Version
from scikit_build_core import build as _build
from scikit_build_core.build import *  # noqa: F403

_OLDEST_TORCH = "2.11"
# -E ignores PYTHONPATH, through which pip isolates the build: this interpreter sees the environment's own torch.
_PROBE = "import importlib.metadata as m; print(m.version('torch'))"


def _environment_torch() -> str | None:
    """Version of the torch that the target environment has, None where it has none."""
    found = subprocess.run([sys.executable, "-E", "-P", "-c", _PROBE], capture_output=True, text=True)
    return found.stdout.strip() if found.returncode == 0 else None


def _torch_requirement() -> list[str]:
    version = _environment_torch()
    if version is None:
        return [f"torch>={_OLDEST_TORCH}"]
    if Version(version).release < Version(_OLDEST_TORCH).release:
        raise SystemExit(
            f"wtal needs torch >= {_OLDEST_TORCH}, but {sys.prefix} has torch {version}: run "
            f"'pip install --upgrade torch torchvision open_clip_torch' first"
        )
    return []


def _say(text: str) -> None:
    """Print to the build log and, because pip keeps that to itself unless it gets -v, to pip's own stderr."""
    print(text, file=sys.stderr, flush=True)
    frontend = f"/proc/{os.getppid()}/fd/2"
    with contextlib.suppress(OSError):
        if os.readlink(frontend) == os.readlink("/proc/self/fd/2") or os.path.isfile(frontend):
            return  # it is this very stream, or a file, in which two writers would overwrite each other
        with open(frontend, "a") as stream:
            stream.write(f"\r{text}\n" if stream.isatty() else f"{text}\n")


def _announce() -> None:
    reports = sorted(Path("build").glob("*/wtal_build.json"), key=lambda path: path.stat().st_mtime)
    if not reports:
        return
    facts = json.loads(reports[-1].read_text())
    kernels = f"in, nvcc {facts['cuda']} for {facts['cuda_architectures']}" if facts["cuda"] else "LEFT OUT"
    _say(f"wtal: built against torch {facts['torch']} ({facts['torch_root']}); CUDA kernels {kernels}")
    if not facts["cuda"] and not facts["cuda_declined"]:
        _say(
            "wtal: no nvcc (12 or newer) was found, so this build runs on the CPU only; put nvcc on PATH (or set "
            "CUDACXX) and reinstall, or set WTAL_CUDA=OFF to silence this line"
        )


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    """The PEP 517 hook, with torch where there is none."""
    return [*_build.get_requires_for_build_wheel(config_settings), *_torch_requirement()]


def get_requires_for_build_editable(config_settings: dict[str, Any] | None = None) -> list[str]:
    """The PEP 660 hook, with torch where there is none."""
    return [*_build.get_requires_for_build_editable(config_settings), *_torch_requirement()]


def build_wheel(
    wheel_directory: str,
    config_settings: dict[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """The PEP 517 hook; says what was built."""
    wheel = _build.build_wheel(wheel_directory, config_settings, metadata_directory)
    _announce()
    return wheel


def build_editable(
    wheel_directory: str,
    config_settings: dict[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """The PEP 660 hook; says what was built."""
    wheel = _build.build_editable(wheel_directory, config_settings, metadata_directory)
    _announce()
    return wheel
