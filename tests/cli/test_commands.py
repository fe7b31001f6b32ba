"""The commands as a user runs them: every mistake is one clear line and a non-zero exit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from forked.commands import Commands

Ended = subprocess.CompletedProcess[str]
COMMANDS = ("train", "eval", "predict", "extract", "report")


def fresh(command: str, *arguments: object, cwd: Path | None = None, **environment: str) -> Ended:
    """Run a command as a user starts it, with all imports."""
    return subprocess.run(
        [sys.executable, "-P", "-m", f"wtal.cli.{command}", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=300,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


@pytest.fixture(scope="session")
def wtal(commands: Commands) -> Callable[..., Ended]:
    """Runs a command in a process that has its imports."""

    def run(command: str, *arguments: object, cwd: Path | None = None, **environment: str) -> Ended:
        return commands(command, *arguments, folder=cwd, environment=environment)

    return run


def the_error(done: Ended) -> str:
    """The one line on stderr of a failed command."""
    assert done.returncode == 2, done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert ": error: " in lines[0]
    return lines[0]


@pytest.fixture(scope="session")
def trained(tmp_path_factory, wtal) -> tuple[Path, dict[str, str]]:
    """A run of the shortest possible training on the embedded benchmark, and the environment it lived in."""
    folder = tmp_path_factory.mktemp("trained")
    environment = {"WTAL_CACHE": str(folder / "cache")}
    stages = ("--schedule.warmup-epochs", 1, "--schedule.b-epochs", 1, "--schedule.f-epochs", 1)
    done = wtal("train", "--out", folder / "run", *stages, "--schedule.no-control", cwd=folder, **environment)
    assert done.returncode == 0, done.stderr
    assert "ensemble" in done.stdout
    return folder / "run", environment


@pytest.mark.parametrize("command", COMMANDS)
def test_version_runs_every_op(command: str) -> None:
    done = fresh(command, "--version")
    assert done.returncode == 0, done.stderr
    for op in ("temporal_attention", "temporal_attention_rows", "group_proposals", "soft_nms", "match_detections"):
        assert f"{op:<24} ok on cpu" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_is_named(command: str, wtal) -> None:
    assert "--no-such-thing" in the_error(wtal(command, "--no-such-thing", "3"))


def test_a_misspelt_option_gets_a_proposal(wtal) -> None:
    assert "did you mean --schedule.rounds" in the_error(wtal("train", "--schedul.rounds", 3))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--dataset", "thumos"], "--dataset thumos: expected one of"),
        (["--dataset", "nowhere.toml"], "nowhere.toml"),
        (["--recipe", "best"], "no recipe 'best'"),
        (["--device", "tpu"], "--device tpu"),
        (["--precision", "bf16", "--device", "cpu"], "--precision bf16"),
        (["--resume", "nowhere"], "nowhere: not a run folder"),
        (["--features", "guess"], "--features"),
        (["--cbp.heads", "7"], "7 attention heads"),
        (["--batch.size", "0"], "batch.size is 0, expected a number from 1 on"),
        (["--localize.theta-loc"], "--localize.theta-loc: expected numbers after it"),
        (["--seed", "-1"], "--seed -1: expected a whole number from 0 on"),
        (["--threads", "0"], "--threads 0"),
    ],
)
def test_wrong_training_options(tmp_path, arguments: list[str], told: str, trained, wtal) -> None:
    assert told in the_error(wtal("train", *arguments, cwd=tmp_path, **trained[1]))


def test_no_data_says_where_it_looked(tmp_path, wtal) -> None:
    done = wtal("train", "--dataset", "thumos14", cwd=tmp_path, WTAL_DATA=str(tmp_path))
    told = done.stderr
    assert done.returncode == 2
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").iterdir())
    for word in (str(tmp_path / "thumos14"), "--root", "--features synthetic", "gt.json"):
        assert word in told


def test_an_existing_run_folder_is_left_alone(trained, wtal) -> None:
    run, environment = trained
    before = (run / "log.txt").read_text()
    assert "already exists" in the_error(wtal("train", "--out", run, **environment))
    assert (run / "log.txt").read_text() == before


def test_evaluating_the_run_gives_the_tables_number(trained, wtal) -> None:
    run, environment = trained
    rows = json.loads((run / "metrics.json").read_text())["rows"]
    wanted = {"ensemble": "ensemble", "CBP after F": "cbp", "VLP after B": "vlp"}
    for row in rows:
        if row["name"] in wanted:
            done = wtal("eval", run, "--branch", wanted[row["name"]], "--json", **environment)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["mean"] == pytest.approx(row["mean"], abs=1e-9)


def test_resuming_a_finished_run_prints_its_table_again(trained, wtal) -> None:
    run, environment = trained
    done = wtal("train", "--resume", run, **environment)
    assert done.returncode == 0, done.stderr
    assert "ensemble" in done.stdout


def test_scripts_get_json_and_nothing_else(trained, tmp_path, wtal) -> None:
    run, environment = trained
    done = wtal("train", "--resume", run, "--json", **environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"run": str(run), **json.loads((run / "metrics.json").read_text())}
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(60, 256)).astype(np.float32))
    done = wtal("predict", run, tmp_path / "x.npy", "--out", tmp_path / "p.csv", "--json", **environment)
    told = json.loads(done.stdout)
    assert told["videos"] == 1
    assert told["detections"] == len((tmp_path / "p.csv").read_text().splitlines()) - 1


@pytest.mark.parametrize("option", [["--seed", "5"], ["--schedule.rounds", "2"], ["--dataset", "thumos14"]])
def test_resuming_refuses_what_it_would_not_heed(trained, option: list[str], wtal) -> None:
    run, environment = trained
    assert f"{option[0]} does not go with --resume" in the_error(wtal("train", "--resume", run, *option, **environment))


def test_a_run_remembers_where_it_was_computed(trained, wtal) -> None:
    run, environment = trained
    said = tomllib.loads((run / "config.toml").read_text())["run"]
    assert said["device"] in ("cpu", "cuda")
    assert said["precision"] in ("float32", "bf16")
    done = wtal("train", "--resume", run, "--threads", said["threads"] + 1, **environment)
    assert f"threads {said['threads']}: from here on, other bits" in " ".join(done.stdout.split())


def test_a_run_folder_that_cannot_be_made_is_named(trained, tmp_path, wtal) -> None:
    (tmp_path / "file").touch()
    told = the_error(wtal("train", "--out", tmp_path / "file" / "run", **trained[1]))
    assert f"{tmp_path}/file/run: cannot be written (Not a directory)" in told


@pytest.mark.parametrize("command", COMMANDS)
def test_a_path_that_is_not_utf8_is_named(command: str, tmp_path, wtal) -> None:
    told = the_error(wtal(command, "--out", os.fsdecode(b"o\xff"), cwd=tmp_path))
    assert r"'o\udcff': not UTF-8" in told
    assert os.listdir(tmp_path) == []


def test_a_terminal_that_lacks_a_character_shows_its_escape(tmp_path) -> None:
    (tmp_path / "p.json").write_text(
        '{"version": "1", "results": {"a": [{"score": 1, "segment": [0, 1], "label": "跳😀"}]}, "external_data": {}}'
    )
    truth = {"database": {"a": {"subset": "test", "annotations": [{"segment": [0, 1], "label": "跳😀"}]}}}
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    done = fresh("eval", "p.json", "gt.json", "--per-class", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert r"\u8df3\U0001f600" in done.stdout


@pytest.mark.parametrize("command", ["eval", "predict", "report"])
def test_what_works_alone_says_so_under_torchrun(command: str, wtal) -> None:
    assert "works in one process: start it without torchrun" in the_error(
        wtal(command, "x", WORLD_SIZE="2", RANK="0", LOCAL_RANK="0")
    )
    other = wtal(command, "x", WORLD_SIZE="2", RANK="1", LOCAL_RANK="1")
    assert (other.returncode, other.stderr) == (2, "")


def test_a_wrong_option_is_told_once_a_machine(wtal) -> None:
    assert "--no-such-thing" in the_error(wtal("train", "--no-such-thing", WORLD_SIZE="2", RANK="2", LOCAL_RANK="0"))
    other = wtal("train", "--no-such-thing", WORLD_SIZE="2", RANK="1", LOCAL_RANK="1")
    assert (other.returncode, other.stderr) == (2, "")


def test_a_run_that_could_not_start_frees_its_name(trained, tmp_path, wtal) -> None:
    _, environment = trained
    out = tmp_path / "run"
    the_error(wtal("train", "--cbp.heads", 7, "--out", out, **environment))
    assert not out.exists()


def test_predictions_lie_on_the_grid_of_training_unless_said_otherwise(trained, tmp_path, wtal) -> None:
    run, environment = trained
    np.save(tmp_path / "a.npy", np.random.default_rng(0).standard_normal((40, 256), dtype=np.float32))
    ends = {}
    for name, options in {"as trained": (), "half the stride": ("--stride", 8, "--window", 8)}.items():
        out = tmp_path / "p.json"
        assert wtal("predict", run, tmp_path / "a.npy", "--out", out, *options, **environment).returncode == 0
        (found,) = json.loads(out.read_text())["results"].values()
        ends[name] = max(detection["segment"][1] for detection in found)
    assert ends["half the stride"] == pytest.approx(ends["as trained"] / 2)
    told = the_error(wtal("predict", run, tmp_path / "a.npy", "--fps", -1, "--out", tmp_path / "p.json", **environment))
    assert "fps must be a positive number, got -1.0" in told


def test_predictions_of_files_evaluate(trained, tmp_path, wtal) -> None:
    run, environment = trained
    random = np.random.default_rng(0)
    (tmp_path / "i3d").mkdir()
    for name in ("a", "b"):
        np.save(tmp_path / "i3d" / f"{name}.npy", random.standard_normal((40, 256), dtype=np.float32))
    for out in ("p.json", "p.csv"):
        done = wtal("predict", run, tmp_path / "i3d", "--out", tmp_path / out, **environment)
        assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "p.json").read_text())
    assert set(written["results"]) == {"a", "b"}
    found = written["results"]["a"][0]
    truth = {
        "database": {
            "a": {
                "subset": "test",
                "duration": 25.6,
                "annotations": [{"segment": found["segment"], "label": found["label"]}],
            }
        }
    }
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    numbers = [
        json.loads(wtal("eval", tmp_path / name, tmp_path / "gt.json", "--json").stdout)["mean"]
        for name in ("p.json", "p.csv")
    ]
    assert numbers[0] == pytest.approx(numbers[1], abs=1e-9)
    assert numbers[0] > 0


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((5, 7), np.float32), "7 wide"),
        (np.zeros((0, 256), np.float32), "x.npy"),
        (np.full((5, 256), np.nan, np.float32), "x.npy"),
        (np.zeros(5, np.float32), "x.npy"),
    ],
)
def test_wrong_features_are_named(trained, tmp_path, array: np.ndarray, told: str, wtal) -> None:
    run, environment = trained
    np.save(tmp_path / "x.npy", array)
    assert told in the_error(wtal("predict", run, tmp_path / "x.npy", "--out", tmp_path / "p.json", **environment))
    assert not (tmp_path / "p.json").exists()


def test_a_truncated_array_is_named(trained, tmp_path, wtal) -> None:
    run, environment = trained
    np.save(tmp_path / "x.npy", np.zeros((50, 256), np.float32))
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:1000])
    assert "x.npy" in the_error(wtal("predict", run, tmp_path / "x.npy", "--out", tmp_path / "p.json", **environment))


@pytest.mark.parametrize("branch", ["vlp", "ensemble"])
def test_branches_that_read_clip_say_so(trained, tmp_path, branch: str, wtal) -> None:
    run, environment = trained
    np.save(tmp_path / "x.npy", np.zeros((5, 256), np.float32))
    assert "--clip" in the_error(wtal("predict", run, tmp_path / "x.npy", "--branch", branch, **environment))


@pytest.mark.parametrize(
    ("what", "told"),
    [
        (["nowhere.json", "gt.json"], "nowhere.json"),
        (["p.json"], "need ground truth"),
        (["p.json", "gt.json", "--tiou", "1.5"], "--tiou 1.5"),
        (["p.json", "gt.json", "--subset", "nothing"], "nothing"),
        (["broken.json", "gt.json"], "broken.json"),
        (["nowhere.safetensors"], "nowhere.safetensors"),
    ],
)
def test_wrong_evaluations_are_named(tmp_path, what: list[str], told: str, wtal) -> None:
    (tmp_path / "p.json").write_text('{"version": "1", "results": {}, "external_data": {}}')
    (tmp_path / "broken.json").write_text('{"results": {"a": [{"score": 1}]}}')
    truth = {"database": {"a": {"subset": "test", "annotations": [{"segment": [0, 1], "label": "x"}]}}}
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    assert told in the_error(wtal("eval", *what, cwd=tmp_path))
