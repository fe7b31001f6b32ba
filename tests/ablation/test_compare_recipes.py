"""``wtal-ablate --dataset``: recipes compared on a small data set that the test makes."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from wtal.ablation.compare_recipes import collect, compare, trials_of
from wtal.ablation.comparison_page import comparison_figure, comparison_page
from wtal.ablation.comparison_statistics import differences, of_row, over_pairs, over_parts, over_seeds, values
from wtal.ablation.trial import Trial, recorded, run_trial
from wtal.cli.ablate import command
from wtal.data.open import open_data
from wtal.data.predictions import read_predictions
from wtal.errors import WtalError
from wtal.evaluation.average_precision import evaluate
from wtal.runs.run import Run
from wtal.training.trainer import Trainer

RECIPE = """extends = "own"
[schedule]
warmup_epochs = 1
f_epochs = 1
control = false
[optimizer]
lr = 1e-3
[batch]
size = 3
[cbp]
dim = {dim}
heads = 2
levels = 1
"""


@pytest.fixture
def toml(tmp_path: Path, write_own: Callable[..., Path], monkeypatch) -> Path:
    monkeypatch.setenv("WTAL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "small.toml").write_text(RECIPE.format(dim=8))
    (tmp_path / "taught.toml").write_text(
        RECIPE.format(dim=16).replace("control = false", "control = true\nself_training = 1")
    )
    threads = torch.get_num_threads()
    yield write_own(tmp_path / "mine", extra='train_segments = "train_segments.csv"')
    torch.set_num_threads(threads)


@pytest.fixture
def recipes(tmp_path: Path) -> list[str]:
    return [str(tmp_path / "small.toml"), str(tmp_path / "taught.toml")]


def test_trials_come_in_whole_pairs(recipes: list[str]) -> None:
    found = trials_of("d.toml", None, False, recipes, [0, 2], 2)
    assert [(t.seed, t.fold, t.name) for t in found] == [
        (seed, fold, name) for seed in (0, 2) for fold in ("1/2", "2/2") for name in ("small", "taught")
    ]
    assert len({t.folder(Path("runs")) for t in found}) == 8
    assert [t.fold for t in trials_of("d.toml", None, False, recipes[:1], [0], 0)] == [None]
    with pytest.raises(WtalError, match="two are called small"):
        trials_of("d.toml", None, False, ["a/small.toml", "b/small.toml"], [0], 0)


def test_a_comparison_is_of_what_training_does(tmp_path: Path, toml: Path, recipes: list[str]) -> None:
    root = tmp_path / "runs"
    trials = trials_of(str(toml), None, False, recipes, [0, 1], 0)
    records = [run_trial(root, trial) for trial in trials]
    results = collect(root, trials, open_data(str(toml)))
    assert results["runs"] == records
    assert json.loads(json.dumps(results))["runs"] == records
    for trial, record in zip(trials, records, strict=True):
        rows = Run.open(trial.folder(root)).rows()
        assert [*record["rows"]] == [row["name"] for row in rows]
        assert record["result"] == ("CBP after self-training" if trial.name == "taught" else "CBP after warm-up")
        final = next(row for row in rows if row["name"] == record["result"])
        assert record["rows"][record["result"]]["mAP"] == pytest.approx(final["mean"], abs=1e-4)
        assert record["cpu_seconds"] > 0 < record["peak_memory_mb"]
        assert record["videos"] == [7, 4]
        assert sum(record["errors"]["first"].values()) == pytest.approx(1, abs=1e-3)
        assert 0 <= record["errors"]["missed"]["all"] <= 1
    page = comparison_page(results, "results.png")
    for recipe in ("small", "taught"):
        found = values(results, recipe, of_row(None))
        mean, deviation = statistics.mean(found.values()), statistics.stdev(found.values())
        assert f"| 2 | {mean:.1f} ± {deviation:.1f} |" in page
    gap = over_pairs(differences(values(results, "taught", of_row(None)), values(results, "small", of_row(None))))
    assert f"| taught minus small | mAP | {gap.mean:+.1f} [{gap.mean - gap.half_width:+.1f}, " in page
    assert "| taught | CBP as long, no teacher |" in page
    assert "| cbp.dim | 8 | 16 |" in page
    assert "7 training and 4 test videos" in page
    assert str(tmp_path) not in page + json.dumps(results["about"])
    assert comparison_figure(results).startswith(b"\x89PNG")
    one = {**results, "runs": results["runs"][:1]}
    assert "**1 of the 4 runs asked for are finished" in comparison_page(one, None)
    assert "There is one recipe" in comparison_page(one, None)


def test_folds_measure_on_training_videos_alone(tmp_path: Path, toml: Path, recipes: list[str]) -> None:
    trials = trials_of(str(toml), None, False, recipes[:1], [0], 2)
    for video in open_data(str(toml)).subset("test"):  # what lies there is no matter
        assert video.instances
    found = [run_trial(tmp_path / "runs", trial) for trial in trials]
    assert [record["videos"] for record in found] == [[3, 4], [4, 3]]
    test = {video.id for video in open_data(str(toml)).subset("test")}
    seen: list[str] = []
    for trial in trials:
        predictions = trial.folder(tmp_path / "runs") / "predictions" / "cbp-after-warm-up.json"
        seen += json.loads(predictions.read_text())["results"]
    assert sorted(seen) == sorted(video.id for video in open_data(str(toml)).subset("train"))
    assert not test & set(seen)
    results = collect(tmp_path / "runs", trials, open_data(str(toml)))
    page = comparison_page(results, None)
    assert "the 7 training videos alone, in 2 parts" in page
    (pooled,) = results["pooled"]
    together = {
        video: detections
        for trial in trials
        for video, detections in read_predictions(
            trial.folder(tmp_path / "runs") / "predictions" / "cbp-after-warm-up.json"
        ).items()
    }
    truth = {video.id: video.instances for video in open_data(str(toml)).subset("train")}
    expected = evaluate(together, truth, results["about"]["protocol"], results["about"]["tiou"])
    assert (pooled["recipe"], pooled["seed"]) == ("small", 0)
    assert pooled["mAP"] == pytest.approx(expected.mean, abs=1e-4)
    assert [*pooled["per_tiou"].values()] == pytest.approx([*expected.per_tiou.values()], abs=1e-4)
    mean = statistics.mean(record["rows"][record["result"]]["mAP"] for record in found)
    assert f"| small | CBP after warm-up | 2 | {mean:.1f} | {expected.mean:.1f} |" in page
    one = collect(tmp_path / "runs", [trials[0], Trial(recipes[0], 0, str(toml), fold="2/3")], open_data(str(toml)))
    assert one["pooled"] == []  # a part is missing
    assert f"| {found[0]['rows']['CBP after warm-up']['mAP']:.1f} | - |" in comparison_page(one, None)


def test_the_page_says_if_ambiguous_detections_were_dropped(tmp_path: Path, toml: Path, recipes: list[str]) -> None:
    trials = trials_of(str(toml), None, False, recipes[:1], [0], 0)
    run_trial(tmp_path / "runs", trials[0])
    results = collect(tmp_path / "runs", trials, open_data(str(toml)))
    assert results["about"]["ambiguous"] == "keep"
    assert "protocol 'seconds'. FN" in comparison_page(results, None)
    results["about"]["ambiguous"] = "drop"
    assert "protocol 'seconds', ambiguous dropped. FN" in comparison_page(results, None)


def test_a_trial_of_another_process_is_left_alone(tmp_path: Path, toml: Path, recipes: list[str]) -> None:
    """Before its first checkpoint, too, when it is still reading features."""
    trial = Trial(recipes[0], 0, str(toml))
    folder = trial.folder(tmp_path / "runs")
    folder.mkdir(parents=True)
    (folder / "config.toml").touch()
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(WtalError, match="another process is training this run"):
            run_trial(tmp_path / "runs", trial)
    assert (folder / "config.toml").exists()


class KilledError(Exception):
    pass


def test_a_trial_goes_on_where_it_was_cut_off(tmp_path: Path, toml: Path, recipes: list[str], monkeypatch) -> None:
    trial = Trial(recipes[1], 0, str(toml))
    whole = run_trial(tmp_path / "whole", trial)
    real, count = Trainer.save, 0

    def save(self: Trainer, students: object) -> Path:
        nonlocal count
        path = real(self, students)
        count += 1
        if count == 4:
            raise KilledError
        return path

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save", save)
        with pytest.raises(KilledError):
            run_trial(tmp_path / "cut", trial)
    assert recorded(tmp_path / "cut", trial) is None
    seconds = trial.folder(tmp_path / "cut") / "cpu_seconds.json"
    spent = json.loads(seconds.read_text())
    assert 0 < spent["1"] < spent["4"]
    seconds.write_text(json.dumps({number: 1000 + second for number, second in spent.items()}))
    again = run_trial(tmp_path / "cut", trial)
    assert {**again, "cpu_seconds": 0, "peak_memory_mb": 0} == {**whole, "cpu_seconds": 0, "peak_memory_mb": 0}
    assert 1000 < again["cpu_seconds"] < 1000 + 100  # the part before the cut is in it
    monkeypatch.setattr(Trainer, "fit", lambda _: pytest.fail("a finished trial is trained again"))
    assert run_trial(tmp_path / "cut", trial) == again


def test_another_recipe_or_data_set_is_refused(tmp_path: Path, toml: Path, recipes: list[str], write_own) -> None:
    trial = Trial(recipes[0], 0, str(toml))
    run_trial(tmp_path / "runs", trial)
    Path(recipes[0]).write_text(RECIPE.format(dim=4))
    for call in (run_trial, recorded):
        with pytest.raises(
            WtalError, match=r"seed0: was trained by another .*small\.toml than today's; choose another"
        ):
            call(tmp_path / "runs", trial)
    Path(recipes[0]).write_text(RECIPE.format(dim=8))
    other = write_own(tmp_path / "other", seed=1)
    with pytest.raises(WtalError, match=r"was trained on .*mine/dataset\.toml, not .*other/dataset\.toml"):
        run_trial(tmp_path / "runs", Trial(recipes[0], 0, str(other)))
    record = trial.folder(tmp_path / "runs") / "trial.json"
    record.write_text(record.read_text()[:30])
    with pytest.raises(WtalError, match=r"trial\.json: damaged or truncated"):
        recorded(tmp_path / "runs", trial)
    record.write_text("{}")
    with pytest.raises(WtalError, match=r"trial\.json: unknown structure"):
        recorded(tmp_path / "runs", trial)


def test_what_stops_a_trial_is_told_before_any(tmp_path: Path, toml: Path, recipes: list[str], monkeypatch) -> None:
    monkeypatch.setattr("wtal.ablation.compare_recipes._train", lambda *_: pytest.fail("training began"))

    def told(*names: str, folds: int = 0) -> str:
        trials = trials_of(str(toml), None, False, names, [0], folds)
        with pytest.raises(WtalError) as caught:
            compare(trials, runs=tmp_path / "runs", out=tmp_path / "out", processes=1)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "--schedule.kind alternating needs the VLP branch" in told(recipes[0], "paper")
    (tmp_path / "strict.toml").write_text('extends = "own"\n[evaluate]\ntiou = [0.5]\n')
    assert "strict measures otherwise than small" in told(recipes[0], str(tmp_path / "strict.toml"))
    assert "no recipe 'nothing'" in told("nothing")
    assert "8 parts of 7 training videos" in told(recipes[0], folds=8)
    toml.write_text(toml.read_text().replace('train_segments = "train_segments.csv"', ""))
    assert "no training video in part 1/2 has temporal annotation" in told(recipes[0], folds=2)
    toml.write_text(toml.read_text().replace('segments = "segments.csv"', ""))
    assert "test videos without temporal annotation, expected some to compare by" in told(recipes[0])


def test_recipes_must_have_the_same_videos(tmp_path: Path, toml: Path, recipes: list[str]) -> None:
    """A recipe that uses CLIP leaves out what has no CLIP features, and then the folds are others, too."""
    data = open_data(str(toml))
    (toml.parent / "clip").mkdir()
    for video in data.videos[1:]:
        np.save(toml.parent / "clip" / f"{video.id}.npy", np.zeros((24, 8), np.float32))
    toml.write_text(toml.read_text().replace('i3d = "i3d"', 'i3d = "i3d"\nclip = "clip"'))
    Path(recipes[1]).write_text(RECIPE.format(dim=8).replace("[schedule]", '[schedule]\nkind = "cbp"'))
    for folds in (0, 2):
        trials = trials_of(str(toml), None, True, recipes, [0], folds)
        with pytest.raises(WtalError, match=r"--recipes: taught has other videos than small \(1, e\.g\. v00\)"):
            compare(trials, runs=tmp_path / "runs", out=tmp_path / "out", processes=0)


def test_one_failure_does_not_stop_the_others(
    tmp_path: Path, toml: Path, recipes: list[str], capfd, monkeypatch
) -> None:
    # threads for processes, which begin faster; test_ctrl_c_and_going_on_again has the real ones
    monkeypatch.setattr(
        "wtal.ablation.process_pool.ProcessPoolExecutor", lambda number, **_: ThreadPoolExecutor(number)
    )
    (tmp_path / "wild.toml").write_text(RECIPE.format(dim=8).replace("lr = 1e-3", "lr = 1e30"))
    trials = trials_of(str(toml), None, False, [str(tmp_path / "wild.toml"), recipes[0]], [0], 0)
    with pytest.raises(WtalError, match=r"^1 of 2 runs failed: wild seed 0: "):
        compare(trials, runs=tmp_path / "runs", out=tmp_path / "out", processes=1)
    assert (tmp_path / "out.md").is_file()
    assert [run["recipe"] for run in json.loads((tmp_path / "out.json").read_text())["runs"]] == ["small"]
    out = capfd.readouterr().out
    assert "failed: wild seed 0: " in out
    assert "small seed 0: CBP after warm-up " in out


def test_pooled_values_are_paired_by_seed(tmp_path: Path, toml: Path, recipes: list[str]) -> None:
    trials = trials_of(str(toml), None, False, recipes, [0], 2)
    for trial in trials:
        run_trial(tmp_path / "runs", trial)
    results = collect(tmp_path / "runs", trials, open_data(str(toml)))
    small, taught = (one["mAP"] for one in results["pooled"])
    sign = int(taught > small)
    assert f"| taught minus small | pooled mAP | {taught - small:+.1f} |  | {sign} of 1 | one pair only |" in (
        comparison_page(results, None)
    )


def test_spreads_are_their_definitions() -> None:
    found = {(0, "1/2"): 1.0, (0, "2/2"): 3.0, (1, "1/2"): 4.0, (1, "2/2"): 6.0}
    assert over_seeds(found).mean == over_pairs(found).mean == over_parts(found).mean == 3.5
    assert over_seeds(found).deviation == pytest.approx(statistics.stdev([2, 5]))
    assert over_parts(found).deviation == pytest.approx(statistics.stdev([2.5, 4.5]))
    assert over_pairs(found).deviation == pytest.approx(statistics.stdev([1, 3, 4, 6]))
    assert differences(found, {(0, "2/2"): 1.0, (5, "1/2"): 9.0}) == {(0, "2/2"): 2.0}
    assert over_pairs({}) is over_seeds({}) is over_parts({}) is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--seeds", "1"], "--seeds goes with --dataset"),
        (["--folds", "3"], "--folds goes with --dataset"),
        (["--recipes", "own"], "--recipes goes with --dataset"),
        (["--dataset", "d.toml", "--worlds", "3"], "--worlds goes without --dataset"),
        (["--dataset", "d.toml", "--check", "a.json"], "--check goes without --dataset"),
        (["--dataset", "d.toml", "--seeds", "x"], "--seeds x: expected numbers such as 7 or 0-2"),
        (["--dataset", "d.toml", "--folds", "1"], "--folds 1: expected at least 2"),
        (["--dataset", "d.toml", "--jobs", "0"], "--processes 0: expected at least 1"),
        (["--dataset", "nowhere.toml"], "nowhere.toml: no such file"),
        (["--dataset", "thumos41"], "--dataset thumos41: expected one of"),
    ],
)
def test_mistakes(tmp_path: Path, monkeypatch, arguments: list[str], told: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WtalError) as caught:
        command(arguments)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_ctrl_c_and_going_on_again(tmp_path: Path, toml: Path, recipes: list[str]) -> None:
    words = ["--dataset", str(toml), "--seeds", "0-1", "--recipes", *recipes, "--folds", "2", "--jobs", "2"]
    started = [sys.executable, "-P", "-m", "wtal.cli.ablate", *words]
    running = subprocess.Popen(
        started, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    runs = tmp_path / "runs" / "comparison-mine"
    until = time.monotonic() + 120
    while not list(runs.glob("*/*/trial.json")) and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    _, errors = running.communicate(timeout=120)
    assert running.returncode == 130
    assert errors == "wtal-ablate: interrupted; call again with the same options to go on\n"
    there = len(list(runs.glob("*/*/trial.json")))
    assert 0 < there < 8
    done = subprocess.run(started, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f"{there} of 8 runs are finished already" in done.stdout
    for ending in (".json", ".md", ".png"):
        assert (runs / f"results-2-folds{ending}").is_file()
