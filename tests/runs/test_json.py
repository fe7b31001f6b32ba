"""What commands and runs write as JSON has no NaN."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from wtal.platform.as_json import dumps, finite
from wtal.runs.run import Run
from wtal.runs.setup import Setup
from wtal.settings.config import RunConfig


def strict(text: str) -> object:
    """As a reader that follows the standard."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float64("nan")])
def test_what_is_not_finite_becomes_null(value: float) -> None:
    nested = {"a": [value, {"b": (value, 1.5)}], 0.5: value, "text": "NaN"}
    assert strict(dumps(nested)) == {"a": [None, {"b": [None, 1.5]}], "0.5": None, "text": "NaN"}
    assert finite({"a": 1.5}) == {"a": 1.5}


def test_a_table_without_a_mean_is_written_and_read_back(tmp_path: Path) -> None:
    run = Run(tmp_path, Setup(dataset="own"), RunConfig())
    run.write_rows([{"name": "x", "mean": math.nan}, {"name": "y", "mean": 2.5}])
    assert strict(run.metrics.read_text()) == {"rows": [{"name": "x", "mean": None}, {"name": "y", "mean": 2.5}]}
    first, second = run.rows()
    assert math.isnan(first["mean"])
    assert second["mean"] == 2.5
