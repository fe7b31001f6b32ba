"""Builds wtal into a folder of its own, which a stage puts on its path: nothing of the environment is replaced."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from gpu_check import ROOT

BUILDS = ROOT / "build" / "gpu_check"


def site(name: str) -> Path:
    """Where the package of one build lies."""
    return BUILDS / name / "site"


def command(name: str) -> list[str]:
    """pip, without a network and without touching torch or any other package."""
    options = ["--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check", "--upgrade"]
    return [sys.executable, "-m", "pip", "install", *options, "--target", str(site(name)), str(ROOT)]


def environment(name: str, architecture: str) -> dict[str, str]:
    """Of that command: CUDA is demanded, for one architecture, in a build folder that CMake has for itself."""
    return os.environ | {
        "WTAL_CUDA": "ON",
        "SKBUILD_BUILD_DIR": str(BUILDS / name / "objects"),
        "SKBUILD_CMAKE_DEFINE": f"CMAKE_CUDA_ARCHITECTURES={architecture}",
    }


def main() -> int:
    """Build; the exit code is pip's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("architecture", help="as CMAKE_CUDA_ARCHITECTURES has it: 90-real, 86-virtual")
    options = parser.parse_args()
    return subprocess.run(
        command(options.name), env=environment(options.name, options.architecture), cwd=ROOT, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
