"""What all tests share: hypothesis profiles, the gpu marker, the folder of real annotation files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# 'python -m pytest' puts this source tree first, whose wtal has no kernels: the tests are about the installed one.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).parents[1]]

# Fresh examples in every run, also where CI is set; a failure prints the line that brings its example back.
settings.register_profile("default", deadline=None, derandomize=False, print_blob=True, database=None)
settings.register_profile("quick", settings.get_profile("default"), max_examples=15)
settings.register_profile("sanitized", settings.get_profile("default"), max_examples=8)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "slow" not in config.getoption("markexpr"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="a long drill; pytest -m slow runs it"))
    needs_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not needs_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in needs_gpu:
            item.add_marker(pytest.mark.skip(reason="torch finds no CUDA device here"))


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real annotation files that WTAL_TEST_DATA names."""
    folder = os.environ.get("WTAL_TEST_DATA")
    if not folder:
        pytest.skip("WTAL_TEST_DATA is unset; it names a folder of real annotation files")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"WTAL_TEST_DATA={folder} is not a folder")
    return path
