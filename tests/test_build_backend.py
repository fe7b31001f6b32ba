"""When the build asks for a torch of its own."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "csrc" / "build_backend.py"


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """csrc/build_backend.py over a stand-in for scikit-build-core, which only build environments have."""
    core = types.ModuleType("scikit_build_core.build")
    core.get_requires_for_build_wheel = lambda settings: ["cmake"]
    core.get_requires_for_build_editable = lambda settings: ["cmake", "rebuild"]
    package = types.ModuleType("scikit_build_core")
    package.build = core
    monkeypatch.setitem(sys.modules, "scikit_build_core", package)
    monkeypatch.setitem(sys.modules, "scikit_build_core.build", core)
    spec = importlib.util.spec_from_file_location("wtal_build_backend", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_empty_environment_gets_torch_for_the_build(backend, monkeypatch) -> None:
    monkeypatch.setattr(backend, "_environment_torch", lambda: None)
    assert backend.get_requires_for_build_wheel() == ["cmake", "torch>=2.11"]
    assert backend.get_requires_for_build_editable({}) == ["cmake", "rebuild", "torch>=2.11"]


@pytest.mark.parametrize("version", ["2.11.0", "2.11.0rc1+cpu", "2.15.0+cu132", "2.16.0.dev20260101", "3.0", "10.0a1"])
def test_a_torch_that_is_there_is_used(backend, monkeypatch, version: str) -> None:
    monkeypatch.setattr(backend, "_environment_torch", lambda: version)
    assert backend.get_requires_for_build_wheel() == ["cmake"]


@pytest.mark.parametrize("version", ["2.10.1+cu128", "2.9.0", "1.13.1"])
def test_a_torch_that_is_too_old_is_named(backend, monkeypatch, version: str) -> None:
    monkeypatch.setattr(backend, "_environment_torch", lambda: version)
    with pytest.raises(SystemExit, match=rf"needs torch >= 2\.11, .* has torch {version.split('+')[0]}"):
        backend.get_requires_for_build_wheel()


def test_it_finds_the_torch_of_this_environment(backend) -> None:
    import torch

    assert backend._environment_torch() == torch.__version__.split("+")[0]
