"""Where the real annotation files are, for the tests that read them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def real_data() -> Path:
    folder = os.environ.get("WTAL_TEST_DATA")
    if not folder:
        pytest.skip("WTAL_TEST_DATA is not set: it names the folder with real annotation files")
    return Path(folder)
