"""Results of several machines or calls as one."""

from __future__ import annotations

import copy
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from wtal.ablation.join import ORDER, join
from wtal.errors import WtalError

ROWS = list(ORDER)


def whole(benchmarks: dict[str, int], seed: int) -> dict:
    """Results with every row of every world."""
    drawn = random.Random(seed)

    def row() -> dict:
        tious = {f"0.{n}": round(drawn.uniform(0, 99), 4) for n in range(1, 8)}
        return {"mAP": round(drawn.uniform(0, 99), 4), "per_tiou": tious, "snippets": {"core": 0.5}}

    return {
        "format": 2,
        "about": {
            "commits": ["a"],
            "versions": {"torch": ["2"]},
            "machines": ["one"],
            "generator": "1",
            "recipe": "synthetic",
            "threads": 1,
            "protocol": "seconds",
            "tiou": [0.1],
            "videos": {name: [100, 100] for name in benchmarks},
            "asked": {name: list(range(count)) for name, count in benchmarks.items()},
        },
        "runs": [
            {"benchmark": name, "world": world, "seed": 0, "rows": {title: row() for title in ROWS}}
            for name, count in benchmarks.items()
            for world in range(count)
        ],
    }


def write(results: dict, path: Path) -> Path:
    path.write_text(json.dumps(results))
    return path


@pytest.mark.parametrize("seed", range(20))
def test_any_parts_make_the_whole(seed: int, tmp_path: Path) -> None:
    """Each row of each world goes to one part or more, in any order."""
    expected = whole({"small": 3, "easy": 2}, seed)
    drawn = random.Random(seed)
    parts = [copy.deepcopy(expected) for _ in range(3)]
    for part in parts:
        for run in part["runs"]:
            run["rows"] = {}
        drawn.shuffle(part["runs"])
    for run in expected["runs"]:
        for title in drawn.sample(ROWS, len(ROWS)):
            for part in drawn.sample(parts, drawn.randint(1, 3)):
                key = run["benchmark"], run["world"]
                same = next(r for r in part["runs"] if (r["benchmark"], r["world"]) == key)
                same["rows"][title] = run["rows"][title]
    for part in parts:
        part["runs"] = [run for run in part["runs"] if run["rows"]]
    joined = join([write(part, tmp_path / f"{number}.json") for number, part in enumerate(parts)])
    assert joined == expected
    assert [list(run["rows"]) for run in joined["runs"]] == [ROWS] * 5


def test_what_made_them_is_all_told(tmp_path: Path) -> None:
    one, other = whole({"small": 2}, 0), whole({"easy": 1}, 1)
    other["about"] |= {"commits": ["b"], "versions": {"torch": ["3"]}, "machines": ["another"]}
    other["about"]["asked"] = {"easy": [0, 7]}
    about = join([write(one, tmp_path / "1.json"), write(other, tmp_path / "2.json")])["about"]
    assert about["commits"] == ["a", "b"]
    assert about["versions"] == {"torch": ["2", "3"]}
    assert about["machines"] == ["another", "one"]
    assert about["asked"] == {"small": [0, 1], "easy": [0, 7]}


def test_worlds_of_several_calls_add_up(tmp_path: Path) -> None:
    one, other = whole({"small": 2}, 0), whole({"small": 2}, 0)
    for run in other["runs"]:
        run["world"] += 5
    other["about"]["asked"] = {"small": [5, 6, 7]}
    joined = join([write(one, tmp_path / "1.json"), write(other, tmp_path / "2.json")])
    assert [run["world"] for run in joined["runs"]] == [0, 1, 5, 6]
    assert joined["about"]["asked"] == {"small": [0, 1, 5, 6, 7]}


@pytest.mark.parametrize(("name", "value"), [("generator", "2"), ("recipe", "mine.toml"), ("threads", 2)])
def test_what_does_not_belong_together_is_refused(name: str, value: object, tmp_path: Path) -> None:
    one, other = whole({"small": 1}, 0), whole({"small": 1}, 0)
    other["about"][name] = value
    with pytest.raises(WtalError, match=rf"2\.json: {name} is {value!r}, but .* in .*1\.json"):
        join([write(one, tmp_path / "1.json"), write(other, tmp_path / "2.json")])


def test_a_row_with_two_values_is_refused(tmp_path: Path) -> None:
    one, other = whole({"small": 1}, 0), whole({"small": 1}, 0)
    other["runs"][0]["rows"]["CBP after F"]["mAP"] = 101
    with pytest.raises(WtalError, match=r"2\.json: small world 0 seed 0, 'CBP after F': mAP is 101, but "):
        join([write(one, tmp_path / "1.json"), write(other, tmp_path / "2.json")])


@pytest.mark.parametrize("name", ["results", "results_version_2"])
def test_the_command_writes_the_report_of_the_recorded_results(name: str, tmp_path: Path) -> None:
    """So docs/results.md is what the code of today makes of docs/results.json."""
    docs = Path(__file__).parents[2] / "docs"
    command = [sys.executable, "-P", "-m", "wtal.cli.ablate", "--join", docs / f"{name}.json"]
    subprocess.run([*map(str, command), "--out", str(tmp_path / name)], check=True, capture_output=True)
    for file in (f"{name}.json", f"{name}.md"):
        assert (tmp_path / file).read_text() == (docs / file).read_text()
