"""Odd arguments and streams: understood, or told in one plain line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from wtal.cli.eval import command as evaluation_command
from wtal.cli.parsing import with_ranges
from wtal.cli.train import _parsed
from wtal.errors import WtalError

FULL = Path("/dev/full")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Predictions, all of them right, and their ground truth."""
    truth = [{"segment": [0, 1], "label": "Hop"}, {"segment": [2, 4], "label": "Café"}]
    found = {"a": [{"score": 0.5, **one} for one in truth]}
    (tmp_path / "p.json").write_text(json.dumps({"version": "1", "results": found, "external_data": {}}))
    (tmp_path / "g.json").write_text(json.dumps({"database": {"a": {"subset": "test", "annotations": truth}}}))
    return tmp_path / "p.json", tmp_path / "g.json"


@pytest.mark.parametrize(
    ("words", "thresholds"),
    [
        (["--tiou", "0.5"], [0.5]),
        (["--tiou=0.5"], [0.5]),
        (["--tiou", "0.3", "0.5"], [0.3, 0.5]),
        (["--tiou", "0.3,0.5"], [0.3, 0.5]),
        (["--tiou", "0.5:0.05:0.95"], [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]),
        (["--tiou", "0.5:0.95:0.05"], [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]),
        (["--tiou", "0.1:0.1:0.7"], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
        (["--tiou", "0.5", "0.7:0.1:0.9"], [0.5, 0.7, 0.8, 0.9]),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_thresholds_before_and_after_files(files, capsys, words: list[str], thresholds: list[float], first) -> None:
    names = [*map(str, files)]
    assert evaluation_command([*words, *names, "--json"] if first else [*names, "--json", *words]) == 0
    assert [float(tiou) for tiou in json.loads(capsys.readouterr().out)["per_tiou"]] == thresholds


@pytest.mark.parametrize("word", ["0.5:0.95", "0.5:0:0.9", "0.9:0.1:0.5", "0:1e-9:1", "1:2:3:4"])
def test_a_range_that_is_none(files, word: str) -> None:
    with pytest.raises(WtalError, match=rf"^--tiou {word}: expected numbers, or FIRST:STEP:LAST such as 0\.5:0\.05"):
        evaluation_command(["--tiou", word, *map(str, files)])


def test_no_threshold_at_all(files) -> None:
    with pytest.raises(WtalError, match="--tiou"):
        evaluation_command(["--tiou", *map(str, files)])


def test_other_words_stay_in_their_order() -> None:
    words = ["a", "--tiou", "0.5", "b", "--x", "0.7", "--tiou=0.6", "0.8"]
    assert with_ranges(words, "--tiou") == ["a", "b", "--x", "0.7", "0.8", "--tiou", "0.5", "0.6"]
    assert with_ranges(words, "--y") == words


def test_ranges_in_training() -> None:
    options, _ = _parsed(["--evaluate.tiou", "0.5:0.25:1", "--seed", "3", "--localize.theta-loc", "0.1:0.2:0.6"])
    assert options.evaluate.tiou == (0.5, 0.75, 1.0)
    assert options.localize.theta_loc == (0.1, 0.3, 0.5)
    assert options.seed == 3


@pytest.mark.parametrize("value", ["50", "1", "-0.1", "nan"])
def test_a_threshold_that_no_score_can_pass(value: str) -> None:
    with pytest.raises(WtalError, match=r"localize\.theta_loc is .*, expected one or more, each a number from 0 to"):
        _parsed([f"--localize.theta-loc={value}"])


@pytest.mark.parametrize("words", [["--tiou"], ["--tiou", "half"], ["--tiou=half"], ["--tiou="]])
def test_thresholds_without_a_number(files, words: list[str]) -> None:
    with pytest.raises(WtalError, match=r"^--tiou(=|=half)?: expected numbers.*, or FIRST:STEP:LAST"):
        evaluation_command([*map(str, files), *words])


@pytest.mark.parametrize(("option", "value"), [("--root", "x"), ("--branch", "vlp"), ("--device", "cuda:7")])
def test_what_only_a_model_heeds_goes_with_a_run(files, option: str, value: str) -> None:
    with pytest.raises(WtalError, match=f"^{option} {value}: goes with a run or a checkpoint, not with predictions$"):
        evaluation_command([*map(str, files), option, value])


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
@pytest.mark.parametrize("words", [["{p}", "{g}"], ["{p}", "{g}", "--json"], ["--help"], ["--version"]])
def test_a_full_disk_behind_stdout_is_one_line(commands, files, words: list[str]) -> None:
    done = commands("eval", *(word.format(p=files[0], g=files[1]) for word in words), stdout=FULL)
    assert done.stderr == "wtal-eval: error: standard output cannot be written (No space left on device)\n"
    assert done.returncode == 2


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
def test_nothing_is_left_to_write_when_the_interpreter_ends(files) -> None:
    with FULL.open("w") as full:
        command = [sys.executable, "-P", "-m", "wtal.cli.eval", *map(str, files)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.stderr == "wtal-eval: error: standard output cannot be written (No space left on device)\n"
    assert done.returncode == 2


def test_a_closed_stdout_is_no_error(files) -> None:
    command = f'{sys.executable} -P -m wtal.cli.eval "$0" "$1" >&-'
    done = subprocess.run(["sh", "-c", command, *map(str, files)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
