"""A check knows which generator makes which benchmark, before it trains anything."""

from __future__ import annotations

from typing import Any

import pytest

from wtal.ablation.reproduction import check
from wtal.ablation.worlds import generator_of, made_on
from wtal.errors import WtalError


def recorded(benchmark: str, generator: str) -> dict[str, Any]:
    """Results without a row: a check that gets past the version stops at the row that is missing."""
    about = {"generator": generator, "recipe": "synthetic"}
    return {"about": about, "runs": [{"benchmark": benchmark, "world": 0, "seed": 0, "rows": {}}]}


@pytest.mark.parametrize(("name", "own", "other"), [("small", "1", "2"), ("version-2", "2", "1")])
def test_results_of_another_generator_are_refused(name: str, own: str, other: str) -> None:
    assert generator_of(name) == made_on(name)["generator"] == own
    with pytest.raises(WtalError, match=f"generator version {other}, but this wtal makes '{name}' with version {own}"):
        check(recorded(name, other), quick=True)
    with pytest.raises(WtalError, match="no row 'random scores'"):
        check(recorded(name, own), quick=True)


def test_an_unknown_benchmark_is_named() -> None:
    with pytest.raises(WtalError, match="recorded on benchmark 'version-9', expected one of small, true"):
        check(recorded("version-9", "9"), quick=True)
