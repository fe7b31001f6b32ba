"""``python -m benchmarks.real.beside``: the recipe beside the baselines, with Welch's intervals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.real_data import real

welch = real("beside").welch
ROOT = Path(__file__).parents[2]


def test_two_equal_deviations_are_student_s_interval() -> None:
    difference, half = welch([0.0, 1.0, 2.0], [10.0, 11.0, 12.0])
    assert difference == -10
    assert half == pytest.approx(2.776445 * (2 / 3) ** 0.5, rel=1e-6)  # t of 4 degrees of freedom at 0.975


@pytest.mark.parametrize(("counts", "deviations"), [((3, 3), (1, 1)), ((3, 10), (0.3, 0.8)), ((10, 4), (1, 5))])
def test_covers_the_difference_as_often_as_it_says(counts: tuple[int, int], deviations: tuple[float, float]) -> None:
    """Welch's interval is not exact: with so few values it covers up to two in a hundred less, rounding down more."""
    random, inside = np.random.default_rng(), 0
    for _ in range(3000):
        first, second = (
            random.normal(mean, deviation, count)
            for mean, deviation, count in zip((2, 0), deviations, counts, strict=True)
        )
        difference, half = welch(first.tolist(), second.tolist())
        inside += abs(difference - 2) <= half
    assert 0.92 < inside / 3000 < 0.995


def test_too_few_values() -> None:
    with pytest.raises(ValueError, match="1 and 2 values"):
        welch([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="variance"):
        welch([1.0, 1.0], [2.0, 2.0])


def run(tmp_path: Path, recipes: list[str]) -> subprocess.CompletedProcess[str]:
    rows: dict[str, Any] = {"CBP": {"mAP": 30.0}}
    compared = [
        {"recipe": recipe, "seed": seed, "fold": None, "result": "CBP", "rows": {"CBP": {"mAP": 30.0 + seed}}}
        for recipe in recipes
        for seed in (0, 1)
    ] + [{"recipe": recipes[0], "seed": 0, "fold": "1/4", "result": "CBP", "rows": rows}]
    models = [{"model": "conv", "part": "test", "mean": mean} for mean in (20.0, 21.0, 22.0)]
    models.append({"model": "conv", "part": "4 folds", "mean": 1.0})
    for name, runs in (("ours.json", compared), ("theirs.json", models)):
        (tmp_path / name).write_text(json.dumps({"runs": runs}))
    command = [sys.executable, "-m", "benchmarks.real.beside", tmp_path / "ours.json", tmp_path / "theirs.json"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_prints_a_table_of_the_test_videos(tmp_path: Path) -> None:
    done = run(tmp_path, ["thumos14"])
    assert done.returncode == 0, done.stderr
    assert "| conv | 3 | 21.0 ± 1.0 | +9.5 [" in done.stdout
    assert "| **thumos14** | 2 | **30.5 ± 0.7** | |" in done.stdout


def test_names_the_recipes_that_are_too_many(tmp_path: Path) -> None:
    done = run(tmp_path, ["own", "thumos14"])
    assert done.returncode == 2
    assert "recipes own, thumos14, expected one" in done.stderr
